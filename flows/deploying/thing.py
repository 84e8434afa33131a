"""One object of a Prefect server, as we say it should be or as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["pool", "queue", "deployment", "automation"]
# In this order they are made: each may name those before it.
KINDS: tuple[Kind, ...] = get_args(Kind)
TAG = "causeway"
PREFIX = "causeway: "
# Fields of which the operator may add entries of his own: only those that we set are compared.
OPEN = ("parameters", "job_variables")


@dataclass(frozen=True)
class Thing:
    """A pool, a queue (`pool/queue`), a deployment (`flow/deployment`) or an automation.

    `fields` are plain JSON values: what we say of it. The server may know more.
    """

    kind: Kind
    name: str
    fields: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What makes two Things the same object."""
        return (self.kind, self.name)
