"""Forms: the parameters of a flow as JSON Schema, as a person fills them in: titles, order, choices that are known."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

# Which parameters name what. In run.toml's form (`RunConfig`) they stand one level deeper.
DATASETS = ("dataset", "datasets")
SITES = ("site", "sites")


def form(
    schema: Mapping[str, Any], datasets: Sequence[str], sites: Sequence[str], given: Collection[str]
) -> tuple[dict[str, Any], bool]:
    """Return a form that offers data sets and sites by name, and whether the server may enforce it.

    Fields that are given, because the deployment has their value already, come last. Data sets are taken in every
    day, and a form is as old as the last `causeway deploy`: the list is a help for a person, and no reason to refuse
    a run.
    """
    made = deepcopy(dict(schema))
    grows = False
    config = made.get("definitions", {}).get("RunConfig", {})
    for properties in (made.get("properties", {}), config.get("properties", {})):
        for name, choice in [*((n, datasets) for n in DATASETS), *((n, sites) for n in SITES)]:
            if name in properties and choice:
                _offer(properties[name], choice)
                grows |= name in DATASETS
    _arrange(made.get("properties", {}), given)
    if not made.get("definitions"):
        # As Prefect's own command writes it.
        made.pop("definitions", None)
    return made, not grows


def _arrange(properties: dict[str, Any], given: Collection[str]) -> None:
    """Give the fields titles in words and their order; the UI goes by `position`."""
    order = sorted(properties, key=lambda name: (name in given, properties[name].get("position", 0)))
    for position, name in enumerate(order):
        words = name.replace("_", " ").replace("dataset", "data set")
        properties[name] |= {"position": position, "title": words[0].upper() + words[1:]}


def _offer(field: dict[str, Any], choice: Sequence[str]) -> None:
    if field.get("type") == "array":
        field["items"] = {**field.get("items", {}), "enum": list(choice)}
    elif field.get("type") == "string" and "enum" not in field:
        field["enum"] = list(choice)
