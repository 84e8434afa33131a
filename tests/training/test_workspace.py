from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.errors import CausewayError, DataRefused, PolicyRefused
from tests.data_contracts.making import make_contract
from training.workspace import Workspace, cache_bytes

ONLY_SINGAPORE = {"residency": {"storage": ["SG"], "processing": ["SG"]}}
ONLY_FRANCE = {"residency": {"storage": ["FR"], "processing": ["FR"]}}


def test_without_a_sites_file_the_shipped_one_is_used_and_ones_own_comes_first(tmp_path: Path) -> None:
    assert [s.name for s in Workspace.open(tmp_path / "a").sites.sites] == ["east", "north", "west"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sites.toml").write_text(
        'format = 1\n[home]\nstore = "home"\njurisdictions = ["SE"]\n'
        '[[site]]\nname = "solo"\nregion = "r"\njurisdictions = ["SE"]\nstore = "sites/solo"\n'
    )
    assert [s.name for s in Workspace.open(tmp_path / "b").sites.sites] == ["solo"]


def test_stores_and_keys_lie_apart_under_the_folder(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    assert workspace.home.root == tmp_path / "home"
    assert workspace.store("north").root == tmp_path / "sites" / "north"
    assert workspace.store("home") is workspace.home
    workspace.site_key("north")
    assert (tmp_path / "keys" / "site-north.ed25519").exists()
    assert workspace.owner.private_bytes_raw() == Workspace.open(tmp_path).owner.private_bytes_raw()
    with pytest.raises(CausewayError, match="no site 'moon'"):
        workspace.store("moon")


def test_tables_lie_at_home_unless_the_terms_say_where(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    anywhere = make_contract(tmp_path / "a")
    asian = make_contract(tmp_path / "b", terms=ONLY_SINGAPORE)
    assert workspace.table_place(anywhere).name == "home"
    assert workspace.table_place(asian).name == "east"
    assert workspace.tables(asian).store == workspace.store("east")


def test_a_data_set_without_a_permitted_place_is_refused_with_every_places_reason(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused) as caught:
        Workspace.open(tmp_path / "w").table_place(make_contract(tmp_path / "c", terms=ONLY_FRANCE))
    assert str(caught.value).startswith("test/notes: ")
    assert all(f"{name} lies in" in str(caught.value) for name in ("home", "east", "north", "west"))


def test_a_contract_is_kept_where_its_tables_lie_and_found_again(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    contract = make_contract(tmp_path / "c", terms=ONLY_SINGAPORE)
    workspace.keep_contract(contract, "/data/notes")
    workspace.keep_contract(contract)
    assert workspace.datasets() == ["test/notes"]
    assert workspace.contract("test/notes").sha == contract.sha
    path, source = workspace.source("test/notes")
    assert source == "/data/notes"
    assert Path(path).read_bytes() == contract.path.read_bytes()
    assert list(workspace.home.list("contracts")) == []


def test_the_newest_contract_is_the_one_in_use(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    workspace.keep_contract(make_contract(tmp_path / "c"), "there")
    newer = make_contract(tmp_path / "d", version="1.1.0")
    workspace.keep_contract(newer)
    assert workspace.contract("test/notes").version == "1.1.0"
    assert workspace.source("test/notes")[1] == "there"


def test_an_unknown_data_set_is_answered_with_those_there_are(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    with pytest.raises(DataRefused, match="ingested so far: none yet"):
        workspace.contract("test/notes")
    workspace.keep_contract(make_contract(tmp_path / "c"))
    with pytest.raises(DataRefused, match="no data set 'test/other'.*ingested so far: test/notes"):
        workspace.contract("test/other")


def test_there_are_no_terms_before_the_first_data_set(tmp_path: Path) -> None:
    head = Workspace.open(tmp_path).terms()
    assert (head.sequence, head.sha, head.terms) == (0, "", {})


def test_terms_that_move_the_tables_take_the_old_contract_out_of_use(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    anywhere = make_contract(tmp_path / "a")
    workspace.keep_contract(anywhere, "there")
    asian = make_contract(tmp_path / "b", terms=ONLY_SINGAPORE)
    workspace.keep_contract(asian, "there")
    assert workspace.contract(anywhere.id).terms.storage == ("SG",)
    assert not workspace.home.exists(f"contracts/{anywhere.slug}/current.json")


TWO_STORES = """
format = 2
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "south"
region = "south"
jurisdictions = ["SG"]
store = "sites/south"
decides_creates = false
{tables}
"""


def written(folder: Path, tables: str) -> Workspace:
    folder.mkdir()
    (folder / "sites.toml").write_text(TWO_STORES.format(tables=tables))
    return Workspace.open(folder)


def test_no_table_lies_in_a_store_that_does_not_decide_creates_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    workspace = written(tmp_path / "w", "")
    with pytest.raises(PolicyRefused, match="permit south, whose store does not decide creates.*tables = URL"):
        workspace.table_place(make_contract(tmp_path / "c", terms=ONLY_SINGAPORE))
    assert [site.name for site, _ in workspace.table_stores()] == ["home"]


def test_a_site_may_have_its_tables_in_a_store_of_their_own(tmp_path: Path) -> None:
    workspace = written(tmp_path / "w", 'tables = "tables/asia"')
    contract = make_contract(tmp_path / "c", terms=ONLY_SINGAPORE)
    assert workspace.table_place(contract).name == "south"
    workspace.keep_contract(contract, "/data/notes")
    assert workspace.tables(contract).store.root == tmp_path / "w" / "tables" / "asia"
    assert workspace.lineage("south").store == workspace.tables_store("south")
    assert workspace.datasets() == ["test/notes"]
    assert list(workspace.store("south").list()) == []
    assert [site.name for site, _ in workspace.table_stores()] == ["home", "south"]


def test_only_a_remote_region_has_a_cache_folder_and_its_name_is_never_a_path(tmp_path: Path) -> None:
    workspace = written(tmp_path / "w", "")
    assert workspace.cache_folder("south") is None
    text = (
        TWO_STORES.format(tables="").replace("sites/south", "memory:///").replace('region = "south"', 'region = "../a"')
    )
    (tmp_path / "w" / "sites.toml").write_text(text)
    assert Workspace.open(tmp_path / "w").cache_folder("../a") == tmp_path / "w" / "cache" / "%2E%2E%2Fa"


@pytest.mark.parametrize("said", ["x", "0", "-1", "nan"])
def test_the_bound_of_the_cache_is_a_number(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_CACHE_GB", "0.5")
    assert cache_bytes() == 500_000_000
    monkeypatch.setenv("CAUSEWAY_CACHE_GB", said)
    with pytest.raises(CausewayError, match="CAUSEWAY_CACHE_GB: .* is not a number"):
        cache_bytes()
    monkeypatch.delenv("CAUSEWAY_CACHE_GB")
    assert cache_bytes() is None
