"""`causeway sites add`: the file keeps what it says, or stays as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import CausewayError
from training.siteadd import add_site, site_block
from training.sites import load_sites
from training.workspace import SHIPPED_SITES

NEW = {"name": "south", "region": "eu-south", "jurisdictions": ["IT"], "store": "sites/south"}


def test_a_site_is_appended_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text("# ours\n" + SHIPPED_SITES.read_text().replace("[[site]]", "[[site]] # one of three", 1))
    path.chmod(0o640)
    before = path.read_text()
    site, block = add_site(tmp_path, SHIPPED_SITES, NEW | {"capacity_gb": 2.5, "work_pool": None})
    assert path.read_text() == before + "\n" + block
    assert (site.name, site.jurisdictions, site.capacity_bytes) == ("south", ("IT",), 2_500_000_000)
    assert load_sites(path, tmp_path).site("south") == site
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["sites.toml"]


def test_a_folder_without_the_file_starts_from_the_shipped_one(tmp_path: Path) -> None:
    add_site(tmp_path / "home", SHIPPED_SITES, NEW)
    names = [s.name for s in load_sites(tmp_path / "home" / "sites.toml", tmp_path).sites]
    assert names == ["east", "north", "south", "west"]


REFUSED = {
    "a name that is taken": ({"name": "north"}, "site 'north' stands twice"),
    "a name that is none": ({"name": "../x"}, "site name '../x'"),
    "a region under other laws": ({"region": "eu-north", "store": "sites/north"}, "differ in store or jurisdictions"),
    "a store of another region": ({"store": "sites/north"}, "share the store"),
    "a key in the URL": ({"store": "s3://b?secret_access_key=hunter2"}, "parameter 'secret_access_key'"),
    "no jurisdiction": ({"jurisdictions": []}, "jurisdictions"),
    "no speed": ({"tokens_per_s": 0.0}, "tokens_per_s"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_be_read_is_refused_and_nothing_changes(tmp_path: Path, name: str) -> None:
    fields, why = REFUSED[name]
    path = tmp_path / "sites.toml"
    path.write_text(SHIPPED_SITES.read_text())
    with pytest.raises(CausewayError, match=why) as caught:
        add_site(tmp_path, SHIPPED_SITES, NEW | fields)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert path.read_text() == SHIPPED_SITES.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["sites.toml"]


def test_of_many_that_add_at_once_none_is_lost(tmp_path: Path) -> None:
    def add(n: int) -> None:
        add_site(tmp_path, SHIPPED_SITES, NEW | {"name": f"s{n}", "region": f"r{n}", "store": f"sites/s{n}"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))
    assert len(load_sites(tmp_path / "sites.toml", tmp_path).sites) == 3 + 16


@settings(max_examples=60)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    import tomllib

    assert tomllib.loads(site_block({"name": text, "jurisdictions": [text]}))["site"] == [
        {"name": text, "jurisdictions": [text]}
    ]
