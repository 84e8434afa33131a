"""What changed between two versions of a contract, and whom it breaks.

A change breaks *producers* when data that was accepted may be refused now, *consumers* when accepted data may hold what
it could not before or lacks what it had, and *terms* when something that was permitted no longer is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_contracts.canonical import canonical_json
from data_contracts.contracting.document import Document
from data_contracts.contracting.terms_changes import terms_changes
from data_contracts.periods import read_frequency, read_latency

Side = Literal["producers", "consumers", "terms"]
PRODUCERS: tuple[Side, ...] = ("producers",)
CONSUMERS: tuple[Side, ...] = ("consumers",)
BOTH: tuple[Side, ...] = ("producers", "consumers")
# A larger value of these asks more of the data, or less.
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
# What of a property is compared by its meaning.
_COMPARED = {
    *("name", "logicalType", "required", "unique", "primaryKey", "partitioned", "primaryKeyPosition"),
    *("partitionKeyPosition", "physicalName", "classification", "logicalTypeOptions", "enum", "quality", "properties"),
}
_SEVERITIES = {"info": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Change:
    """One change: where, what in words, and whom it breaks (nobody: empty)."""

    path: str
    what: str
    breaks: tuple[Side, ...] = ()


def changes(old: Document, new: Document) -> list[Change]:
    """Return every change from `old` to `new` in the order of the document; the same document has none."""
    found = [*_fundamentals(old.plain, new.plain), *_objects(old, new), *_levels(old.plain, new.plain)]
    found += _custom(old, new)
    known = ("id", "version", "schema", "slaProperties", "customProperties")
    for name in sorted({*old.plain, *new.plain} - set(known)):
        if old.plain.get(name) != new.plain.get(name):
            found.append(Change(name, _moved(old.plain.get(name), new.plain.get(name))))
    return found


def next_version(found: Sequence[Change], version: str) -> str:
    """Return the version that the changes ask for: major when something breaks, else minor, else as it is."""
    numbers = [int(part) if part.isdigit() else 0 for part in version.lstrip("v").split(".")[:3]]
    major, minor, _ = [*numbers, 0, 0, 0][:3]
    if any(change.breaks for change in found):
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0" if any(change.path != "version" for change in found) else version


def _fundamentals(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    if old["id"] != new["id"]:
        yield Change("id", f"{_moved(old['id'], new['id'])}: it is another data set", BOTH)
    if old["version"] != new["version"]:
        yield Change("version", _moved(old["version"], new["version"]))


def _objects(old: Document, new: Document) -> Iterator[Change]:
    before = {str(table.get("name")): table for table in old.objects}
    after = {str(table.get("name")): table for table in new.objects}
    if len(before) == len(after) == 1 and before.keys() != after.keys():
        (was,), (now,) = before, after
        yield Change("schema", f"the object {was} is called {now}")
        before = {now: before[was]}
    for name in [*before, *(name for name in after if name not in before)]:
        path = f"schema[{name}]"
        if name not in after:
            yield Change(path, "the object is gone", CONSUMERS)
        elif name not in before:
            yield Change(path, "a new object")
        else:
            yield from _properties(before[name], after[name], path)
            yield from _quality(before[name], after[name], path)
            yield from _rest(before[name], after[name], path, {"name", "properties", "quality"})


def _properties(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    before = {column["name"]: column for column in old.get("properties") or []}
    after = {column["name"]: column for column in new.get("properties") or []}
    for name, column in before.items():
        where = f"{path}.properties[{name}]"
        if name not in after:
            yield Change(where, "the property is gone", CONSUMERS)
        else:
            yield from _property(column, after[name], where)
    for name, column in after.items():
        if name not in before:
            needed = bool(column.get("required") or column.get("primaryKey"))
            what = "a new property that is required" if needed else "a new property"
            yield Change(f"{path}.properties[{name}]", what, PRODUCERS if needed else ())


def _property(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    was, now = old.get("logicalType", "string"), new.get("logicalType", "string")
    if was != now:
        yield Change(f"{path}.logicalType", _moved(was, now), BOTH)
    for flag in ("required", "unique", "primaryKey"):
        if bool(old.get(flag)) != bool(new.get(flag)):
            sides = BOTH if flag == "primaryKey" else PRODUCERS if new.get(flag) else CONSUMERS
            yield Change(f"{path}.{flag}", _moved(bool(old.get(flag)), bool(new.get(flag))), sides)
    for flag in ("partitioned", "primaryKeyPosition", "partitionKeyPosition"):
        if old.get(flag) != new.get(flag):
            yield Change(f"{path}.{flag}", _moved(old.get(flag), new.get(flag)), BOTH)
    if old.get("physicalName", old["name"]) != new.get("physicalName", new["name"]):
        yield Change(f"{path}.physicalName", _moved(old.get("physicalName"), new.get("physicalName")), PRODUCERS)
    if old.get("classification") != new.get("classification"):
        moved = _moved(old.get("classification"), new.get("classification"))
        yield Change(f"{path}.classification", f"{moved}: what is done with personal data goes by it", ("terms",))
    yield from _options(old.get("logicalTypeOptions") or {}, new.get("logicalTypeOptions") or {}, path)
    yield from _values(old.get("enum") or [], new.get("enum") or [], f"{path}.enum")
    yield from _quality(old, new, path)
    yield from _properties(old, new, path)
    yield from _rest(old, new, path, _COMPARED)


def _options(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        where = f"{path}.logicalTypeOptions.{name}"
        if was is None or now is None:
            yield Change(where, _moved(was, now), PRODUCERS if was is None else CONSUMERS)
        elif name in _LOWER or name in _UPPER:
            stricter = _less(was, now) if name in _LOWER else _less(now, was)
            yield Change(where, _moved(was, now), BOTH if stricter is None else PRODUCERS if stricter else CONSUMERS)
        else:
            yield Change(where, _moved(was, now), BOTH)


def _less(one: Any, other: Any) -> bool | None:
    try:
        return bool(one < other)
    except TypeError:
        return None


def _values(old: Sequence[Any], new: Sequence[Any], path: str) -> Iterator[Change]:
    was = [entry.get("value") if isinstance(entry, dict) else entry for entry in old]
    now = [entry.get("value") if isinstance(entry, dict) else entry for entry in new]
    if was and not now:
        yield Change(path, "any value is allowed", CONSUMERS)
    elif now and not was:
        yield Change(path, f"only {_short(now)} are allowed", PRODUCERS)
    else:
        gone, more = [v for v in was if v not in now], [v for v in now if v not in was]
        if gone:
            yield Change(path, f"no longer allowed: {_short(gone)}", PRODUCERS)
        if more:
            yield Change(path, f"also allowed: {_short(more)}", CONSUMERS)


def _quality(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    before, after = _rules(old), _rules(new)
    for name in [*before, *(name for name in after if name not in before)]:
        where = f"{path}.quality[{name}]"
        if name not in after:
            yield Change(where, "the rule is gone", CONSUMERS if _runs(before[name]) else ())
        elif name not in before:
            yield Change(where, "a new rule", PRODUCERS if _refuses(after[name]) else ())
        elif before[name] != after[name]:
            was, now = (_SEVERITIES.get(str(rule.get("severity", "error")), 2) for rule in (before[name], after[name]))
            same = {**before[name], "severity": None} == {**after[name], "severity": None}
            sides = (PRODUCERS if now > was else CONSUMERS) if same else BOTH
            yield Change(where, _moved(before[name], after[name]), sides if _runs(after[name]) else ())


def _rules(holder: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rules of an object or property by what they are about, since most have no name."""
    found: dict[str, Mapping[str, Any]] = {}
    for rule in holder.get("quality") or []:
        implementation = rule.get("implementation")
        inner = implementation if isinstance(implementation, dict) else {}
        kinds = (rule.get("id"), rule.get("name"), rule.get("metric"), rule.get("rule"), inner.get("metric"))
        kind = next((kind for kind in (*kinds, inner.get("expectation"), inner.get("type")) if kind), None)
        name = str(kind or rule.get("type", "rule"))
        number = 1 + sum(known.split("#")[0] == name for known in found)
        found[name if number == 1 else f"{name}#{number}"] = rule
    return found


def _runs(rule: Mapping[str, Any]) -> bool:
    return rule.get("type") != "text"


def _refuses(rule: Mapping[str, Any]) -> bool:
    return _runs(rule) and _SEVERITIES.get(str(rule.get("severity", "error")), 2) == 2


def _levels(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    before = {entry["property"]: entry for entry in old.get("slaProperties") or []}
    after = {entry["property"]: entry for entry in new.get("slaProperties") or []}
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        path, sides = f"slaProperties[{name}]", tuple[Side, ...]()
        if now is None:
            sides = CONSUMERS
        elif was is None:
            sides = PRODUCERS
        elif (was.get("value"), was.get("unit")) != (now.get("value"), now.get("unit")):
            longer = _less(_seconds(name, was), _seconds(name, now))
            sides = BOTH if longer is None else CONSUMERS if longer else PRODUCERS
        yield Change(path, _moved(_level(was), _level(now)), sides)


def _seconds(name: str, entry: Mapping[str, Any]) -> float | None:
    """The length of a frequency or latency, months of 30.44 days; None for what is no length."""
    if name not in ("frequency", "latency"):
        return None
    try:
        value, unit = entry["value"], entry.get("unit")
        period = read_frequency(value, unit).period if name == "frequency" else read_latency(value, unit)
    except (ValueError, KeyError):
        return None
    return None if period is None else period.months * 30.44 * 86_400 + period.seconds


def _level(entry: Mapping[str, Any] | None) -> str | None:
    return None if entry is None else " ".join(str(entry[k]) for k in ("value", "unit") if entry.get(k) is not None)


def _custom(old: Document, new: Document) -> Iterator[Change]:
    was, now = old.ours, new.ours
    for path, what, breaking in terms_changes(was.get("trainingTerms"), now.get("trainingTerms")):
        yield Change(f"trainingTerms.{path}" if path else "trainingTerms", what, ("terms",) if breaking else ())
    for name, sides in (("reader", PRODUCERS), ("sequence", BOTH)):
        if was.get(name) != now.get(name):
            yield Change(name, _moved(was.get(name), now.get(name)), sides)
    others = [{_name(e): e for e in d.plain.get("customProperties") or []} for d in (old, new)]
    for name in sorted({*others[0], *others[1]}):
        if name not in now and name not in was and others[0].get(name) != others[1].get(name):
            yield Change(f"customProperties[{name}]", _moved(others[0].get(name), others[1].get(name)))


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("property"))


def _rest(old: Mapping[str, Any], new: Mapping[str, Any], path: str, known: set[str]) -> Iterator[Change]:
    for name in sorted({*old, *new} - known):
        if old.get(name) != new.get(name):
            yield Change(f"{path}.{name}", _moved(old.get(name), new.get(name)))


def _moved(old: Any, new: Any) -> str:
    if old is None:
        return f"new: {_short(new)}"
    return f"gone: {_short(old)}" if new is None else f"{_short(old)} became {_short(new)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return text if len(text) <= 120 else text[:119] + "…"
