"""Every public data set comes to rest in its tables under its contract, or is refused for what its licence says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from data_contracts.contract import load_contract
from data_contracts.errors import PolicyRefused
from data_contracts.sources import open_source
from tests.data_contracts.libraries import LIBRARY, NOT_HERE, SHARED
from tests.data_contracts.oddities import CONTRACTS, Outcome
from training.steps import admit, ingest_one
from training.workspace import Workspace

# The later publication comes last: it is the one in force.
ORDER = sorted(CONTRACTS, key=lambda stem: (stem.removesuffix("-first"), not stem.endswith("-first")))
PUBLISHED = {
    "healthcare-covid19-daily-reports-first": dt.datetime(2020, 3, 25, tzinfo=dt.UTC),
    "healthcare-covid19-daily-reports": dt.datetime(2020, 7, 1, tzinfo=dt.UTC),
}
NOBODY_STATES_A_LICENCE = {
    "law-government-chinese-statutes",
    "manufacturing-ai4i2020",
    "manufacturing-cmapss",
    "manufacturing-cmapss-remaining-life",
    "manufacturing-ics-advisories",
    "software-stackoverflow-titles",
}


@NOT_HERE
@pytest.mark.long
def test_all_data_sets_ingest_or_are_refused_for_their_licence(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home", Path(__file__).parents[2] / "deployments" / "sites.toml")
    refused: dict[str, str] = {}
    found: dict[str, Outcome] = {}
    for stem in ORDER:
        contract = load_contract(LIBRARY / f"{stem}.yaml")
        location = str(SHARED / CONTRACTS[stem][0])
        published = PUBLISHED.get(stem)
        try:
            admit(workspace, contract, location, published)
        except PolicyRefused as error:
            refused[stem] = str(error)
            continue
        source = open_source(contract, location)
        versions = [
            ingest_one(workspace, contract, source, partition, published).version for partition in source.partitions()
        ]
        found[stem] = Outcome(
            sum(version.rows_in for version in versions),
            sum(version.rows_accepted for version in versions),
            sum(version.rows_quarantined for version in versions),
            tuple(version.partition for version in versions if version.verdict == "refused"),
        )
        newest = versions[-1]
        if newest.verdict == "accepted":
            assert workspace.tables(contract).read_accepted(newest).num_rows == newest.rows_accepted
    assert refused.keys() == NOBODY_STATES_A_LICENCE
    assert all("nobody states one" in why for why in refused.values())
    assert found == {stem: CONTRACTS[stem][1] for stem in found}
