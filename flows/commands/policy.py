"""`causeway policy explain`: may this data set be used so, there, on that day, and by which clause?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

if TYPE_CHECKING:
    from data_contracts.contract import Contract
    from data_contracts.contracting.explaining import Explanation
    from data_contracts.policy import Decision


def explain(
    *datasets: str,
    purpose: str,
    site: str = "",
    date: str = "",
    all: bool = False,
    sites: Path | None = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Explain whether a data set may be used for a purpose at a site, with the clause that says so.

    A data set is named by its contract's file, by its id in this folder, or by the id of a shipped contract. With
    --all the answer is a table of data sets by sites: those that are named, else those of this folder, else the
    shipped ones. Without --all it exits 1 when a site is refused.

    Examples:
        causeway policy explain healthcare/medquad --purpose "commercial pre-training" --site north
        causeway policy explain my-contract.yaml --purpose "research evaluation" --date 2027-01-01
        causeway policy explain --all --purpose "commercial pre-training"

    Parameters
    ----------
    purpose:
        commercial or research, and pre-training, fine-tuning, evaluation or retrieval.
    site:
        One site of sites.toml; otherwise every site.
    date:
        The day that is asked about (2027-01-01); otherwise today, in UTC.
    all:
        The table of data sets by sites.
    sites:
        Another sites.toml than the folder's, or the shipped one.
    """
    from data_contracts.contracting.explaining import explain as ask
    from data_contracts.errors import CausewayError
    from data_contracts.policy import Purpose
    from training.workspace import Workspace, today

    asked = Purpose.parse(purpose)
    try:
        day = dt.date.fromisoformat(date) if date else today()
    except ValueError as error:
        raise CausewayError(f"{date!r} is no day: {error}; write it as 2027-01-01") from error
    workspace = Workspace.open(home, sites)
    known = workspace.sites
    places = [known.site(site).place] if site else [one.place for one in known.sites]
    contracts = _named(workspace, datasets, all)
    found = [(one, ask(one.terms, asked, known.home.place, places, day)) for one in contracts]
    if json:
        print_json([_document(one, str(asked), day, answers) for one, answers in found])
    elif all:
        columns = ["data set", "licence", *(place.name for place in places)]
        rows = [
            [f"{one.id} {one.version}", _licence(one), *(answer.word for answer in answers)] for one, answers in found
        ]
        print_table(f"{asked} on {day}", columns, rows)
    else:
        for one, answers in found:
            for answer in answers:
                _print(one, str(asked), day, answer)
    refused = [answer for _, answers in found for answer in answers if not answer.allowed]
    return 0 if all else int(bool(refused))


def _named(workspace: Any, names: tuple[str, ...], everything: bool) -> list[Contract]:
    import data_contracts
    from data_contracts.contract import load_contract
    from data_contracts.errors import DataRefused
    from data_contracts.odcs import nearest

    shipped = {path.stem: path for path in sorted((Path(data_contracts.__file__).parent / "library").rglob("*.yaml"))}
    here = workspace.datasets()
    if not names:
        if not everything:
            raise DataRefused("no data set was named; name a contract, a data set, or give --all")
        return [workspace.contract(name) for name in here] or [load_contract(path) for path in shipped.values()]
    contracts = []
    for name in names:
        if Path(name).is_file():
            contracts.append(load_contract(Path(name)))
        elif name in here:
            contracts.append(workspace.contract(name))
        elif name.replace("/", "-") in shipped:
            contracts.append(load_contract(shipped[name.replace("/", "-")]))
        else:
            known = [*here, *shipped]
            raise DataRefused(
                f"{name}: neither a contract's file nor a data set of {workspace.root}, nor a shipped contract"
                f"{nearest(name, known)}; name one of them"
            )
    return contracts


def _licence(contract: Contract) -> str:
    terms = contract.terms
    return terms.licence or f"by row ({terms.licence_column})"


def _print(contract: Contract, purpose: str, day: dt.date, answer: Explanation) -> None:
    place = answer.place
    countries = ", ".join(place.jurisdictions)
    word = "allowed" if answer.allowed else "refused"
    print(f"{contract.id} {contract.version}, {purpose} at {place.name} ({countries}) on {day}: {word}")
    for what, decision in (("rest there", answer.store), ("be used there", answer.process)):
        print(f"  {'may' if decision.allowed else 'may not'} {what}:")
        for reason in decision.reasons:
            print(f"    {reason}")
    print(f"  its updates {'may' if answer.updates.allowed else 'may not'} take part in a run of home and this site:")
    for reason in answer.updates.reasons:
        print(f"    {reason}")


def _document(contract: Contract, purpose: str, day: dt.date, answers: list[Explanation]) -> dict[str, Any]:
    return {
        "dataset": contract.id,
        "version": contract.version,
        "licence": _licence(contract),
        "purpose": purpose,
        "date": str(day),
        "sites": [
            {
                "site": answer.place.name,
                "jurisdictions": list(answer.place.jurisdictions),
                "allowed": answer.allowed,
                "store": _decision(answer.store),
                "process": _decision(answer.process),
                "updates": _decision(answer.updates),
            }
            for answer in answers
        ],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {"allowed": decision.allowed, "reasons": list(decision.reasons)}
