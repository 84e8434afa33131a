from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.errors import CausewayError
from training.sites import load_sites
from training.workspace import SHIPPED_SITES

HEAD = 'format = 1\n[home]\nstore = "home"\njurisdictions = ["SE"]\n'
SITE = '[[site]]\nname = "{}"\nregion = "r-{}"\njurisdictions = ["SG"]\nstore = "sites/{}"\n'


def text(*names: str, more: str = "") -> str:
    return HEAD + "".join(SITE.format(n, n, n) for n in names) + more


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


def test_the_shipped_sites_are_three_regions_under_three_laws(tmp_path: Path) -> None:
    sites = load_sites(SHIPPED_SITES, tmp_path).sites
    assert len({s.region for s in sites}) == len({s.jurisdictions for s in sites}) == 3


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
    "other format": (text("a").replace("format = 1", "format = 2"), "format: Input should be"),
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
