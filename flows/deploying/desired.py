"""What should be on a home's server: the list in deployments/prefect.yaml, and what depends on the home."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.errors import CausewayError
from data_contracts.schedule import Frequency, frequency
from flows.deploying.automations import automations
from flows.deploying.forms import form
from flows.deploying.thing import Thing
from training.sites import PoolType, Site
from training.workspace import Workspace

FOLDER = Path(__file__).parents[2] / "deployments"
FILE = FOLDER / "prefect.yaml"
TEND = "flows.tend.tend"
# Where intervals begin: with a fixed anchor the same frequency is the same schedule, deployed today or next year.
ANCHOR = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class Place:
    """A place and the pool whose workers run there."""

    name: str
    pool: str
    pool_type: PoolType


@dataclass(frozen=True)
class Dataset:
    """A data set that was ingested: where its tables lie, and how often its contract promises data."""

    id: str
    slug: str
    place: str
    frequency: Frequency | None


@dataclass(frozen=True)
class HomeFacts:
    """What of a home decides its deployments: its places, home first; its data sets; a run.toml as JSON, if named."""

    home: str
    places: tuple[Place, ...]
    datasets: tuple[Dataset, ...]
    train: Mapping[str, Any] | None = None

    def pool(self, place: str) -> str:
        """Return the pool of a place by name."""
        return next(p.pool for p in self.places if p.name == place)


@dataclass(frozen=True)
class FlowFacts:
    """A flow's name, and the form of its parameters as Prefect makes it from the signature and the docstring."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)


def facts(
    workspace: Workspace,
    pool_type: PoolType | None = None,
    train: Mapping[str, Any] | None = None,
    known: Mapping[str, PoolType] | None = None,
) -> HomeFacts:
    """Read a home.

    A place for which sites.toml names no type of pool has `pool_type`, else that of the `known` pool on the server,
    else process.

    Raises:
        CausewayError: two places share a pool but not its type.
    """

    def place(site: Site) -> Place:
        kind = site.pool_type or pool_type or (known or {}).get(site.work_pool) or "process"
        return Place(site.name, site.work_pool, kind)

    places = tuple(place(site) for site in workspace.sites.places)
    for one in places:
        other = next((p for p in places if p.pool == one.pool and p.pool_type != one.pool_type), None)
        if other is not None:
            raise CausewayError(
                f"sites.toml: {one.name} and {other.name} share the pool {one.pool!r} but not its type"
                f" ({one.pool_type}, {other.pool_type}); give both one pool_type, or each a work_pool of its own"
            )
    datasets = []
    for name in workspace.datasets():
        contract = workspace.contract(name)
        at = workspace.table_place(contract).name
        datasets.append(Dataset(name, contract.slug, at, frequency(contract)))
    return HomeFacts(str(workspace.root), places, tuple(datasets), train)


def read_file(path: Path = FILE) -> dict[str, Any]:
    """Read prefect.yaml."""
    from ruamel.yaml import YAML

    document: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text())
    return document


def entrypoints(document: Mapping[str, Any]) -> list[str]:
    """Return the module paths of the flows that a prefect.yaml names."""
    more = (document["definitions"][name] for name in ("each_dataset", "each_place", "each_site"))
    return sorted({d["entrypoint"] for entries in (document["deployments"], *more) for d in entries})


def load_flows(paths: Sequence[str]) -> dict[str, FlowFacts]:
    """Import flows and return what a deployment must know of each.

    Raises:
        CausewayError: a module or flow that prefect.yaml names cannot be imported.
    """
    from prefect.flows import Flow, load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    found = {}
    for path in paths:
        try:
            flow: Flow[..., Any] = load_flow_from_entrypoint(path, use_placeholder_flow=False)
        except Exception as error:
            raise CausewayError(f"{FILE}: entrypoint {path} cannot be loaded: {error}") from error
        found[path] = FlowFacts(flow.name, parameter_schema(flow).model_dump(mode="json", exclude_unset=False))
    return found


def desired(
    document: Mapping[str, Any],
    home: HomeFacts,
    flows: Mapping[str, FlowFacts],
    templates: Mapping[PoolType, Mapping[str, Any]],
) -> list[Thing]:
    """Return everything that a home's server should hold."""
    things: list[Thing] = []
    for pool, kind in dict.fromkeys((p.pool, p.pool_type) for p in home.places):
        at = [p.name for p in home.places if p.pool == pool]
        text = f"Runs at {', '.join(at)}"
        things.append(Thing("pool", pool, {"type": kind, "description": text, "base_job_template": templates[kind]}))
        for queue in document["definitions"]["queues"]:
            fields = {"concurrency_limit": None, **{k: v for k, v in queue.items() if k != "name"}}
            things.append(Thing("queue", f"{pool}/{queue['name']}", fields))
    for entry, extra in _entries(document, home):
        things.append(_deployment(entry, extra, home, flows[entry["entrypoint"]]))
    return things + automations(home.home, home.train)


def _entries(document: Mapping[str, Any], home: HomeFacts) -> Iterator[tuple[dict[str, Any], Dataset | None]]:
    """Yield the entries of prefect.yaml, those for each data set, place and site filled in."""
    parts = document["definitions"]
    names = {"home": home.home}
    for entry in document["deployments"]:
        yield _filled(entry, names), None
    for dataset in home.datasets:
        names = {"dataset": dataset.id, "slug": dataset.slug, "place": dataset.place, "pool": home.pool(dataset.place)}
        for entry in parts["each_dataset"]:
            yield _filled(entry, {"home": home.home, **names}), dataset
    for number, place in enumerate(home.places):
        names = {"home": home.home, "place": place.name, "site": place.name, "pool": place.pool}
        for entry in [*parts["each_place"], *(parts["each_site"] if number else [])]:
            yield _filled(entry, names), None


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, names) for v in value]
    if isinstance(value, str):
        value = value.replace("{{ $CAUSEWAY_HOME }}", names["home"])
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
    return value


def _deployment(entry: dict[str, Any], dataset: Dataset | None, home: HomeFacts, flow: FlowFacts) -> Thing:
    parameters = dict(entry.get("parameters", {}))
    schedules = [_schedule(s) for s in entry.get("schedules", [])]
    if dataset is not None and dataset.frequency is not None:
        often = dataset.frequency
        raw = {"cron": often.cron} if often.cron else {"interval": often.every_s}
        schedules.append(_schedule({**raw, "slug": "promised"}))
    if home.train is not None and entry["entrypoint"] == TEND:
        # Data sets that no run has used yet count too: the run that is to come names them.
        parameters["datasets"] = list(home.train["datasets"])
    datasets, sites = [d.id for d in home.datasets], [p.name for p in home.places[1:]]
    shape, enforced = form(flow.schema, datasets, sites, entry.get("parameters", {}))
    limit = entry.get("concurrency_limit") or {}
    pool = entry["work_pool"]
    fields = {
        "entrypoint": entry["entrypoint"],
        "description": entry["description"],
        "tags": sorted(entry["tags"]),
        "work_pool_name": pool["name"],
        "work_queue_name": pool["work_queue_name"],
        "job_variables": pool.get("job_variables", {}),
        "parameters": parameters,
        "parameter_openapi_schema": shape,
        "enforce_parameter_schema": enforced,
        "concurrency_limit": limit.get("limit"),
        "collision_strategy": limit.get("collision_strategy"),
        "schedules": schedules,
    }
    return Thing("deployment", f"{flow.name}/{entry['name']}", fields)


def _schedule(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schedule as one flat JSON value, times in UTC."""
    if raw.get("cron"):
        return {"cron": raw["cron"], "timezone": "UTC", "slug": raw["slug"]}
    return {"interval_s": float(raw["interval"]), "anchor_date": ANCHOR, "timezone": "UTC", "slug": raw["slug"]}


def templates(types: Sequence[PoolType], folder: Path = FOLDER / "job-templates") -> dict[PoolType, dict[str, Any]]:
    """Return the job template of each type of pool."""
    return {kind: json.loads((folder / f"{kind}.json").read_text()) for kind in dict.fromkeys(types)}
