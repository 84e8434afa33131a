"""Commands on runs: evaluate, export, verify, check, report."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def evaluate(run: str | None = None, *, home: Home = DEFAULT_HOME, max_bytes: int = 200_000, json: Json = False) -> int:
    """Held-out bits per byte of a run's newest model, by data set, where each may be held.

    Examples:
        causeway evaluate
        causeway evaluate demo-1a2b3c4d --json
    """
    from flows.server import use_running
    from training.rounds.run import find_run
    from training.workspace import Workspace

    name = find_run(Workspace.open(home).home, run)
    use_running(home)
    from flows.evaluate import by_dataset
    from flows.evaluate import evaluate as flow

    summaries = asyncio.run(flow(str(home.absolute()), name, max_bytes))
    figures = {which: by_dataset(summaries, which) for which in ("before", "after", "unigram")}
    if json:
        print_json({"run": name, **{f"bits_per_byte_{which}": f for which, f in figures.items()}})
        return 0
    rows = [[d, *(f"{figures[w][d]:.3f}" for w in ("before", "after", "unigram"))] for d in figures["after"]]
    print_table(f"run {name}: held-out bits per byte", ["data set", "before", "after", "unigram"], rows)
    return 0


def export(run: str | None = None, *, home: Home = DEFAULT_HOME, to: Path | None = None, json: Json = False) -> int:
    """Write a run's newest model as a Hugging Face directory that plain transformers loads.

    Examples:
        causeway export --to ./my-model
    """
    from training.release import export_run
    from training.rounds.run import find_run
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    name = find_run(workspace.home, run)
    path, new = export_run(workspace, name, to)
    if json:
        print_json({"run": name, "model": str(path), "new": new})
    else:
        print(f"{path}" + ("" if new else " (was there already)"))
    return 0


def verify(run: str | None = None, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Recompute a run's chain from its contributions to the final model; exit 1 and name what is damaged.

    Examples:
        causeway verify
        causeway verify demo-1a2b3c4d
    """
    from training.rounds.run import find_run
    from training.verify import verify_run
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    found = verify_run(workspace, find_run(workspace.home, run))
    if json:
        print_json(
            {
                "run": found.run,
                "ok": found.ok,
                "rounds": found.rounds,
                "objects": found.objects,
                "problems": list(found.problems),
                "model_sha": found.state_sha,
            }
        )
    else:
        for problem in found.problems:
            print(problem)
        verdict = "verified" if found.ok else f"NOT VERIFIED, {len(found.problems)} problems"
        print(f"run {found.run}: {found.rounds} rounds, {found.objects} objects read: {verdict}")
        if found.ok:
            print(f"model {found.state_sha}")
    return 0 if found.ok else 1


def check(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Re-read every store, table, tokenizer and contribution and count violations of the terms in force.

    Examples:
        causeway check
    """
    from training.checker import check_policy
    from training.workspace import Workspace

    found = check_policy(Workspace.open(home))
    if json:
        violations = [{"object": v.object, "reasons": list(v.reasons)} for v in found.violations]
        print_json({"objects": found.objects, "violations_of_policy": len(violations), "violations": violations})
    else:
        for v in found.violations:
            print(f"{v.object}: {' '.join(v.reasons)}")
        print(f"{found.objects} objects checked: {len(found.violations)} violations of policy")
    return 1 if found.violations else 0


def report(run: str | None = None, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Verify and check a run again and write its HTML report.

    Examples:
        causeway report
    """
    from flows.report.collect import collect
    from flows.report.render import render
    from training.checker import check_policy
    from training.rounds.run import find_run
    from training.verify import verify_run
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    name = find_run(workspace.home, run)
    page = render(collect(workspace, name, check_policy(workspace), verify_run(workspace, name)))
    path = workspace.root / "reports" / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    if json:
        print_json({"run": name, "report": str(path)})
    else:
        print(path)
    return 0
