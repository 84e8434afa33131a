"""Gather the facts of a run's report from the catalog and the chain: nothing is remembered, everything is read."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version as package_version
from typing import Any

import pyarrow as pa

from data_contracts.catalog.lineage_index import rebuild_index, step_counts, walk_back
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.curation import curation_id, curation_rows
from data_contracts.errors import ObjectMissing
from data_contracts.policy import Purpose
from data_contracts.rules import row_rules
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
from flows.report.rounds import changes, read_amendments, read_kept, round_sites
from training.checker import Checked
from training.evaluate_site import summaries_of
from training.model import ModelSpec, count_parameters
from training.rounds.contribution import Contribution
from training.rounds.plan import Plan, read_plan
from training.rounds.run import replay, start_state
from training.rounds.segments import named_versions
from training.shards.manifest import DatasetVersion, read_version
from training.shards.placement import may_hold
from training.shards.rows import curation_key
from training.steps import model_node
from training.verify import Verification
from training.workspace import Workspace, today

_KINDS = {"compute": "compute", "wait": "wait", "transfer": "transfer", "encode": "compute"}


def collect(workspace: Workspace, run: str, policy: Checked | None, chain: Verification | None) -> RunFacts:
    """Read all that the report of a run shows.

    Raises:
        RoundError: there is no such run.
    """
    plan = read_plan(workspace.home, run)
    kept = read_kept(workspace, plan)
    state, committed = start_state(workspace.home, plan), []
    rows: list[RoundSite] = []
    changed = [Change(1, f"{site} joins later") for site in plan.later]
    for after, document, inputs in replay(workspace.home, plan, state):
        amendments = read_amendments(workspace, plan, after) if document["amendments"] else {}
        changed += changes(plan, state, after, document, amendments)
        figures = {at: facts.get("figures", {}) for at, facts in kept.items()}
        rows += round_sites(plan, document, inputs, figures)
        state = after
        committed.append((after.round, inputs))
    named = named_versions(plan, state.openings)
    versions = [read_version(workspace.home, dataset, sha) for sha, dataset in named.items()]
    spans, began, ended = _spans(kept)
    steps, walk = _lineage(workspace, plan, state.round)
    return RunFacts(
        run=run,
        model=state.state_sha,
        started_at=_iso(began),
        finished_at=_iso(ended),
        parameters=count_parameters(ModelSpec.model_validate(plan.model)),
        rounds=state.round,
        shards=len({ref.arrow_sha256 for v in versions for ref in v.shards}),
        data_sets=tuple(_dataset(workspace, workspace.contract(name)) for name in dict.fromkeys(named.values())),
        sites=tuple(_sites(workspace, plan, committed)),
        placements=tuple(_placements(workspace, plan, versions)),
        losses=tuple(Loss(c.header.site, n, c.header.loss) for n, inputs in committed for c in inputs),
        spans=tuple(spans),
        evaluations=tuple(_evaluations(workspace, plan, state.round)),
        transfers=tuple(_transfers(workspace, plan, committed)),
        lineage_steps=steps,
        lineage_walk=walk,
        policy=None if policy is None else _policy(policy),
        chain=None if chain is None else ChainCheck(chain.ok, chain.rounds, chain.head, "\n".join(chain.problems)),
        commands=(
            Command(f"causeway verify {run}", "recompute the chain from its contributions to the model"),
            Command(f"causeway lineage show {run}", "walk from the model back to source files"),
            Command("causeway check", "count violations of policy in every store"),
            Command("causeway demo", "run again: what is there is not made again"),
        ),
        round_sites=tuple(rows),
        changes=tuple(changed),
        environment={
            "python": platform.python_version(),
            "torch": package_version("torch"),
            "prefect": package_version("prefect"),
            "machine": platform.machine(),
        },
    )


def _policy(found: Checked) -> PolicyCheck:
    findings = tuple(f"{v.object}: {' '.join(v.reasons)}" for v in found.violations)
    return PolicyCheck(len(found.violations), found.objects, findings)


def _dataset(workspace: Workspace, contract: Contract) -> DataSet:
    tables = workspace.tables(contract)
    current = tables.current()
    rules = {rule.name: rule.description for rule in row_rules(contract)}
    reasons: dict[str, int] = {}
    for v in current.values():
        for name, count in v.reasons.items():
            reasons[name] = reasons.get(name, 0) + count
    examples = _examples(tables, reasons)
    refusals = [
        Refusal(name, rules.get(name, name), count, "quarantine", examples.get(name, ()))
        for name, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    rows = curation_rows(contract, tables, workspace.keys.secret(f"dataset-{contract.slug}"))
    try:
        summary: dict[str, Any] = tables.store.get_json(curation_key(contract, curation_id(contract, rows)))
    except ObjectMissing:
        summary = {"removed": 0, "redacted": 0, "reasons": {}}
    refusals += [Refusal(name, "left out by curation", count, "curation") for name, count in summary["reasons"].items()]
    licences: dict[str, int] = {}
    if contract.terms.licence_column:
        for v in (v for v in current.values() if v.rows_accepted):
            table = tables.read_accepted(v, [contract.terms.licence_column])
            for value in table.column(0).to_pylist():
                licences[str(value)] = licences.get(str(value), 0) + 1
    elif contract.terms.licence:
        licences[contract.terms.licence] = sum(v.rows_accepted for v in current.values())
    return DataSet(
        name=contract.id,
        contract_version=contract.version,
        rows_in=sum(v.rows_in for v in current.values()),
        bytes_in=sum(v.bytes_in for v in current.values()),
        partitions=len(current),
        partitions_refused=len({v.partition for v in tables.versions() if v.verdict == "refused"} - current.keys()),
        rows_accepted=sum(v.rows_accepted for v in current.values()),
        rows_quarantined=sum(v.rows_quarantined for v in current.values()),
        rows_removed=summary["removed"],
        rows_redacted=summary["redacted"],
        licences=dict(sorted(licences.items(), key=lambda item: -item[1])),
        refusals=tuple(refusals),
        tables_at=workspace.table_place(contract).name,
    )


def _examples(tables: Tables, reasons: dict[str, int]) -> dict[str, tuple[Example, ...]]:
    """Return up to three examples a reason: keyed ids and file names, never values."""
    found: dict[str, list[Example]] = {name: [] for name in reasons}
    for version in tables.current().values():
        if not version.rows_quarantined or all(len(e) >= 3 for e in found.values()):
            continue
        rows: pa.Table = tables.read_quarantine(version).select(["record_id", "reasons", "source_file", "source_line"])
        for row in rows.to_pylist():
            for name in row["reasons"]:
                if len(found.setdefault(name, [])) < 3:
                    found[name].append(Example(row["record_id"], row["source_file"] or "", row["source_line"]))
    return {name: tuple(entries) for name, entries in found.items()}


def _sites(workspace: Workspace, plan: Plan, committed: list[tuple[int, list[Contribution]]]) -> Iterable[Site]:
    for listed in plan.sites:
        site = workspace.sites.site(listed.name)
        tokens = sum(c.header.tokens for _, inputs in committed for c in inputs if c.header.site == site.name)
        yield Site(site.name, site.region, site.jurisdictions, site.accelerator, tokens)


def _placements(workspace: Workspace, plan: Plan, versions: list[DatasetVersion]) -> Iterable[Placement]:
    terms, purpose = workspace.terms(), Purpose.parse(plan.purpose)
    for dataset in dict.fromkeys(v.dataset for v in versions):
        shards = {(s.region, s.arrow_sha256): s for v in versions if v.dataset == dataset for s in v.shards}
        for listed in plan.sites:
            site = workspace.sites.site(listed.name)
            decision = may_hold(terms.of(dataset), purpose, site, today())
            mine = [s for s in shards.values() if s.region == site.region]
            tokens = sum(s.tokens for s in mine)
            yield Placement(dataset, site.name, decision.allowed, decision.reasons, tokens, len(mine))


def _spans(kept: Mapping[tuple[int, str], Mapping[str, Any]]) -> tuple[list[Span], float, float]:
    """Return the sites' spans, and the wall times at which the first began and the last ended."""
    raw = [
        (site, number, kind, start, end)
        for (number, site), facts in kept.items()
        for kind, start, end in facts["spans"]
    ]
    if not raw:
        now = dt.datetime.now(dt.UTC).timestamp()
        return [], now, now
    began, ended = min(r[3] for r in raw), max(r[4] for r in raw)
    spans = [
        Span(site, _KINDS[kind], round(start - began, 3), round(end - began, 3), number)  # type: ignore[arg-type]
        for site, number, kind, start, end in raw
    ]
    return spans, began, ended


def _evaluations(workspace: Workspace, plan: Plan, number: int) -> Iterable[Evaluation]:
    summaries = summaries_of(workspace.home, plan.run, number)
    for s in summaries:
        f = s["figures"]
        alone = sum(other["dataset"] == s["dataset"] for other in summaries) == 1
        yield Evaluation(
            data_set=s["dataset"] if alone else f"{s['dataset']} at {s['site']}",
            before=f["before"]["bits_per_byte"],
            after=f["after"]["bits_per_byte"],
            unigram=f["unigram"]["bits_per_byte"],
            documents=f["after"]["documents"],
            text_bytes=f["after"]["bytes"],
            smallest_difference=s["after_against_unigram"].get("minimum_detectable"),
        )


def _transfers(workspace: Workspace, plan: Plan, committed: list[tuple[int, list[Contribution]]]) -> Iterable[Transfer]:
    """Every byte that left a site: what it published, and what it wrote to the home store."""
    home = workspace.home
    for listed in plan.sites:
        mine = [c for _, inputs in committed for c in inputs if c.header.site == listed.name]
        keys = [f"runs/{plan.run}/inputs/{c.sha}.json" for c in mine]
        keys += [f"runs/{plan.run}/inputs/{c.header.payload}.safetensors" for c in mine]
        sizes = dict(home.list(f"runs/{plan.run}/inputs"))
        if mine:
            yield Transfer(listed.name, "home", "contribution", len(mine), sum(sizes[k] for k in keys))
        commits = {k: n for k, n in home.list(f"runs/{plan.run}/commits") if _committer(workspace, k) == listed.name}
        if commits:
            yield Transfer(listed.name, "home", "commit", len(commits), sum(commits.values()))
            rounds = {int(k.rsplit("/", 1)[1][:6]) for k in commits}
            due = [n for k, n in home.list(f"runs/{plan.run}/snapshots") if int(k.split("/")[3]) in rounds]
            if due:
                yield Transfer(listed.name, "home", "snapshot", len(due), sum(due))
        figures = [n for k, n in home.list(f"runs/{plan.run}/evaluations") if k.endswith(f".{listed.name}.json")]
        if figures:
            yield Transfer(listed.name, "home", "evaluation figures", len(figures), sum(figures))


def _committer(workspace: Workspace, key: str) -> str:
    return str(workspace.home.get_json(key)["committer"])


def _lineage(workspace: Workspace, plan: Plan, number: int) -> tuple[tuple[LineageStep, ...], tuple[LineageNode, ...]]:
    index = workspace.root / "lineage.sqlite"
    rebuild_index([store for _, store in workspace.table_stores()], index)
    counts: dict[str, list[int]] = {}
    for job, state, runs, outputs in step_counts(index):
        entry = counts.setdefault(job, [0, 0, 0])
        if state == "COMPLETE":
            entry[0], entry[1] = entry[0] + runs, entry[1] + outputs
        elif state in ("FAIL", "ABORT"):
            entry[2] += runs
    steps = tuple(LineageStep(job, *entry) for job, entry in sorted(counts.items()))
    walk = tuple(LineageNode(a.depth, a.node, a.kind) for a in walk_back(index, model_node(plan.run, number)))
    return steps, walk


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="seconds")
