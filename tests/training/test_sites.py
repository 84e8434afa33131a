from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.errors import CausewayError
from training.inside import device_words
from training.sites import Link, load_sites
from training.workspace import SHIPPED_SITES, Workspace

HEAD = 'format = 1\n[home]\nstore = "home"\njurisdictions = ["SE"]\n'
SITE = '[[site]]\nname = "{}"\nregion = "r-{}"\njurisdictions = ["SG"]\nstore = "sites/{}"\n'


def text(*names: str, more: str = "") -> str:
    return HEAD + "".join(SITE.format(n, n, n) for n in names) + more


def new(*names: str, more: str = "") -> str:
    return text(*names, more=more).replace("format = 1", "format = 2")


def link(source: str, target: str, **fields: float) -> str:
    return f'[[link]]\nfrom = "{source}"\nto = "{target}"\n' + "".join(f"{k} = {v}\n" for k, v in fields.items())


def load(folder: Path, content: str | bytes) -> object:
    path = folder / "sites.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_sites(path, folder)


def test_sites_are_sorted_and_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(text("west", "east"))
    sites = load_sites(path, tmp_path)
    assert [s.name for s in sites.sites] == ["east", "west"]
    assert [s.name for s in sites.places] == ["home", "east", "west"]
    east = sites.site("east")
    assert (east.work_pool, east.tokens_per_s, east.accelerator) == ("east", 1.0, "cpu")
    assert (east.place.name, east.place.jurisdictions) == ("east", ("SG",))
    assert sites.store(east).root == tmp_path / "sites" / "east"


def test_a_site_says_what_it_is_inside_and_its_worker_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(
        new("a") + SITE.format("b", "b", "b") + 'ranks = 2\nform = "fsdp"\ndtype = "bfloat16"\nthreads = 4\n'
    )
    a, b = load_sites(path, tmp_path).sites
    assert (a.inside.arguments, a.inside.words) == ([], "")
    assert b.inside.arguments == ["--ranks", "2", "--form", "fsdp", "--dtype", "bfloat16", "--threads", "4"]
    assert b.inside.words == "2 ranks fsdp, bfloat16, 4 threads"
    path.write_text(text("a") + "ranks = 2\n")
    with pytest.raises(CausewayError, match="format 1 has no ranks; write: format = 2"):
        load_sites(path, tmp_path)
    path.write_text(new("a") + "ranks = 0\n")
    with pytest.raises(CausewayError, match="site.0.ranks"):
        load_sites(path, tmp_path)


def test_what_a_contribution_was_made_by_is_said_only_where_it_is_not_the_plain_case() -> None:
    assert device_words("cpu", "float32", "float32", "ddp", 1) == "cpu"
    assert device_words("cpu", None, "bfloat16", "fsdp", 1) == "cpu"
    assert device_words("cpu", "bfloat16", "float32", "ddp", 2) == "cpu bfloat16 ddp-2"
    assert device_words("cuda", None, "bfloat16", "fsdp", 8) == "cuda fsdp-8"


def test_the_shipped_sites_are_three_regions_under_three_laws(tmp_path: Path) -> None:
    sites = load_sites(SHIPPED_SITES, tmp_path).sites
    assert len({s.region for s in sites}) == len({s.jurisdictions for s in sites}) == 3


def test_sites_of_one_store_are_one_region_and_their_speeds_add_up(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    shared = SITE.format("b", "a", "a") + "tokens_per_s = 2.5\ncapacity_gb = 1.5\n"
    path.write_text(new("a", "c") + shared)
    sites = load_sites(path, tmp_path)
    assert [(r.name, [s.name for s in r.sites], r.tokens_per_s, r.capacity_bytes) for r in sites.regions] == [
        ("r-a", ["a", "b"], 3.5, 1_500_000_000),
        ("r-c", ["c"], 1.0, None),
    ]
    assert sites.region("r-a").place.jurisdictions == ("SG",)
    assert sites.region_store("r-a").root == tmp_path / "sites" / "a"
    with pytest.raises(CausewayError, match="no region 'r-b' in sites.toml; it has: r-a, r-c"):
        sites.region("r-b")


def test_a_link_holds_both_ways_until_the_other_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(new("a", "b", "c", more=link("a", "b", mbit_s=80, rtt_ms=90, cost_per_gb=0.02) + link("home", "a")))
    sites = load_sites(path, tmp_path)
    assert sites.link("a", "b") == Link("a", "b", 1e7, 0.09, 0.02)
    assert sites.link("b", "a") == Link("b", "a", 1e7, 0.09, 0.02)
    assert sites.link("a", "home") == Link("a", "home", 1.25e8, 0.05, 0.0) == sites.link("a", "home")
    assert sites.link("b", "c") == Link("b", "c", 1.25e8, 0.05, 0.0)
    assert sites.link("b", "b").rtt_s == 0
    path.write_text(path.read_text() + link("b", "a", mbit_s=8))
    assert load_sites(path, tmp_path).link("b", "a").bytes_per_s == 1e6
    with pytest.raises(CausewayError, match="no site 'd'"):
        sites.link("a", "d")


def test_tables_lie_apart_from_a_store_that_does_not_decide(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(
        new("a", more="decides_creates = false\n")
        + SITE.format("b", "b", "b")
        + SITE.format("c", "c", "c")
        + 'decides_creates = false\ntables = "tables/c"\n'
    )
    sites = load_sites(path, tmp_path)
    assert [(s.name, s.holds_tables) for s in sites.places] == [("home", True), ("a", False), ("b", True), ("c", True)]
    workspace = Workspace.open(tmp_path)
    assert workspace.tables_store("b") == workspace.store("b")
    assert workspace.tables_store("c").root == tmp_path / "tables" / "c"
    assert sites.store(sites.site("c")).root == tmp_path / "sites" / "c"


def test_a_store_may_be_a_url_and_no_fault_quotes_what_may_be_a_secret(tmp_path: Path) -> None:
    url = "s3://b/p?endpoint=http://127.0.0.1:1&region=north&credentials=north"
    (tmp_path / "sites.toml").write_text(new("a").replace("sites/a", url))
    assert load_sites(tmp_path / "sites.toml", tmp_path).site("a").store_url == url
    with pytest.raises(CausewayError) as caught:
        load(tmp_path, FAULTS["a key in a URL"][0])
    assert "hunter2" not in str(caught.value)


def test_the_file_of_the_page_is_one(tmp_path: Path) -> None:
    page = (SHIPPED_SITES.parents[1] / "docs" / "sites.md").read_text()
    (tmp_path / "sites.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    sites = load_sites(tmp_path / "sites.toml", tmp_path)
    assert [(r.name, r.tokens_per_s, r.capacity_bytes) for r in sites.regions] == [
        ("eu-north", 1.0, 500_000_000_000),
        ("us-west", 4.0, None),
    ]
    assert [s.name for s in sites.places if s.holds_tables] == ["home", "west-a"]


def test_an_unknown_site_is_answered_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(text("west", "east"))
    with pytest.raises(CausewayError, match="no site 'south'.*east, west"):
        load_sites(path, tmp_path).site("south")


FAULTS = {
    "not TOML": ("[[", "not TOML"),
    "not UTF-8": (b"\xff\xfe", "not TOML"),
    "no site": (HEAD, "site: Field required"),
    "no home": (text("a").replace("[home]", "[house]"), "home: Field required"),
    "unknown field": (text("a", more="speed = 3\n"), "site.0.speed: Extra inputs"),
    "no jurisdiction": (text("a").replace('["SG"]', "[]"), "site.0.jurisdictions"),
    "no speed": (text("a", more="tokens_per_s = 0\n"), "site.0.tokens_per_s"),
    "other format": (text("a").replace("format = 1", "format = 3"), "format: Input should be"),
    "a link in format 1": (text("a", more='[[link]]\nfrom = "home"\nto = "a"\n'), "format 1 has no link"),
    "a capacity in format 1": (text("a", more="capacity_gb = 3\n"), "format 1 has no capacity_gb"),
    "a home that decides nothing": (
        new("a").replace('["SE"]', '["SE"]\ndecides_creates = false'),
        "home holds the chain and tables",
    ),
    "no capacity": (new("a", more="capacity_gb = 0\n"), "site.0.capacity_gb"),
    "a link to nowhere": (new("a", more=link("a", "b")), "'b' is neither home nor a site; there are a, home"),
    "a link to itself": (new("a", more=link("a", "a")), "joins two places"),
    "a link twice": (new("a", more=link("a", "home") * 2), "from 'a' to 'home' stands twice"),
    "a link that is no link": (new("a", more=link("a", "home", mbit_s=0)), "link.0.mbit_s"),
    "a link for less than nothing": (new("a", more=link("a", "home", cost_per_gb=-1)), "link.0.cost_per_gb"),
    "one region, two stores": (
        new("a", "b").replace("r-b", "r-a"),
        "'a' and 'b' are in region 'r-a' but differ in store",
    ),
    "one region, two laws": (
        new("a") + SITE.format("b", "a", "a").replace("SG", "SE"),
        "are in region 'r-a' but differ in store or jurisdictions",
    ),
    "one store, two regions": (new("a") + SITE.format("b", "b", "a"), "share the store 'sites/a' but not the region"),
    "one store, two capacities": (
        new("a", more="capacity_gb = 2\n") + SITE.format("b", "a", "a") + "capacity_gb = 3\n",
        "share a store but differ in capacity_gb",
    ),
    "a key in a URL": (new("a").replace("sites/a", "s3://b?secret_key=hunter2"), "a: s3://b: parameter 'secret_key'"),
    "twice": (text("a", "a"), "site 'a' stands twice"),
    "named home": (text("home"), "site name 'home'"),
    "a path for a name": (text("../a"), "site name '../a'"),
    "upper case": (text("East"), "site name 'East'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    content, why = FAULTS[name]
    with pytest.raises(CausewayError, match=why) as caught:
        load(tmp_path, content)
    assert str(tmp_path / "sites.toml") in str(caught.value)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(CausewayError) as caught:
        load(tmp_path, text("a", more="speed = 3\ntokens_per_s = -1\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CausewayError, match=r"none\.toml: cannot be read.*put a sites.toml"):
        load_sites(tmp_path / "none.toml", tmp_path)
