"""Made-up run facts of any size for the report's tests: a pure function of its arguments."""

from __future__ import annotations

import math
import random

from flows.report.facts import (
    ChainCheck,
    Change,
    Command,
    DataSet,
    Evaluation,
    Example,
    LineageNode,
    LineageStep,
    Loss,
    Placement,
    PolicyCheck,
    Refusal,
    RoundSite,
    RunFacts,
    Site,
    Span,
    Transfer,
)

_SITES = [
    ("stockholm", "eu-north", ("SE",), "cpu"), ("frankfurt", "eu-central", ("DE",), "H100"),
    ("oregon", "us-west", ("US",), "H200"), ("oslo", "no-east", ("NO",), "MI300X"), ("lyon", "eu-west", ("FR",), "910B"),
    ("singapore", "ap-south", ("SG",), "H100"), ("zurich", "ch-north", ("CH",), "cpu"), ("dublin", "eu-west-2", ("IE",), "H100"),
    ("osaka", "ap-east", ("JP",), "B200"), ("montreal", "ca-east", ("CA",), "H100"), ("shenzhen", "cn-south", ("CN",), "910C"),
    ("sao-paulo", "sa-east", ("BR",), "cpu"),
]  # fmt: skip
_SETS = ["software/python-source", "software/python-docs", "software/licences", "healthcare/notes"]


def made_facts(sites: int = 3, rounds: int = 5, sets: int = 3) -> RunFacts:
    """Return facts of a run of `rounds` rounds of about a minute at the first `sites` of twelve places."""
    rng = random.Random(7)
    places = tuple(Site(*row, tokens_trained=1_200_000 * (i + 2)) for i, row in enumerate(_SITES[:sites]))
    names = _SETS[:sets]
    data_sets = tuple(_data_set(name, rng) for name in names)
    placements = tuple(_placement(name, site, i, j) for i, name in enumerate(names) for j, site in enumerate(places))
    losses = tuple(
        Loss(site.name, n, 5.2 * math.exp(-n / rounds * 1.5) + 2.1 + 0.22 * i * math.cos(i) + rng.uniform(-0.04, 0.04))
        for i, site in enumerate(places)
        for n in range(1, rounds + 1)
    )
    return RunFacts(
        run="first-light-20260114",
        model="byte-pair GPT, 6 layers of 256, vocabulary 8,192",
        started_at="2026-01-14T09:12:00+00:00",
        finished_at="2026-01-14T09:21:41+00:00",
        parameters=7_340_000,
        rounds=rounds,
        shards=sum(p.shards for p in placements),
        data_sets=data_sets,
        sites=places,
        placements=placements,
        losses=losses,
        spans=_spans(places, rounds, rng),
        evaluations=tuple(
            Evaluation(n, 8.02 + 0.1 * i, 2.61 + 0.33 * i, 4.71 + 0.1 * i, 412 + i, 1_482_000 - 9_000 * i, 0.012)
            for i, n in enumerate(names)
        ),
        transfers=tuple(
            Transfer(site.name, "home", kind, number, number * each)
            for site in places
            for kind, number, each in (
                ("contribution", rounds, 3_670_144),
                ("contribution header", rounds, 1_204),
                ("lease", rounds * 4, 188),
                ("evaluation figures", 1, 2_406),
            )
        ),
        round_sites=_rounds(places, rounds),
        changes=(
            Change(2, "oregon joins"),
            Change(3, "amendment: change-weights software/licences=2", "more licences"),
        ),
        lineage_steps=(
            LineageStep("ingest", 58, 57, 1),
            LineageStep("curate", 3, 3),
            LineageStep("tokenizer", 1, 1),
            LineageStep("shard", 57, 61),
            LineageStep("round", rounds, rounds),
            LineageStep("evaluate", 1, 1),
        ),
        lineage_walk=_walk(rounds, names),
        policy=PolicyCheck(0, 1_318),
        chain=ChainCheck(
            True, rounds, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "Replayed from home."
        ),
        commands=(
            Command("causeway demo --home ./first-light --seed 7", "Run it again, from data to report:"),
            Command(
                "causeway verify --home ./first-light --run first-light-20260114",
                "Replay the chain and check every byte:",
            ),
        ),
        environment={"causeway": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "seed": "7"},
    )


def _data_set(name: str, rng: random.Random) -> DataSet:
    rows = rng.randrange(2_000, 14_000)

    def examples(n: int) -> tuple[Example, ...]:
        return tuple(Example(f"{rng.getrandbits(128):032x}", f"pkg{i}/module_{i}.py", i * 7 + 1) for i in range(n))

    refusals = (
        Refusal("licence.allowed", "the licence is not one that the contract allows", rows // 21, examples=examples(3)),
        Refusal("content.minLength", "content has fewer than 64 characters", rows // 34, examples=examples(3)),
        Refusal("content.decodes", "the file is not UTF-8", 4, examples=(Example(None, "pkg/latin1.py", 1),)),
        Refusal("duplicate.exact", "the same text as a record that is kept", rows // 18, "curation", examples(2)),
        Refusal("duplicate.held-out", "the same text as a held-out record", rows // 240, "curation", examples(1)),
    )
    quarantined = rows // 21 + rows // 34 + 2
    return DataSet(
        name, "1.0.0", rows, rows * 2_150, 19, 1 if "source" in name else 0, rows - quarantined, quarantined,
        rows // 18 + rows // 240, rows // 60,
        {"MIT": rows // 2, "BSD-3-Clause": rows // 4, "Apache-2.0": rows // 5, "PSF-2.0": rows // 90}, refusals, "stockholm",
    )  # fmt: skip


def _placement(name: str, site: Site, row: int, column: int) -> Placement:
    (country,) = site.jurisdictions
    if row == 1 and country not in ("SE", "DE", "FR", "IE"):
        reasons = (
            f"residency.storage permits EU; {site.name} lies in {country}.",
            f"residency.processing permits EU; {site.name} lies in {country}.",
        )
        return Placement(name, site.name, False, reasons)
    if row == 2 and column % 2 == 0 and column:
        return Placement(name, site.name, True, ("Permitted; other sites were cheaper to reach for their speed.",))
    why = (
        f"residency.storage permits {'EU' if row == 1 else 'anywhere'}, purposes.permitted names commercial pre-training.",
    )
    return Placement(name, site.name, True, why, 410_000 * (row + 1) * (column + 2) // (row * 2 + 1), 4 + row + column)


def _rounds(sites: tuple[Site, ...], rounds: int) -> tuple[RoundSite, ...]:
    found = [
        RoundSite(
            n, s.name, "counted", 12_000, 3.2, 1 / len(sites), 0.7, "cuda bfloat16 fsdp-8", 3_671_348, 0.81, 41.5, 6.2, 0.4,
            3.1, 0.8105, 0.412, "of 989 TFLOP/s, H100, bfloat16", 21_400.0, "measured: NVML",
        )
        for n in range(1, rounds + 1)
        for s in sites
    ]  # fmt: skip
    late = RoundSite(rounds, sites[0].name, "late")
    return (*found, late, RoundSite(rounds, sites[-1].name, "refused: outlying: norm 99 is beyond 12"))


def _spans(sites: tuple[Site, ...], rounds: int, rng: random.Random) -> tuple[Span, ...]:
    spans, begin = [], 4.0
    for n in range(1, rounds + 1):
        work = {s.name: rng.uniform(34, 52) for s in sites}
        send = {s.name: rng.uniform(3, 9) for s in sites}
        end = begin + max(work[s] + send[s] for s in work) + 1.5
        for s, work_s in work.items():
            spans.append(Span(s, "compute", begin, begin + work_s, n))
            spans.append(Span(s, "transfer", begin + work_s, begin + work_s + send[s], n))
            spans.append(Span(s, "wait", begin + work_s + send[s], end, n))
        begin = end
    return tuple(spans)


def _walk(rounds: int, names: list[str]) -> tuple[LineageNode, ...]:
    nodes = [LineageNode(0, f"model/first-light-20260114@{rounds}", "model")]
    nodes += [LineageNode(1, f"round/first-light-20260114/{n}", "round") for n in range(1, rounds + 1)]
    nodes += [LineageNode(2, f"contribution/{n:012x}", "contribution") for n in range(3 * rounds)]
    nodes += [LineageNode(3, f"shard/{n * 77:012x}", "shard") for n in range(61)]
    nodes += [LineageNode(4, "curation/1f2e3d4c5b6a", "curation")]
    nodes += [
        LineageNode(5, f"partition/{name}/{c}@0123456789ab", "partition")
        for name in names
        for c in "abcdefghijklmnopqrs"
    ]
    nodes += [
        LineageNode(6, f"source/{name}/{c}@ba9876543210", "source") for name in names for c in "abcdefghijklmnopqrs"
    ]
    return tuple(nodes)
