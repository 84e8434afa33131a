"""May these rows be used so, there, on that day? Pure functions of the terms; whatever is unknown is refused."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.licences import UNSTATED, bars_commercial_use
from data_contracts.terms import ACTIVITIES, NAMED_ZONES, USES, TrainingTerms, countries

Action = Literal["store", "process"]

# Members on 2026-01-01: the European Union, and the European Economic Area, which adds Iceland, Liechtenstein, Norway.
# fmt: off
_EU = frozenset({
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU",
    "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
})
# fmt: on
_ZONES = {"EU": _EU, "EEA": _EU | {"IS", "LI", "NO"}}


@dataclass(frozen=True)
class Place:
    """Where data would rest or be computed on.

    `jurisdictions` are ISO 3166-1 alpha-2 codes of every law that reaches the place (a European data center of an
    American operator: SE, US); all of them must be permitted.
    """

    name: str
    jurisdictions: tuple[str, ...]


@dataclass(frozen=True)
class Purpose:
    """What data is to be used for: an activity, and whether for commerce or research."""

    activity: str
    use: str

    @classmethod
    def parse(cls, text: str) -> Purpose:
        """Read "commercial pre-training"; the order of the two words does not matter.

        Raises:
            CausewayError: the text is not one use and one activity; names the allowed words.
        """
        words = text.split()
        uses = [word for word in words if word in USES]
        activities = [word for word in words if word in ACTIVITIES]
        if len(words) != 2 or len(uses) != 1 or len(activities) != 1:
            raise CausewayError(
                f"{text!r} is no purpose: give one of {', '.join(USES)} and one of {', '.join(ACTIVITIES)}, "
                'for example "research pre-training"'
            )
        return cls(activities[0], uses[0])

    def __str__(self) -> str:
        return f"{self.use} {self.activity}"

    def matches(self, entry: str) -> bool:
        """Say whether all words of an entry of the terms are words of this purpose; an empty entry matches nothing."""
        words = set(entry.split())
        return bool(words) and words <= {self.activity, self.use}


@dataclass(frozen=True)
class Decision:
    """Whether it is allowed, and why: the clauses that permit it, or every clause that refuses it."""

    allowed: bool
    reasons: tuple[str, ...]


def decide(
    terms: TrainingTerms, purpose: Purpose | None, place: Place, on_date: datetime.date, *, action: Action
) -> Decision:
    """Decide one use of a data set at one place on one day.

    A `purpose` of None asks about validity, ground and residency only, as for holding a table. Each reason is a
    sentence that names its clause. An action, country or zone that is not known is refused.
    """
    findings = [*_validity(terms, on_date), *_ground(terms), *_residency(terms, place, action)]
    if purpose is not None:
        findings.extend(_purposes(terms, purpose))
    refusals = tuple(sentence for allowed, sentence in findings if not allowed)
    return Decision(not refusals, refusals or tuple(sentence for _, sentence in findings))


def _validity(terms: TrainingTerms, on_date: datetime.date) -> Iterator[tuple[bool, str]]:
    if terms.valid_from is not None:
        early = on_date < terms.valid_from
        yield not early, f"validFrom: the terms begin on {terms.valid_from}, and the day is {on_date}."
    if terms.valid_until is not None:
        late = on_date > terms.valid_until
        yield not late, f"validUntil: the terms end with {terms.valid_until}, and the day is {on_date}."


def _residency(terms: TrainingTerms, place: Place, action: Action) -> Iterator[tuple[bool, str]]:
    clauses = {"store": ("residency.storage", terms.storage), "process": ("residency.processing", terms.processing)}
    if action not in clauses:
        yield False, f"residency: {action!r} is no known action; ask for 'store' or 'process'."
        return
    clause, zones = clauses[action]
    if not place.jurisdictions:
        yield False, f"{clause}: {place.name} names no jurisdiction, so it cannot be inside any permitted zone."
    listed = ", ".join(zones) or "nothing"
    for country in place.jurisdictions:
        if country not in countries():
            yield False, f"{clause}: {place.name} lies in {country!r}, which is no ISO 3166-1 country code."
        elif any(_inside(terms, zone, country) for zone in zones):
            yield True, f"{clause}: {place.name} lies in {country}, and {listed} is permitted."
        else:
            yield False, f"{clause}: {place.name} lies in {country}, and only {listed} is permitted."
    yield from _never(terms, place)


def _never(terms: TrainingTerms, place: Place) -> Iterator[tuple[bool, str]]:
    for zone in (*terms.never_in, *terms.never_outside):
        if zone not in NAMED_ZONES and zone not in terms.zones and zone not in countries():
            yield (
                False,
                f"residency: {zone!r} is neither a country nor a zone of these terms, so no place is permitted.",
            )
    for country in place.jurisdictions:
        for zone in terms.never_in:
            if _inside(terms, zone, country):
                yield False, f"residency.neverIn: {place.name} lies in {country}, and never in {zone} is said."
        if terms.never_outside and not any(_inside(terms, zone, country) for zone in terms.never_outside):
            listed = ", ".join(terms.never_outside)
            yield False, f"residency.neverOutside: {place.name} lies in {country}, and never outside {listed} is said."


def _inside(terms: TrainingTerms, zone: str, country: str) -> bool:
    return zone in ("anywhere", country) or country in _ZONES.get(zone, ()) or country in terms.zones.get(zone, ())


def _ground(terms: TrainingTerms) -> Iterator[tuple[bool, str]]:
    """Without a licence there must be another ground; one that is on record is said."""
    basis = terms.legal_basis
    if basis:
        yield True, f"legalBasis: {basis.get('basis')}, on record as {basis.get('reference')}."
    elif terms.licence == UNSTATED:
        yield False, "licence: nobody states one (NOASSERTION), and no legalBasis is recorded, so nothing is permitted."


def _licence_words(terms: TrainingTerms) -> str:
    return f"; the licence is {terms.licence}" if terms.licence else ""


def _purposes(terms: TrainingTerms, purpose: Purpose) -> Iterator[tuple[bool, str]]:
    if purpose.activity not in ACTIVITIES or purpose.use not in USES:
        yield False, f"purposes: '{purpose}' is no known purpose."
    for entry in terms.prohibited:
        if purpose.matches(entry):
            yield False, f"purposes.prohibited: '{purpose}' falls under '{entry}'{_licence_words(terms)}."
    matching = next((entry for entry in terms.permitted if purpose.matches(entry)), None)
    if matching is None:
        yield False, f"purposes.permitted: '{purpose}' falls under none of: {', '.join(terms.permitted) or 'nothing'}."
    else:
        yield True, f"purposes.permitted: '{purpose}' falls under '{matching}'."
    if purpose.use == "commercial" and bars_commercial_use(terms.licence):
        yield False, f"licence: {terms.licence} forbids commercial use."


def permitted_place(
    terms: TrainingTerms,
    places: Sequence[Place],
    on_date: datetime.date,
    *,
    purpose: Purpose | None = None,
    actions: Sequence[Action] = ("store",),
) -> Place:
    """Return the first place where all the actions are allowed.

    Raises:
        PolicyRefused: there is none; gives every place's reasons.
    """
    reasons: list[str] = []
    for place in places:
        decisions = [decide(terms, purpose, place, on_date, action=action) for action in actions]
        if decisions and all(decision.allowed for decision in decisions):
            return place
        reasons.extend(reason for decision in decisions if not decision.allowed for reason in decision.reasons)
    why = "\n".join(f"  {reason}" for reason in dict.fromkeys(reasons)) or "  there are no places"
    raise PolicyRefused(
        "no place is permitted to hold this data set; settle what its terms lack, or add a site inside its zones:"
        f"\n{why}"
    )


def may_leave(terms: TrainingTerms) -> bool:
    """Say whether what was derived from the data (updates, tokenizers) may leave the permitted zones."""
    return terms.derived_updates == "may-leave" and not terms.never_outside


def retained(terms: TrainingTerms, ingested: datetime.date, on_date: datetime.date) -> Decision:
    """Decide whether what was ingested on a day may still be used under the terms' retention."""
    if terms.retention is None:
        return Decision(True, ("retention: the terms set no period.",))
    last, then = terms.retention.last_day(ingested), terms.retention.then
    head = f"retention: {terms.retention.period} from the ingest on {ingested} ends with {last}"
    if on_date <= last:
        return Decision(True, (f"{head}, and the day is {on_date}.",))
    return Decision(False, (f"{head}, and the day is {on_date}: {then} the rows.",))


def decide_derived(terms: TrainingTerms, home: Place, sites: Sequence[Place], on_date: datetime.date) -> Decision:
    """Decide whether updates computed from the data may take part in a run with this home and these sites.

    Restricted updates reach home and, merged, every site: each must be permitted to store and to process.
    """
    if may_leave(terms):
        return Decision(True, ("derivedUpdates: may-leave permits updates to leave.",))
    places = (home, *sites)
    decisions = [decide(terms, None, place, on_date, action=act) for place in places for act in ("store", "process")]
    refusals = [reason for decision in decisions if not decision.allowed for reason in decision.reasons]
    if refusals:
        head = "derivedUpdates: restricted keeps updates inside the permitted zones."
        return Decision(False, (head, *dict.fromkeys(refusals)))
    return Decision(True, ("derivedUpdates: restricted, and home and all sites lie inside the permitted zones.",))
