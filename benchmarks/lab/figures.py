"""What a lab's run came to, read from what it left: the chain, the sites' telemetry, the loaders' own log."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.evaluate_site import evaluate_site
from training.rounds import ledger
from training.rounds.contribution import Contribution
from training.rounds.plan import Plan
from training.rounds.run import replay, start_state
from training.workspace import Workspace

HELD_OUT_BYTES = 100_000
History = list[tuple[int, list[Contribution]]]


def history(workspace: Workspace, plan: Plan) -> History:
    """Return the committed rounds and what each applied; every commit is made again and compared."""
    start = start_state(workspace.home, plan)
    return [(after.round, inputs) for after, _, inputs in replay(workspace.home, plan, start)]


def tokens_by_round(rounds: History) -> dict[int, dict[str, int]]:
    """Return the tokens that each round booked, by site."""
    return {number: {c.header.site: c.header.tokens for c in inputs} for number, inputs in rounds}


def rate(tokens: Mapping[int, Mapping[str, int]], seen: Mapping[int, float]) -> float:
    """Return committed tokens a second from the first round that was seen to the last; the first is a start."""
    first, last = min(seen), max(seen)
    made = sum(sum(by_site.values()) for number, by_site in tokens.items() if first < number <= last)
    return made / (seen[last] - seen[first])


def compute_rate(workspace: Workspace, plan: Plan, site: str, rounds: History) -> float:
    """Return a site's tokens over its seconds of compute, after its first round: what it does when nothing is sent."""
    made, seconds = 0, 0.0
    for number, by_site in tokens_by_round(rounds).items():
        if number > rounds[0][0] and site in by_site:
            spans = workspace.store(site).get_json(f"runs/{plan.run}/telemetry/{number:06d}/{site}.json")["spans"]
            made += by_site[site]
            seconds += sum(end - start for kind, start, end in spans if kind == "compute")
    return made / seconds


def bytes_sent(rounds: History) -> int:
    """Return the bytes of all committed updates: payloads, as their headers declare them."""
    return sum(c.header.payload_bytes for _, inputs in rounds for c in inputs)


def held_out(workspace: Workspace, plan: Plan) -> float:
    """Return the newest model's bits per byte over the held-out text of all sites."""
    nats, size = 0.0, 0
    for site in plan.sites:
        for summary in evaluate_site(
            workspace.home, workspace.shards(site.region), site.name, plan.run, HELD_OUT_BYTES
        ):
            after = summary["figures"]["after"]
            nats += after["bits_per_byte"] * after["bytes"]
            size += after["bytes"]
    return nats / size if size else math.nan


def loader_lines(folder: Path) -> list[dict[str, Any]]:
    """Return what the loaders wrote down by themselves; a line that a kill cut off is none."""
    found = []
    for file in sorted(folder.glob("*.ndjson")):
        for line in file.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def positions(plan: Plan, rounds: History, lines: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return (lost, repeated) positions of the committed history.

    Lost: booked by a commit though no loader handed it out at that site, or passed over between two claims. Repeated:
    booked twice. What was handed out and not committed is neither: it is issued again.
    """
    handed = {
        (plan.site(line["site"]).region, line["site"], lane, index) for line in lines for lane, index in line["places"]
    }
    booked: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for _, inputs in rounds:
        for c in inputs:
            region = plan.site(c.header.site).region
            for lane, start, end in c.header.claims:
                booked.setdefault((region, lane), []).extend((index, c.header.site) for index in range(start, end))
    lost = repeated = 0
    for (region, lane), found in booked.items():
        indices = {index for index, _ in found}
        repeated += len(found) - len(indices)
        lost += max(indices) + 1 - len(indices)
        lost += sum((region, site, lane, index) not in handed for index, site in found)
    return lost, repeated


def chain_is_exact(plan: Plan, rounds: History) -> bool:
    """Say whether the product's own ledger finds each lane's ranges joined without gap or overlap."""
    return bool(ledger.entries(plan, rounds))
