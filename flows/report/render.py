"""The run report: facts in, one HTML file out that needs no network, script or second file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.report.facts import DataSet, Evaluation, LineageNode, RunFacts
from flows.report.words import count, duration, share, short, size

_WALK_NAMES = 3
_ROUND_ROWS = 300


@dataclass(frozen=True)
class Tile:
    """One key number; `state` is good, bad or plain, and is always said in words too."""

    label: str
    value: str
    note: str
    state: str = "plain"


@dataclass(frozen=True)
class Ruling:
    """The sites where a data set got the same decision for the same reasons."""

    sites: tuple[str, ...]
    state: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class WalkLevel:
    """All nodes of one kind at one depth of the walk: how many, and the first names."""

    depth: int
    kind: str
    number: int
    names: tuple[str, ...]


def render(facts: RunFacts) -> str:
    """Return the report of one run as a self-contained HTML document; the same facts give the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words: dict[str, Callable[..., str]] = {
        "count": count,
        "short": short,
        "size": size,
        "duration": duration,
        "when": when,
    }
    environment.filters["breakable"] = _breakable
    environment.filters.update(words)
    template = environment.get_template("report.html.j2")
    return template.render(
        facts=facts,
        charts=_charts(facts),
        tiles=tiles(facts),
        wall_s=_wall_s(facts),
        infinite=sum(not math.isfinite(p.loss) for p in facts.losses),
        matrix=placement_matrix(facts),
        rulings={d.name: rulings(facts, d.name) for d in facts.data_sets},
        activity=activity(facts),
        rounds=rounds_shown(facts),
        walk=walk_levels(facts.lineage_walk),
        transfers={s.name: [t for t in facts.transfers if t.site == s.name] for s in facts.sites},
        licences=licences,
        verdict=verdict,
        share=share,
    )


def _charts(facts: RunFacts) -> dict[str, Any]:
    from markupsafe import Markup

    from flows.report import charts, timeline

    # matplotlib escapes the text of its SVG, so these five strings alone are exempt from the template's escaping.
    drawn = {
        "refusals": charts.refusals if any(d.refusals for d in facts.data_sets) else None,
        "tokens": charts.tokens_per_site if any(p.tokens for p in facts.placements) else None,
        "loss": timeline.loss if any(math.isfinite(p.loss) for p in facts.losses) else None,
        "timeline": timeline.timeline if facts.spans else None,
        "evaluation": charts.evaluation if facts.evaluations else None,
    }
    sizes = (charts.WIDE, charts.NARROW)
    return {name: Markup("".join(draw(facts, w) for w in sizes)) if draw else None for name, draw in drawn.items()}


def _breakable(name: str) -> Any:
    from markupsafe import Markup, escape

    return escape(name).replace("/", Markup("/<wbr>"))


def tiles(facts: RunFacts) -> list[Tile]:
    """Return the key numbers of the run, in the order in which they are shown."""
    rows_in = facts.rows_in
    found = [
        Tile(
            "records accepted",
            count(facts.rows_accepted),
            f"{share(facts.rows_accepted, rows_in)} of {count(rows_in)} in",
        ),
        Tile(
            "quarantined",
            count(facts.rows_quarantined),
            f"{share(facts.rows_quarantined, rows_in)}, each with its reasons",
        ),
        Tile(
            "removed in curation",
            count(facts.rows_removed),
            f"{share(facts.rows_removed, facts.rows_accepted)} of accepted",
        ),
        Tile("shards", count(facts.shards), f"at {_places(facts)} of {len(facts.sites)} sites"),
        Tile("rounds", count(facts.rounds), f"{len(facts.sites)} sites, {size(facts.bytes_out)} sent"),
        Tile("tokens trained", short(facts.tokens_trained), f"by {short(facts.parameters)} parameters"),
    ]
    before, after, unigram = (facts.bits_per_byte(w) for w in ("before", "after", "unigram"))
    if before is None or after is None or unigram is None:
        found.append(Tile("bits per byte", "not evaluated", "no held-out figures", "bad"))
    else:
        note = f"unigram baseline {unigram:.3f}: {'beaten' if after < unigram else 'NOT beaten'}"
        good = after < unigram and after < before
        found.append(Tile("bits per byte, held out", f"{before:.3f} → {after:.3f}", note, "good" if good else "bad"))
    if facts.policy is None:
        found.append(Tile("policy violations", "not checked", "run the checker", "bad"))
    else:
        note = f"{count(facts.policy.objects_checked)} objects re-read"
        state = "bad" if facts.policy.violations else "good"
        found.append(Tile("policy violations", count(facts.policy.violations), note, state))
    if facts.chain is None:
        found.append(Tile("commit chain", "not checked", "replay it to know", "bad"))
    else:
        state, value = ("good", "verified") if facts.chain.verified else ("bad", "BROKEN")
        found.append(Tile("commit chain", value, f"{count(facts.chain.commits)} commits replayed", state))
    return found


def _places(facts: RunFacts) -> int:
    return len({p.site for p in facts.placements if p.shards})


def _wall_s(facts: RunFacts) -> float:
    return (datetime.fromisoformat(facts.finished_at) - datetime.fromisoformat(facts.started_at)).total_seconds()


def when(moment: str) -> str:
    """Return an ISO time as a person writes it, to the minute, with its zone."""
    parsed = datetime.fromisoformat(moment)
    return f"{parsed:%Y-%m-%d %H:%M} {'UTC' if not parsed.utcoffset() else parsed.strftime('%z')}"


def placement_matrix(facts: RunFacts) -> dict[tuple[str, str], dict[str, Any]]:
    """Return one cell per data set and site: placed, permitted, refused, or nothing decided."""
    decided = {(p.data_set, p.site): p for p in facts.placements}
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for data_set in facts.data_sets:
        for site in facts.sites:
            placement = decided.get((data_set.name, site.name))
            state = _state(placement.allowed, placement.tokens) if placement else "undecided"
            cells[data_set.name, site.name] = {"state": state, "placement": placement}
    return cells


def _state(allowed: bool, tokens: int) -> str:
    # Tokens at a place that refuses them must not look like a plain refusal.
    if tokens and not allowed:
        return "violation"
    return "placed" if tokens else "permitted" if allowed else "refused"


def rulings(facts: RunFacts, data_set: str) -> list[Ruling]:
    """Return a data set's decisions, sites with the same decision and sentences together, placed ones first."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for p in facts.placements:
        if p.data_set == data_set:
            groups[_state(p.allowed, p.tokens), p.reasons].append(p.site)
    order = ("violation", "placed", "permitted", "refused")
    ranked = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[1]))
    return [Ruling(tuple(sites), state, reasons) for (state, reasons), sites in ranked]


def activity(facts: RunFacts) -> list[dict[str, Any]]:
    """Return per site the seconds of each kind, and compute's share of the site's own time from first to last span."""
    rows = []
    for site in facts.sites:
        spans = [s for s in facts.spans if s.site == site.name]
        if not spans:
            continue
        seconds = {
            kind: sum(s.end_s - s.start_s for s in spans if s.kind == kind) for kind in ("compute", "transfer", "wait")
        }
        whole = max(s.end_s for s in spans) - min(s.start_s for s in spans)
        rows.append({"site": site.name, **seconds, "share": share(seconds["compute"], whole)})
    return rows


def rounds_shown(facts: RunFacts) -> dict[str, Any]:
    """Return the last rows of the table of rounds, how many are left out, and how its figures are known, each once."""
    rows = facts.round_sites[-_ROUND_ROWS:]
    notes: dict[str, set[str]] = defaultdict(set)
    for r in rows:
        if r.mfu_note:
            notes[f"MFU: {r.mfu_note}."].add(r.site)
        if r.energy:
            notes[f"Energy {r.energy}."].add(r.site)
    said = [f"{', '.join(sorted(sites))}: {note}" for note, sites in sorted(notes.items())]
    return {"rows": rows, "left_out": len(facts.round_sites) - len(rows), "notes": said}


def walk_levels(nodes: tuple[LineageNode, ...]) -> list[WalkLevel]:
    """Return the walk in brief: nodes of one kind at one depth on one line."""
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for node in nodes:
        groups[node.depth, node.kind].append(node.node)
    return [
        WalkLevel(d, kind, len(names), tuple(sorted(names)[:_WALK_NAMES]))
        for (d, kind), names in sorted(groups.items())
    ]


def licences(data_set: DataSet) -> list[tuple[str, str, float]]:
    """Return (licence, share in words, share 0..1) of the accepted rows, most first; beyond five they are one entry."""
    total = sum(data_set.licences.values())
    ranked = sorted(data_set.licences.items(), key=lambda item: (-item[1], item[0]))
    if len(ranked) > 6:
        ranked = [*ranked[:5], (f"{len(ranked) - 5} others", sum(rows for _, rows in ranked[5:]))]
    return [(name, share(rows, total), rows / total) for name, rows in ranked if total]


def verdict(entry: Evaluation) -> str:
    """Return in words whether training helped on a data set, and whether the test can tell."""
    gain = entry.before - entry.after
    if entry.smallest_difference is not None and abs(gain) < entry.smallest_difference:
        return "no difference that this test can see"
    if gain <= 0:
        return "worse than before training" if gain < 0 else "unchanged"
    return (
        "better than the unigram baseline"
        if entry.after < entry.unigram
        else "better, still above the unigram baseline"
    )
