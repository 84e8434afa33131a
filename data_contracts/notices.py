"""Notices: what needs a person, one object each in the home store until it is cleared."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, StoreError

_KIND = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Notice:
    """What needs a person: `subject` is what it is about (a data set, a run), `message` what is wrong and what to do.

    `since` is when it was first put, ISO 8601 in UTC.
    """

    kind: str
    subject: str
    message: str
    since: str


def put_notice(store: Store, kind: str, subject: str, message: str, now: datetime) -> None:
    """Put a notice; one of the same kind and subject gets the new message and keeps the time it was first put.

    Raises:
        StoreError: the kind is not a word of a-z, 0-9 and '-', or the store failed.
    """
    key = _key(kind, subject)
    since = now.astimezone(UTC).isoformat(timespec="seconds")
    with suppress(ObjectMissing):
        since = _notice(store.get_json(key)).since
    fields = {"format": 1, "kind": kind, "subject": subject, "message": message, "since": since}
    store.put(key, canonical_json(fields))


def notices(store: Store) -> list[Notice]:
    """Return what needs a person, oldest first."""
    found = []
    for key, _ in store.list("notices"):
        try:
            found.append(_notice(store.get_json(key)))
        except ObjectMissing:
            # Cleared since it was listed.
            continue
    return sorted(found, key=lambda notice: (notice.since, notice.kind, notice.subject))


def clear_notice(store: Store, kind: str, subject: str) -> None:
    """Remove a notice; one that is not there is no error."""
    store.delete(_key(kind, subject))


def _key(kind: str, subject: str) -> str:
    if not _KIND.fullmatch(kind):
        raise StoreError(f"{kind!r} cannot be the kind of a notice; use a-z, 0-9 and '-', as in partition-late")
    return f"notices/{kind}/{sha256(subject.encode())[:12]}.json"


def _notice(value: Any) -> Notice:
    if not isinstance(value, dict) or value.get("format") != 1:
        found = value.get("format") if isinstance(value, dict) else value
        raise StoreError(f"a notice of format {found!r}, this version reads format 1; delete it or update Causeway")
    return Notice(value["kind"], value["subject"], value["message"], value["since"])
