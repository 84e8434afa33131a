"""The command line of a site's process: `python -m training.worker`."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.signing import KeyRing
from training.admission import EXIT_REFUSED
from training.following import Paused
from training.inner import MakeLoop, alone
from training.process import Stopped, end_with, only_worker
from training.rounds.control import EXIT_LEFT, EXIT_PAUSED
from training.rounds.plan import read_plan
from training.worker import PEER_PATIENCE_S, Left, SiteWorker


def _loops(ranks: int, form: str, threads: int) -> AbstractContextManager[MakeLoop]:
    """Return what makes this site's loop: in this process, or over its ranks (docs/inside-a-site.md)."""
    if ranks == 1 and "WORLD_SIZE" not in os.environ:
        return nullcontext(alone)
    from training.parallel import together

    return together(ranks, form, threads)


def main(arguments: list[str] | None = None) -> int:
    """Run one site from the command line.

    Exit 0: the run is whole, 3: told to stop, 4: policy refuses, 5: the run is paused or cancelled, 6: the site is no
    member now, 1: an error.
    """
    import argparse

    parser = argparse.ArgumentParser(prog="python -m training.worker", description=main.__doc__)
    parser.add_argument("--home-store", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=STORE")
    parser.add_argument("--keys", required=True, type=Path)
    parser.add_argument("--run", required=True)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for shards of a store that is no directory")
    parser.add_argument("--cache-gb", type=float, metavar="N", help="bound of that folder, in 10^9 bytes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; part of what makes bytes repeat")
    parser.add_argument("--ranks", type=int, default=int(os.environ.get("CAUSEWAY_RANKS", "1")), help="processes")
    parser.add_argument("--form", default=os.environ.get("CAUSEWAY_FORM", "ddp"), choices=("ddp", "fsdp"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of forward and backward, not the recipe's")
    parser.add_argument("--loader-log", type=Path, help="folder for an independent log of what the loader handed out")
    parser.add_argument("--parent", type=int, metavar="PID", help="die with this process, the one that started it")
    options = parser.parse_args(arguments)
    if options.parent is not None and not end_with(options.parent):
        return 3
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if int(os.environ.get("RANK", "0")) > 0:
        # torchrun has started it beside rank 0, which does the work of the chain.
        from training.parallel import follower

        return follower()
    try:
        home, store = Store.open(options.home_store), Store.open(options.store)
        plan = read_plan(home, options.run)
        lock = only_worker(store, plan.run, options.site, lambda: bool(stopping), options.cache)
        with lock, _loops(options.ranks, options.form, options.threads) as make_loop:
            worker = SiteWorker(
                plan=plan,
                site=options.site,
                home=home,
                store=store,
                peers={
                    name: Store.open(url, retry_s=PEER_PATIENCE_S)
                    for name, url in (p.split("=", 1) for p in options.peer)
                },
                key=KeyRing(options.keys).signer(f"site-{options.site}"),
                log_dir=options.loader_log,
                stop=lambda: bool(stopping),
                cache=options.cache,
                cache_bytes=None if options.cache_gb is None else round(options.cache_gb * 1e9),
                make_loop=make_loop,
                dtype=options.dtype,
                form=options.form,
                ranks=int(os.environ.get("WORLD_SIZE", options.ranks)),
            )
            state = worker.run()
    except Stopped:
        print(f"site {options.site}: stopped on request; start it again to go on", file=sys.stderr)
        return 3
    except Paused as paused:
        print(f"site {options.site}: {paused}; what it published is whole", file=sys.stderr)
        return EXIT_PAUSED
    except PolicyRefused as error:
        print(f"site {options.site}: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except CausewayError as error:
        print(f"site {options.site}: {error}", file=sys.stderr)
        return EXIT_LEFT if isinstance(error, Left) else 1
    print(json.dumps({"site": options.site, "round": state.round, "state": state.state_sha, "pid": os.getpid()}))
    return 0
