"""Watch a run of training from any machine that can read the home store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands import DEFAULT_HOME, Home, Json, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from training.watching import Picture, SiteNow, Watch

LOOK_S = 1.0
SHOWN_EVENTS = 8
SILENT_S = 20.0
BAR = 60


def watch(
    run: str | None = None,
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    store: str | None = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Watch a run: rounds, heartbeats, tokens, loss, lanes, who was late or refused, amendments, time left.

    Reads the chain and, where their stores can be read, the sites' leases and telemetry; writes nothing. Ends when the
    run is whole; Ctrl-C ends the watching only. A heartbeat's age counts from when this command saw it change.

    Examples:
        causeway watch demo-1a2b3c4d
        causeway watch demo-1a2b3c4d --once --json
        causeway watch demo-1a2b3c4d --store 's3://causeway-home?endpoint=https://s3.example&credentials=home'

    Parameters
    ----------
    run:
        The run; default: the only one.
    once:
        Two looks a second apart, one picture, and end; --json does so too.
    store:
        The home store by its URL or folder: no --home folder is needed then, and no site's store is read.
    """
    watching = _opened(run, home, store)
    picture = watching.look()
    if not (once or json):
        return _live(watching, picture)
    if picture.state == "running" and watching.stores:
        time.sleep(LOOK_S)  # whether a heartbeat moves takes two looks
        picture = watching.look()
    if json:
        from dataclasses import asdict

        print_json(asdict(picture))
    else:
        from rich.console import Console

        console = Console(markup=False)
        console.width = console.width if console.is_terminal else 140
        console.print(drawn(picture))
    return 0


def _opened(run: str | None, home: Path, store: str | None) -> Watch:
    from data_contracts.catalog.store import Store
    from data_contracts.errors import CausewayError
    from training.rounds.run import find_run
    from training.watching import Watch
    from training.workspace import Workspace

    if store is not None:
        opened = Store.open(store if "://" in store else Path(store))
        return Watch(opened, find_run(opened, run), {})
    if not home.exists():
        raise CausewayError(f"{home.absolute()} is not there; name the --home folder, or the home store with --store")
    workspace = Workspace.open(home)
    stores = {site.name: workspace.sites.store(site) for site in workspace.sites.sites}
    return Watch(workspace.home, find_run(workspace.home, run), stores)


def _live(watching: Watch, picture: Picture) -> int:
    from rich.console import Console
    from rich.live import Live

    from data_contracts.errors import StoreError

    try:
        with Live(drawn(picture), console=Console(markup=False), auto_refresh=False) as live:
            while picture.state != "whole" and not picture.state.startswith("cancelled"):
                time.sleep(LOOK_S)
                try:
                    picture = watching.look()
                except StoreError as error:
                    live.update(drawn(picture, f"out of reach, looking again: {error}"), refresh=True)
                    continue
                live.update(drawn(picture), refresh=True)
    except KeyboardInterrupt:
        print(f"no longer watched; run {picture.run} goes on by itself")
    return 0


def drawn(picture: Picture, fault: str = "") -> RenderableType:
    """Return the picture as lines and a table. What comes from stores is text, never rich's markup."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    loss = "" if picture.loss is None else f", loss {picture.loss:.3f}"
    left = "" if picture.eta_s is None else f", about {_span(picture.eta_s)} left"
    pace = "" if picture.round_s is None else f", {_span(picture.round_s)} a round"
    head = f"run {picture.run}: {picture.state}, round {picture.round:,} of {picture.rounds:,}{pace}{left}"
    table = Table(show_edge=False, pad_edge=False)
    for name in ("site", "is", "heartbeat", "step", "tokens", "loss", "lanes", "utilisation", "trained", "device"):
        table.add_column(name, justify="left" if name in ("site", "is", "heartbeat", "device") else "right")
    for site in picture.sites:
        table.add_row(*map(Text, _row(picture, site)))
    said = [f"  round {number:,}: {words}" for number, words in picture.events[-SHOWN_EVENTS:]]
    if more := len(picture.events) - len(said):
        said.insert(0, f"  ... {more:,} before; --json has all")
    by = f"; last commit by {picture.committer}" if picture.committer else ""
    lines = [f"{picture.tokens:,} tokens committed{loss}{by}", *([fault] if fault else [])]
    full = BAR * picture.round // picture.rounds
    bar = Text("━" * full, style="green").append("─" * (BAR - full), style="dim")
    return Group(Text(head, style="bold"), bar, Text("\n".join(lines)), table, Text("\n".join(said)))


def _row(picture: Picture, site: SiteNow) -> list[str]:
    now = site.round == picture.round + 1 and not site.done
    loss = site.loss if now and site.loss is not None else site.last_loss
    return [
        site.site,
        "member" if site.member else "no member",
        heartbeat(site),
        f"{site.step} of {site.steps}" if now else "-",
        f"{site.tokens:,}" if now and site.tokens else "-",
        "-" if loss is None else f"{loss:.3f}",
        str(site.lanes),
        "-" if site.utilisation is None else f"{100 * site.utilisation:.0f} %",
        f"{site.trained:,}",
        site.device or "-",
    ]


def heartbeat(site: SiteNow) -> str:
    """Return what is known of a site's heartbeat, in words."""
    if site.heartbeat_s is None:
        return "not seen"
    if site.done:
        return "done"
    if not site.moved:
        return f"none in {_span(site.heartbeat_s)} watched"
    return f"{_span(site.heartbeat_s)} ago" + (" (silent)" if site.heartbeat_s > SILENT_S else "")


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
