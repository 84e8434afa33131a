"""Commands on sites: which there are, whether their stores do what they must, and one more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

if TYPE_CHECKING:
    from training.sitecheck import StoreCheck
    from training.sites import Site


def list_(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List home and the sites: region, jurisdictions, stores, speed, what is inside, links. No store is asked.

    Examples:
        causeway sites list
        causeway sites list --json
    """
    from training.workspace import Workspace

    sites = Workspace.open(home).sites
    if json:
        links = [vars(link) for link in sites.links]
        print_json({"places": [_fields(place) for place in sites.places], "links": links})
        return 0
    rows = []
    for site in sites.places:
        speed = "-" if site is sites.home else f"{site.tokens_per_s:g}"
        capacity = "-" if site.capacity_bytes is None else f"{site.capacity_bytes / 1e9:,g} GB"
        store = site.store_url + (f"\ntables: {site.tables_url}" if site.tables_url else "")
        row = [site.name, site.region, ", ".join(site.jurisdictions), store, speed, capacity, site.accelerator]
        rows.append([*row, site.inside.words or "-", site.work_pool])
    columns = ["site", "region", "jurisdictions", "store", "speed", "capacity", "accelerator", "inside", "work pool"]
    print_table("sites", columns, rows)
    if sites.links:
        ways = [
            [k.source, k.target, f"{k.bytes_per_s * 8 / 1e6:,g}", f"{k.rtt_s * 1e3:g}", f"{k.cost_per_gb:g}"]
            for k in sites.links
        ]
        print_table("links", ["from", "to", "Mbit/s", "round trip (ms)", "cost per GB"], ways)
    return 0


def check(*site: str, quick: bool = False, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Check the stores, from this machine: reached, who creates a key is decided, clocks, speed, free space.

    8 writers race to create each of 50 keys. A store where two of them win, or none, may hold neither the chain nor
    tables; shards and contributions may lie there, since their keys name their content. What is written for the check
    is removed at its end. Exit code 1: a store cannot be reached, or does not decide and is home or holds tables.

    Examples:
        causeway sites check
        causeway sites check home north --quick
        causeway sites check --json

    Parameters
    ----------
    site:
        home, or sites of sites.toml; default: all.
    quick:
        Race for 10 keys, and measure throughput with 1 MiB in place of 8.
    """
    from training.machine import describe_machine
    from training.sitecheck import check_stores
    from training.workspace import Workspace

    sites = Workspace.open(home).sites
    found = []
    for one in check_stores(sites, site, quick, lambda said: print(said, file=sys.stderr, flush=True)):
        found.append(one)
    machine = describe_machine()
    good = all(one.ok for one in found)
    if json:
        stores = [vars(one) | {"ok": one.ok, "may_hold": one.may_hold} for one in found]
        print_json({"ok": good, "stores": stores, "machine": machine})
        return 0 if good else 1
    columns = ["store of", "answers", "decides creates", "may hold", "clock (s)", "round trip (ms)", "4 KiB (ms)"]
    columns += ["put (MB/s)", "get (MB/s)", "free"]
    print_table("stores", columns, [_row(one) for one in found])
    for one in found:
        for note in ([one.error] if one.error else []) + one.notes:
            print(f"{', '.join(one.places)}: {note}")
    accelerators = ", ".join(machine["accelerators"]) or "no accelerator"
    memory = "" if machine["memory_bytes"] is None else f", {machine['memory_bytes'] / 1e9:.1f} GB memory"
    print(f"this machine: {accelerators}, {machine['cores']} cores{memory}, {machine['system']}")
    print(
        ", ".join(f"{name} {number}" for name, number in {"python": machine["python"], **machine["libraries"]}.items())
    )
    return 0 if good else 1


def add(
    name: str,
    *,
    region: str,
    jurisdiction: list[str],
    store: str,
    tables: str | None = None,
    decides_creates: bool | None = None,
    tokens_per_s: float | None = None,
    capacity_gb: float | None = None,
    accelerator: str | None = None,
    work_pool: str | None = None,
    ranks: int | None = None,
    form: Literal["ddp", "fsdp"] | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    threads: int | None = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Add a site to this folder's sites.toml; what stands there stays as it is.

    The file is read as a whole before it is replaced: a name that is taken, a region under other laws, a store of
    another region or a key in a URL is refused, and nothing changes.

    Examples:
        causeway sites add south --region eu-south --jurisdiction IT --store sites/south
        causeway sites add lab --region eu-north --jurisdiction SE --store 's3://lab?region=eu-north-1&credentials=lab'

    Parameters
    ----------
    name:
        a-z, 0-9 and '-'.
    region:
        Sites of one region share one store and the same jurisdictions.
    jurisdiction:
        Whose law holds there: ISO 3166-1 alpha-2; may be repeated.
    store:
        A folder under --home, or a URL: s3://bucket/prefix?endpoint=...&region=...&credentials=NAME, gs://, az://.
    tables:
        Another store, for tables, when the store does not decide creates.
    decides_creates:
        Whether the store decides creates (sites check measures it); default: it does.
    tokens_per_s:
        Speed in comparison with the other sites; default: 1.
    capacity_gb:
        What the store may hold of shards, in 10^9 bytes; default: no bound.
    accelerator:
        What it trains with, for the record; default: cpu.
    work_pool:
        Its Prefect pool; default: the site's name.
    ranks:
        Processes that train there together; default: one.
    form:
        How they divide the model: ddp (the default) or fsdp.
    dtype:
        Of forward and backward there, in place of the recipe's.
    threads:
        CPU threads of each process; default: one.
    """
    from training.siteadd import add_site
    from training.workspace import SHIPPED_SITES

    fields = {
        "name": name,
        "region": region,
        "jurisdictions": jurisdiction,
        "store": store,
        "tables": tables,
        "decides_creates": decides_creates,
        "tokens_per_s": tokens_per_s,
        "capacity_gb": capacity_gb,
        "accelerator": accelerator,
        "work_pool": work_pool,
        "ranks": ranks,
        "form": form,
        "dtype": dtype,
        "threads": threads,
    }
    site, block = add_site(home.absolute(), SHIPPED_SITES, fields)
    if json:
        print_json(_fields(site))
        return 0
    print(block, end="")
    print(f"appended to {home.absolute() / 'sites.toml'}; next: causeway sites check {name}")
    return 0


def _fields(site: Site) -> dict[str, Any]:
    return {**vars(site), "jurisdictions": list(site.jurisdictions), "inside": vars(site.inside)}


def _row(one: StoreCheck) -> list[str]:
    def number(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    creates = {None: "-", True: "yes", False: f"NO ({one.split_keys} of {one.keys} not)"}
    free = "not known" if one.free_bytes is None else f"{one.free_bytes / 1e9:,.0f} GB"
    skew = "-" if one.skew_s is None else f"{one.skew_s:+.0f}" if one.skew_s else "agrees"
    row = [", ".join(one.places), "NO" if one.error else "yes", creates[one.decides], one.may_hold, skew]
    return [*row, *map(number, (one.rtt_ms, one.range_ms, one.put_mb_s, one.get_mb_s)), free]
