"""The difference between what should be and what is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flows.deploying.thing import KINDS, OPEN, Kind, Thing

_SHOWN = 60


@dataclass(frozen=True)
class Difference:
    """A field, dotted where it lies deeper, and its values; None where there is none."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Change:
    """Something to add, to change or to remove. `thing` is what should be, or for `remove` what is."""

    action: Literal["add", "change", "remove"]
    thing: Thing
    differences: tuple[Difference, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind of the object."""
        return self.thing.kind

    def fields(self) -> dict[str, Any]:
        """Return the fields of the first level that differ, whole, as they should be."""
        names = {d.field.split(".")[0] for d in self.differences}
        return {name: self.thing.fields[name] for name in self.thing.fields if name in names}

    def lines(self) -> list[str]:
        """Say it to a person: one line, and one for each field that changes."""
        sign = {"add": "+", "change": "~", "remove": "-"}[self.action]
        head = f"{sign} {self.thing.kind} {self.thing.name}"
        return [head] + [f"    {d.field}: {_shown(d.old)} -> {_shown(d.new)}" for d in self.differences]

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        fields = {d.field: {"old": d.old, "new": d.new} for d in self.differences}
        return {"action": self.action, "kind": self.thing.kind, "name": self.thing.name, "fields": fields}


def compare(desired: Iterable[Thing], actual: Iterable[Thing], prune: bool = False) -> list[Change]:
    """Return what has to change, in the order in which it can be done.

    With `prune`, what is ours (`actual` holds nothing else of deployments and automations) and no longer wanted is
    removed, last and in the other order.
    """
    wanted, found = {t.key: t for t in desired}, {t.key: t for t in actual}
    changes = []
    for thing in sorted(wanted.values(), key=lambda t: KINDS.index(t.kind)):
        known = found.get(thing.key)
        if known is None:
            changes.append(Change("add", thing))
        elif different := tuple(_differences(thing.fields, known.fields)):
            changes.append(Change("change", thing, different))
    return changes + ([Change("remove", t) for t in unwanted(wanted.values(), found.values())] if prune else [])


def unwanted(desired: Iterable[Thing], actual: Iterable[Thing]) -> list[Thing]:
    """Return what is ours and no longer wanted. Pools and their queues stay: their runs would go with them."""
    wanted = {t.key for t in desired}
    gone = [t for t in actual if t.key not in wanted and t.kind in ("deployment", "automation")]
    return sorted(gone, key=lambda t: (-KINDS.index(t.kind), t.name))


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Difference]:
    for name, new in wanted.items():
        old = found.get(name)
        if name in OPEN and isinstance(old, Mapping):
            old = {k: v for k, v in old.items() if k in new}
        if old != new:
            yield from _leaves(name, old, new)


def _leaves(path: str, old: Any, new: Any) -> Iterator[Difference]:
    """Go down to what differs, so that a person need not compare two whole forms."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*new, *(n for n in old if n not in new)]:
            if old.get(name) != new.get(name) or (name in old) != (name in new):
                yield from _leaves(f"{path}.{name}", old.get(name), new.get(name))
    else:
        yield Difference(path, old, new)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
