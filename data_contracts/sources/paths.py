"""Path expressions over a JSON document: which of its values are records, and where a record's columns lie.

    record      $  |  $[*]  |  $.*  |  $.data[*].paragraphs[*].qas[*]
    field       title  |  a.b  |  answers[0].text  |  paragraphs[*]  |  ["odd name"].x  |  $ (the record itself)
                ^.context (one record level up, ^^ two)  |  /document/title (from the root)
                @key (the member's name)  |  @index (its place in the list, from 0)

A level is what a `[*]` or `.*` of the record's path went through, and the root. Of several values the texts are joined
by newlines; a value that is not there is null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(
    r"""\.?\[(?P<index>\d+|\*)\]|\.?\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|\.?(?P<name>[^.\[\]"/^@][^.\[\]/]*)"""
)
ALL = object()
ABSENT = object()
Step = str | int | object


@dataclass(frozen=True)
class Node:
    """A value of a document with what it was reached through: `up` is the level above, `key` its name there."""

    value: Any
    up: Node | None = None
    key: str | int | None = None

    @property
    def root(self) -> Node:
        """The document."""
        node = self
        while node.up is not None:
            node = node.up
        return node


@dataclass(frozen=True)
class FieldPath:
    """Where a column lies: `levels` up from the record (None: from the root), then the steps; `at` is key or index."""

    levels: int | None
    steps: tuple[Step, ...]
    at: str | None = None


def record_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a record's path.

    Raises:
        ValueError: it is no path from the root.
    """
    if not text.startswith("$"):
        raise ValueError("a record's path starts at the root: $, $[*], $.*, $.data[*] ...")
    return _steps(text[1:])


def field_path(text: str) -> FieldPath:
    """Return a field's path.

    Raises:
        ValueError: it is none.
    """
    if text.startswith("/"):
        return FieldPath(None, tuple(step for part in text[1:].split("/") for step in _steps(part)))
    levels = len(text) - len(text.lstrip("^"))
    rest = text[levels:].removeprefix("$")
    if rest.removeprefix(".") in ("@key", "@index"):
        return FieldPath(levels, (), rest.removeprefix(".")[1:])
    return FieldPath(levels, _steps(rest))


def _steps(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f'{text[at:]!r} is no step of a path; use .name, [n], [*], .* or ["name"]')
        if match["index"] is not None:
            steps.append(ALL if match["index"] == "*" else int(match["index"]))
        elif match["quoted"] is not None:
            steps.append(str(json.loads(match["quoted"])))
        else:
            steps.append(ALL if match["name"] == "*" else match["name"])
        at = match.end()
    return tuple(steps)


def records(
    document: Any, steps: tuple[Step, ...], up: Node | None = None, key: str | int | None = None
) -> Iterator[Node]:
    """Yield the records of a document in its order; a path that leads nowhere gives none."""
    yield from _walk(Node(document, up, key), document, steps)


def _walk(level: Node, value: Any, steps: tuple[Step, ...]) -> Iterator[Node]:
    for place, step in enumerate(steps):
        if step is ALL:
            for key, child in _children(value):
                yield from _walk(Node(child, level, key), child, steps[place + 1 :])
            return
        value = _child(value, step)
        if value is ABSENT:
            return
    yield level if value is level.value else Node(value, level)


def value_at(node: Node, path: FieldPath) -> Any:
    """Return the value of a column, `ABSENT` when nothing lies there."""
    level: Node | None = node.root if path.levels is None else node
    for _ in range(path.levels or 0):
        level = level.up if level else None
    if level is None:
        return ABSENT
    if path.at is not None:
        right = isinstance(level.key, str if path.at == "key" else int)
        return level.key if right else ABSENT
    found = list(_values(level.value, path.steps))
    if ALL not in path.steps:
        return found[0] if found else ABSENT
    texts = [_text(value) for value in found if value is not None]
    return "\n".join(texts) if texts else ABSENT


def _values(value: Any, steps: tuple[Step, ...]) -> Iterator[Any]:
    for place, step in enumerate(steps):
        if step is ALL:
            for _, child in _children(value):
                yield from _values(child, steps[place + 1 :])
            return
        value = _child(value, step)
        if value is ABSENT:
            return
    yield value


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, list):
        yield from enumerate(value)
    elif isinstance(value, Mapping):
        yield from value.items()


def _child(value: Any, step: Step) -> Any:
    if isinstance(step, str) and isinstance(value, Mapping):
        return value.get(step, ABSENT)
    if isinstance(step, int) and isinstance(value, list) and step < len(value):
        return value[step]
    return ABSENT


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
