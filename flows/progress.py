"""What is happening and how long it will still take: flows report, whoever listens shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """`done` of `total` of a stage, in the stage's own units; `detail` is one short sentence."""

    stage: str
    done: float
    total: float
    detail: str = ""


_listener: Callable[[Event], None] | None = None


def listen(listener: Callable[[Event], None] | None) -> None:
    """Send every report of this process to one listener; None stops."""
    global _listener
    _listener = listener


def report(stage: str, done: float, total: float, detail: str = "") -> None:
    """Say how far a stage is."""
    if _listener is not None:
        _listener(Event(stage, done, total, detail))
