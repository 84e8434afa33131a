"""Export the newest model of a run as a Hugging Face directory with its papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.canonical import sha256
from data_contracts.catalog.lineage import Node
from data_contracts.errors import RoundError
from training.evaluate_site import summaries_of
from training.export import CardDataset, CardEvaluation, ModelCard, export_model
from training.model import ModelSpec
from training.rounds.plan import read_plan
from training.rounds.run import final_parameters
from training.rounds.segments import named_versions
from training.shards.manifest import read_version
from training.shards.tokenizers import load
from training.steps import model_node
from training.workspace import Workspace


def export_path(workspace: Workspace, run: str, number: int, state_sha: str) -> Path:
    """Where a run's model after a round is exported: its name holds the state's hash, so another model is another."""
    return workspace.root / "exports" / f"{run}-{number:06d}-{state_sha[:8]}"


def export_run(workspace: Workspace, run: str, directory: Path | None = None) -> tuple[Path, bool]:
    """Write the Hugging Face directory of a run's newest model; return it and whether it is new.

    Raises:
        RoundError: no round is committed. CausewayError: something else lies at `directory`.
    """
    plan = read_plan(workspace.home, run)
    _, parameters, state = final_parameters(workspace.home, plan)
    if state.round == 0:
        raise RoundError(f"run {run}: no round is committed yet; run: causeway train")
    target = directory or export_path(workspace, run, state.round, state.state_sha)
    if directory is None and (target / "config.json").exists():
        _record(workspace, run, state.round, plan.tokenizer, target)
        return target, False
    _, tokenizer_json = load(workspace, plan.tokenizer)
    datasets, evaluations = [], []
    for sha, dataset in named_versions(plan, state.openings).items():
        version = read_version(workspace.home, dataset, sha)
        terms: dict[str, Any] = version.terms
        licence = terms["licence"].get("expression") or "per record: " + ", ".join(terms["licence"]["allowed"])
        regions = {s.region for s in plan.sites}
        train = [s for s in version.shards if s.split == "train" and s.region in regions]
        datasets.append(
            CardDataset(
                name=version.dataset,
                version_sha=version.sha,
                licence=licence,
                attribution=terms.get("attribution"),
                records=sum(s.records for s in train),
                tokens=sum(s.tokens for s in train),
            )
        )
    for summary in summaries_of(workspace.home, run, state.round):
        figures = summary["figures"]
        evaluations.append(
            CardEvaluation(
                dataset=f"{summary['dataset']} at {summary['site']}",
                documents=figures["after"]["documents"],
                bits_per_byte=figures["after"]["bits_per_byte"],
                standard_error=figures["after"]["standard_error"],
                baseline_bits_per_byte=figures["unigram"]["bits_per_byte"],
            )
        )
    card = ModelCard(
        name=plan.name,
        purpose=plan.purpose,
        run_id=run,
        round_number=state.round,
        model_sha=state.state_sha,
        datasets=tuple(datasets),
        evaluations=tuple(evaluations),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    export_model(target, ModelSpec.model_validate(plan.model), parameters, tokenizer_json, card)
    _record(workspace, run, state.round, plan.tokenizer, target)
    return target, True


def _record(workspace: Workspace, run: str, number: int, tokenizer: str, target: Path) -> None:
    """Put the export's files into the lineage by their hashes; files that have changed since are refused there."""
    facts = {f.name.replace(".", "_"): sha256(f.read_bytes()) for f in sorted(target.iterdir()) if f.is_file()}
    inputs = [Node(model_node(run, number), {}), Node(f"tokenizer/{tokenizer[:12]}", {})]
    output = Node(f"export/{run}/{number}", facts)
    workspace.lineage().emit_once("export", f"{run}/{number}/{target}", inputs, [output])
