"""Change a run under way: its sites, its mixture, its data."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.commands import DEFAULT_HOME, Home


def amend(
    run: str,
    kind: Literal["remove-site", "add-site", "change-weights", "add-version", "withdraw-version"],
    subject: str = "",
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    version: str | None = None,
    reason: str,
    home: Home = DEFAULT_HOME,
) -> int:
    """Change a run's plan by a signed amendment, in force from the next commit; it goes on record with its reason.

    Examples:
        causeway amend demo-1a2b3c4d remove-site west --reason "power cut until Friday"
        causeway amend demo-1a2b3c4d change-weights --set legal/statutes=2 --set health/notes=1 --reason "less law"
        causeway amend demo-1a2b3c4d add-version legal/statutes --reason "the statutes of May"
        causeway amend demo-1a2b3c4d withdraw-version health/notes --version 3f2a --reason "the clinic withdrew"

    Parameters
    ----------
    kind:
        remove-site: go on without it; add-site: let a site of the plan join, or come back;
        change-weights: mix otherwise; add-version: also train on a data set as it is now; withdraw-version: no longer
        train on one.
    subject:
        The site, or the data set.
    set_:
        DATASET=WEIGHT of change-weights, or where the version added needs a weight; 0 lets a data set rest. Repeatable.
    version:
        The data set version, by the start of its sha: add this one and not the data set as it is now, or, where the
        run has several, withdraw this one.
    reason:
        Why; it stands in the chain for good.
    """
    from data_contracts.errors import CausewayError
    from training import amending
    from training.workspace import Workspace

    weights = _weights(set_ or [])
    if kind == "change-weights" and subject:
        raise CausewayError(f"change-weights {subject}: nothing after it; --set takes data sets")
    if kind != "change-weights" and not subject:
        raise CausewayError(f"{kind}: name the {'site' if kind.endswith('site') else 'data set'} after it")
    workspace = Workspace.open(home)
    if kind in ("remove-site", "add-site"):
        made = amending.change_site(workspace, run, kind, subject, reason)
    elif kind == "change-weights":
        made = amending.change_weights(workspace, run, weights, reason)
    elif kind == "add-version":
        made = amending.add_version(workspace, run, subject, version, weights, reason)
    else:
        made = amending.withdraw_version(workspace, run, subject, version, reason)
    print(f"run {run}: amendment {made.sequence} ({made.words}) is signed; the next commit brings it into force")
    return 0


def _weights(given: list[str]) -> dict[str, float]:
    from data_contracts.errors import CausewayError

    found = {}
    for one in given:
        dataset, _, weight = one.rpartition("=")
        try:
            found[dataset] = float(weight)
        except ValueError:
            dataset = ""
        if not dataset or not 0 <= found[dataset] < math.inf:
            raise CausewayError(f"--set {one}: write DATASET=WEIGHT with a weight of 0 or more")
    return found
