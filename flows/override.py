"""Override: a run that waits until a person has decided whether a refused partition is published all the same."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import datetime as dt
import re
from pathlib import Path
from typing import Any

from prefect import apause_flow_run, flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from pydantic import Field

from data_contracts.catalog.leases import Busy
from data_contracts.errors import CausewayError
from data_contracts.notices import clear_notice, put_notice
from flows.credentials import load_where_deployed
from flows.ingest import _apart
from flows.retries import is_transient
from training.overriding import Case, Overridden, case_of, override_one
from training.workspace import Workspace

WAIT_S = 7 * 24 * 3600
# How long a person who has decided waits until the run goes on.
POLL_S = 5


class Approval(RunInput):
    """What the person who decides fills in; the server checks it before the run goes on."""

    approve: bool = Field(
        title="Publish the refused partition?",
        description="Yes: its accepted rows are published. No: it stays refused, and nothing changes.",
    )
    # The patterns ask for that many characters between blanks: a reason of ten blanks is none.
    name: str = Field(
        title="Your name",
        description="Who decides, at least 2 characters. It is recorded with the version as you write it.",
        min_length=2,
        pattern=r"\S[\s\S]*\S",
    )
    why: str = Field(
        title="Why",
        description="Why this is right, at least 10 characters. It is recorded with the version.",
        min_length=10,
        pattern=r"\S[\s\S]{8,}\S",
    )


async def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: as `is_transient`, and an ingest that holds the partition ends by itself."""
    try:
        await state.aresult(raise_on_failure=True)
    except Busy:
        return True
    except Exception:
        return await is_transient(_task, _run, state)
    return True


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=is_transient, task_run_name="why it was refused")
async def why_refused(home: str, dataset: str, partition: str, ingest_id: str) -> Case:
    """Find the refused version, judge its rows once more, and find examples of what was quarantined."""
    workspace = Workspace.open(Path(home))
    contract = await _apart(workspace.contract, dataset)
    return await _apart(case_of, workspace, contract, partition, ingest_id)


# A week's wait must not be lost to a minute's fault: 2, 4, 8 ... 256 s, about 8 minutes.
@task(
    retries=8,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=_may_pass,
    task_run_name="publish the override",
)
async def publish_override(home: str, case: Case, by: str, why: str) -> Overridden:
    """Publish the refused version as overridden; repeating it adds nothing."""
    workspace = Workspace.open(Path(home))
    contract = await _apart(workspace.contract, case.refused.dataset)
    refused = case.refused
    return await _apart(override_one, workspace, contract, refused.partition, refused.ingest_id, by, why, case)


@flow(name="override", flow_run_name="override {dataset} {partition}")
async def override(home: str, dataset: str, partition: str, ingest_id: str = "") -> State[dict[str, Any]]:
    """Ask a person whether a refused partition is published all the same, and do what they decide.

    The run waits, paused, for up to seven days; Resume shows the form.

    Args:
        home: The --home folder.
        dataset: The data set's id.
        partition: The refused partition's value, as `causeway status` names it.
        ingest_id: The refused version, or how its ingest_id begins; empty for the newest refused one.
    """
    logger = get_run_logger()
    await load_where_deployed("home")
    case = await why_refused(home, dataset, partition, ingest_id)
    subject = f"{dataset} {partition}"
    if case.overridden is not None:
        words = f"nothing to decide: overridden by {case.overridden.approved_by} at {case.overridden.published_at}"
        logger.info("%s: %s", subject, words)
        return Completed(message=words, data={"decision": "none", "by": case.overridden.approved_by})
    if not case.refused.rows_accepted:
        raise CausewayError(f"{subject}: no row was accepted, so there is nothing to publish; mend the source")

    key = "override-" + re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")
    asked = question(case)
    await acreate_markdown_artifact(key=key, markdown=details(case), description=f"{subject}: waits for a decision")
    store = Workspace.open(Path(home)).home
    message = f"{asked} Decide in the Prefect UI, or see: causeway override list"
    await _apart(put_notice, store, "approval", subject, message, dt.datetime.now(dt.UTC))
    try:
        form = Approval.with_initial_data(description=asked)
        answer = await apause_flow_run(wait_for_input=form, timeout=WAIT_S, poll_interval=POLL_S)
        by, why = answer.name.strip(), answer.why.strip()
        if answer.approve:
            done = await publish_override(home, case, by, why)
            at, words = done.version.published_at, f"approved by {by}: {why}"
            after = done.words
        else:
            at = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
            words = f"rejected by {by}: {why}"
            after = f"{subject} stays refused"
    except FlowPauseTimeout:
        raise CausewayError(
            f"{subject}: nobody decided within 7 days, it stays refused; ask again: "
            f"causeway override request {dataset} {partition}"
        ) from None
    finally:
        await _apart(clear_notice, store, "approval", subject)
    decided = f"**{_cell(words)}**\n\nat {at}. {_cell(after)}.\n\n{details(case)}"
    await acreate_markdown_artifact(key=key, markdown=decided, description=f"{subject}: {words}")
    logger.info("%s, ingest %s: %s, at %s; %s", subject, case.refused.ingest_id[:12], words, at, after)
    decision = "approved" if answer.approve else "rejected"
    return Completed(message=words, data={"decision": decision, "by": by, "why": why, "at": at})


def question(case: Case) -> str:
    """Return what is decided, in a few sentences: the form, the notice and `override list` show it."""
    v = case.refused
    why = "; ".join(result.detail for result in case.refusal.failed) or "its batch rules"
    if case.current is None:
        now = "No version of it is in force."
    else:
        c = case.current
        now = f"In force is ingest {c.ingest_id[:12]} of {c.published_at[:19]} (UTC), {c.rows_accepted} rows."
    if not case.replaces:
        then = "are published, but the newer publication stays current"
    else:
        then = "become its current version" if case.current is None else "take its place"
    return (
        f"{v.dataset}, partition {v.partition}, ingest {v.ingest_id[:12]}, was refused: {why}. {now} "
        f"If you approve, its {v.rows_accepted} accepted rows {then}; the {v.rows_quarantined} quarantined rows stay "
        "in quarantine. If you reject, nothing changes."
    )


def details(case: Case) -> str:
    """Return the case as markdown: every batch rule with its count, and quarantine by rule with places, no values."""
    v = case.refused
    lines = [
        f"## {_cell(v.dataset)}, partition {_cell(v.partition)}",
        _cell(question(case)),
        "",
        f"{v.rows_in:,} rows in, {v.rows_accepted:,} accepted, {v.rows_quarantined:,} quarantined; "
        f"{v.bytes_in:,} bytes; contract {_cell(v.contract_version)}; refused at {v.published_at}.",
        "",
        "| rule of the partition | found | verdict |",
        "| --- | --- | --- |",
    ]
    for result in case.refusal.judged:
        verdict = "holds" if result.passed else "refuses" if result.rule.severity == "error" else "warns"
        lines.append(f"| {_cell(result.rule.name)} | {_cell(result.detail)} | {verdict} |")
    if v.reasons:
        lines += ["", "| rule of a record | quarantined | for example |", "| --- | ---: | --- |"]
        for reason, count in sorted(v.reasons.items(), key=lambda item: -item[1]):
            places = "<br>".join(_cell(place) for place in case.refusal.examples.get(reason, ()))
            lines.append(f"| {_cell(reason)} | {count:,} | {places} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Names of files and what people type may hold anything; here it is text, not markdown or HTML."""
    for mark in "\\`*_[]|#~":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
