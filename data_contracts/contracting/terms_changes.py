"""What two versions of trainingTerms permit, compared by asking the policy: every use, every country, not the words."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from data_contracts.canonical import canonical_json
from data_contracts.errors import ContractError
from data_contracts.policy import Place, Purpose, decide, may_leave
from data_contracts.terms import ACTIVITIES, USES, TrainingTerms, countries, terms_from_document

Found = tuple[str, str, bool]
_DAY = datetime.date(2000, 1, 1)
# Fields of which any change asks for a decision, and why.
_DECIDES = {
    "licence": "the licence is another",
    "legalBasis": "the ground of the use is another",
    "heldOut": "another part is held out, which models of the old version may have been trained on",
    "splitGroup": "another part is held out, which models of the old version may have been trained on",
    "text": "another text is trained on",
    "template": "another text is trained on",
    "trainOn": "another text is trained on",
    "lossOn": "other tokens have a loss",
    "pii": "personal data is treated otherwise",
}


def terms_changes(old: Any, new: Any) -> Iterator[Found]:
    """Yield (field, what, whether something that was permitted no longer is, or a decision must be taken again)."""
    if old == new:
        return
    if old is None or new is None:
        yield ("", "the terms are gone: nothing may be done with the data", True) if new is None else ("", "new", False)
        return
    try:
        was, now = terms_from_document(old), terms_from_document(new)
    except ContractError:
        yield "", "one of the two cannot be read, so nothing can be said of what it permits; check both", True
        return
    yield from _uses(was, now)
    yield from _places(was, now)
    yield from _times(was, now)
    if may_leave(was) != may_leave(now):
        what = "updates may leave" if may_leave(now) else "updates may no longer leave the permitted zones"
        yield "derivedUpdates", what, may_leave(was)
    before, after = was.to_document(), now.to_document()
    for name, why in _DECIDES.items():
        if before.get(name) != after.get(name):
            yield name, f"{_short(before.get(name))} became {_short(after.get(name))}: {why}", True
    for name in ("format", "attribution", "revocationContact"):
        if before.get(name) != after.get(name):
            yield name, f"{_short(before.get(name))} became {_short(after.get(name))}", False


def _uses(was: TrainingTerms, now: TrainingTerms) -> Iterator[Found]:
    before, after = ({str(p) for p in _purposes() if _permits(terms, p)} for terms in (was, now))
    if before - after:
        yield "purposes", f"no longer permitted: {_listed(before - after)}", True
    if after - before:
        yield "purposes", f"newly permitted: {_listed(after - before)}", False


def _purposes() -> list[Purpose]:
    return [Purpose(activity, use) for use in USES for activity in ACTIVITIES]


def _permits(terms: TrainingTerms, purpose: Purpose) -> bool:
    anywhere = replace(terms, storage=("anywhere",), never_in=(), never_outside=(), valid_from=None, valid_until=None)
    return decide(anywhere, purpose, Place("there", ("SE",)), _DAY, action="store").allowed


def _places(was: TrainingTerms, now: TrainingTerms) -> Iterator[Found]:
    for clause, action in (("residency.storage", "store"), ("residency.processing", "process")):
        before, after = (
            {
                country
                for country in countries()
                if decide(
                    replace(terms, licence=None, valid_from=None, valid_until=None),
                    None,
                    Place("there", (country,)),
                    _DAY,
                    action=action,  # type: ignore[arg-type]
                ).allowed
            }
            for terms in (was, now)
        )
        if before - after:
            yield clause, f"no longer permitted in {_listed(before - after)}", True
        if after - before:
            yield clause, f"newly permitted in {_listed(after - before)}", False


def _times(was: TrainingTerms, now: TrainingTerms) -> Iterator[Found]:
    first, last = datetime.date.min, datetime.date.max
    for name, old, new, earlier_is_less in (
        ("validFrom", was.valid_from or first, now.valid_from or first, False),
        ("validUntil", was.valid_until or last, now.valid_until or last, True),
    ):
        if old != new:
            yield name, f"{_day(old)} became {_day(new)}", (new < old) == earlier_is_less
    if was.retention != now.retention:
        periods = [terms.retention.last_day(_DAY) if terms.retention else last for terms in (was, now)]
        words = [f"{r.period}, then {r.then}" if r else "no period" for r in (was.retention, now.retention)]
        same_end = periods[0] == periods[1]
        yield "retention", f"{words[0]} became {words[1]}", periods[1] < periods[0] or same_end


def _day(day: datetime.date) -> str:
    return "no day" if day in (datetime.date.min, datetime.date.max) else str(day)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 12} more" if len(ordered) > 12 else ""
    return ", ".join(ordered[:12]) + more


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = canonical_json(value).decode() if isinstance(value, Mapping | list) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
