"""Commands that operate: ui, serve."""

from __future__ import annotations

from pathlib import Path

from flows.commands import DEFAULT_HOME, Home


def ui(*, home: Home = DEFAULT_HOME, port: int = 4200) -> int:
    """Start the Prefect server of this folder and keep it up until Ctrl-C: its UI shows runs, logs and artifacts.

    Examples:
        causeway ui
        causeway ui --port 4300
    """
    import time

    from flows.server import server

    with server(home.absolute(), port) as url:
        print(f"Prefect UI: {url.removesuffix('/api')}   (Ctrl-C ends it)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return 0


def serve(contract: Path, source: str, *, home: Home = DEFAULT_HOME, every: float = 3600.0, port: int = 4200) -> int:
    """Run the ingest of a source on a schedule, with the Prefect server of this folder, until Ctrl-C.

    Examples:
        causeway serve data_contracts/library/software-package-docs.yaml env: --every 3600

    Parameters
    ----------
    every:
        Seconds from one scheduled run to the next.
    port:
        Port of the Prefect server, when none is up for this folder.
    """
    import os

    from data_contracts.contract import load_contract
    from data_contracts.sources import place_of
    from flows.server import server

    loaded = load_contract(contract)
    with server(home.absolute(), port) as url:
        os.environ["PREFECT_API_URL"] = url
        from prefect.types.entrypoint import EntrypointType

        from flows.ingest import ingest

        where = place_of(source)
        print(
            f"Serving ingest of {loaded.id} every {every:g} s; UI: {url.removesuffix('/api')}   (Ctrl-C ends it)",
            flush=True,
        )
        parameters = {"home": str(home.absolute()), "contract": str(contract.absolute()), "source": where}
        # By module, not by file: a flow loaded from its file cannot resolve its own annotations.
        ingest.serve(
            name=loaded.slug,
            interval=every,
            parameters=parameters,
            print_starting_message=False,
            limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    return 0
