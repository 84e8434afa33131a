"""Forms: the parameters of a flow as JSON Schema, with the choices that are known offered as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

# Which parameters name what. In run.toml's form (`RunConfig`) they stand one level deeper.
DATASETS = ("dataset", "datasets")
SITES = ("site", "sites")


def form(schema: Mapping[str, Any], datasets: Sequence[str], sites: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Return a form that offers data sets and sites by name, and whether the server may enforce it.

    Data sets are taken in every day, and a form is as old as the last `causeway deploy`: the list is a help for a
    person, and no reason to refuse a run.
    """
    made = deepcopy(dict(schema))
    grows = False
    config = made.get("definitions", {}).get("RunConfig", {})
    for properties in (made.get("properties", {}), config.get("properties", {})):
        for name, choice in [*((n, datasets) for n in DATASETS), *((n, sites) for n in SITES)]:
            if name in properties and choice:
                _offer(properties[name], choice)
                grows |= name in DATASETS
    if not made.get("definitions"):
        # As Prefect's own command writes it.
        made.pop("definitions", None)
    return made, not grows


def _offer(field: dict[str, Any], choice: Sequence[str]) -> None:
    if field.get("type") == "array":
        field["items"] = {**field.get("items", {}), "enum": list(choice)}
    elif field.get("type") == "string" and "enum" not in field:
        field["enum"] = list(choice)
