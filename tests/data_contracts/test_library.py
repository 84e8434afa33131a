"""The shipped contracts: each loads, is named by its id, carries its licence, and refuses what that forbids."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.contract import load_contract
from data_contracts.policy import Place, Purpose, decide
from data_contracts.schedule import frequency
from data_contracts.sources import open_source
from data_contracts.validation import validate
from tests.data_contracts.libraries import LIBRARY, NOT_HERE, SHARED
from tests.data_contracts.making import SECRET
from tests.data_contracts.oddities import CONTRACTS
from tests.data_contracts.oddity_table import ODDITIES

TODAY = datetime.date(2026, 1, 1)
SWEDEN = Place("stockholm", ("SE",))
COMMERCIAL, RESEARCH = Purpose.parse("commercial pre-training"), Purpose.parse("research pre-training")
DEMO = {"software-python-source", "software-package-docs", "legal-licence-texts"}
# A new partition is promised every day, or the same ones are offered again.
DAILY = {*DEMO, "healthcare-medquad", "healthcare-covid19-daily-reports", "healthcare-covid19-daily-reports-first",
         "finance-stocknet-tweets"}  # fmt: skip
# The README's last four groups: GPL, the NASA agreement, research only, not stated.
RESEARCH_ONLY = {"healthcare-mtsamples", "transport-safecom", "finance-fomc-minutes", "finance-financial-phrases",
                 "healthcare-covid19-daily-reports-first", "chinese-thucnews-titles"}  # fmt: skip
NOT_STATED = {"manufacturing-cmapss", "manufacturing-cmapss-remaining-life", "manufacturing-ai4i2020",
              "manufacturing-ics-advisories", "law-government-chinese-statutes",
              "software-stackoverflow-titles"}  # fmt: skip
STEMS = sorted(path.stem for path in LIBRARY.glob("*.yaml"))


@pytest.mark.parametrize("stem", STEMS)
def test_every_shipped_contract_loads_and_is_named_by_its_id(stem: str) -> None:
    contract = load_contract(LIBRARY / f"{stem}.yaml")
    # Publications of one data set under different terms have a contract each: -first.
    assert stem.removesuffix("-first") == contract.id.replace("/", "-")
    assert contract.terms.attribution
    assert contract.terms.revocation_contact
    assert contract.reader["format"]
    often = frequency(contract)
    # To promise what follows no frequency would make every other day a missing one.
    assert (often.words if often else None) == ("daily" if stem in DAILY else None)
    assert {"rowCount", "quarantineShare"} <= {rule.get("metric", "quarantineShare") for rule in contract.quality}


def test_every_data_set_of_the_shared_material_has_a_contract() -> None:
    assert set(STEMS) == set(CONTRACTS) | DEMO
    assert len({folder for folder, _ in CONTRACTS.values()}) == 33


@pytest.mark.parametrize("stem", sorted(set(CONTRACTS) - RESEARCH_ONLY - NOT_STATED))
def test_what_is_licensed_freely_may_be_trained_on_for_commerce(stem: str) -> None:
    terms = load_contract(LIBRARY / f"{stem}.yaml").terms
    decision = decide(terms, COMMERCIAL, SWEDEN, TODAY, action="process")
    assert decision.allowed, decision.reasons


@pytest.mark.parametrize("stem", sorted(RESEARCH_ONLY))
def test_a_licence_for_research_refuses_commerce_and_says_which_it_is(stem: str) -> None:
    terms = load_contract(LIBRARY / f"{stem}.yaml").terms
    decision = decide(terms, COMMERCIAL, SWEDEN, TODAY, action="process")
    assert not decision.allowed
    assert any(terms.licence and terms.licence in reason for reason in decision.reasons)
    assert decide(terms, RESEARCH, SWEDEN, TODAY, action="process").allowed
    assert terms.derived_updates == "restricted"


@pytest.mark.parametrize("stem", sorted(NOT_STATED))
def test_where_no_licence_is_stated_nothing_is_permitted(stem: str) -> None:
    terms = load_contract(LIBRARY / f"{stem}.yaml").terms
    for purpose in (COMMERCIAL, RESEARCH, None):
        decision = decide(terms, purpose, SWEDEN, TODAY, action="process")
        assert not decision.allowed
        assert any("nobody states one" in reason for reason in decision.reasons)


def test_court_opinions_are_admitted_on_a_recorded_legal_basis_alone(tmp_path: Path) -> None:
    path = LIBRARY / "law-government-us-appellate-opinions.yaml"
    decision = decide(load_contract(path).terms, COMMERCIAL, SWEDEN, TODAY, action="process")
    assert decision.allowed
    assert any("17 U.S.C. 105" in reason for reason in decision.reasons)
    without = re.sub(r"      legalBasis:.*\n(        .*\n)*", "", path.read_text("utf-8"))
    (tmp_path / path.name).write_text(without, "utf-8")
    terms = load_contract(tmp_path / path.name).terms
    assert not decide(terms, COMMERCIAL, SWEDEN, TODAY, action="process").allowed


def test_the_page_of_the_library_is_that_of_its_contracts() -> None:
    generator = LIBRARY.parents[1] / "docs" / "generate_library.py"
    done = subprocess.run([sys.executable, str(generator), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "docs/library.md is stale: run python docs/generate_library.py"


@NOT_HERE
def test_the_table_has_every_oddity_of_the_readme() -> None:
    told = {(oddity.of, oddity.bullet) for oddity in ODDITIES}
    listed = set()
    for section in re.split(r"\n### ", (SHARED / "README.md").read_text("utf-8"))[1:]:
        name = section.split("\n", 1)[0]
        bullets = re.split(r"^- oddities:$", section, flags=re.MULTILINE)[1].split("\n## ")[0]
        listed |= {(name, n) for n in range(1, 1 + len(re.findall(r"^  - ", bullets, re.MULTILINE)))}
    assert {name for name, _ in listed} == {folder for folder, _ in CONTRACTS.values()}
    assert told == listed


@NOT_HERE
def test_a_lost_line_of_the_titles_refuses_them_for_every_label_after_it_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "titles"
    shutil.copytree(SHARED / "software" / "stackoverflow_titles", folder)
    os.chmod(folder / "label_StackOverflow.txt", 0o644)
    labels = (folder / "label_StackOverflow.txt").read_text().split("\n")
    (folder / "label_StackOverflow.txt").write_text("\n".join(labels[:500] + labels[501:]))
    contract = load_contract(LIBRARY / "software-stackoverflow-titles.yaml")
    source = open_source(contract, str(folder))
    (partition,) = source.partitions()
    report = validate(contract, source.read(partition), partition.value, SECRET, lambda _: None, lambda _: None)
    assert report.verdict == "refused"
    assert report.rows_in == report.rows_accepted + report.rows_quarantined
