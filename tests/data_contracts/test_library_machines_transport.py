"""Manufacturing and transport: each data set under its contract, each oddity of the README met as the table says."""

from __future__ import annotations

import pytest

from tests.data_contracts.libraries import NOT_HERE, contracts_of, oddities_of, prove, take_in
from tests.data_contracts.oddities import CONTRACTS, Oddity

pytestmark = NOT_HERE
HERE = ("manufacturing", "transport")


@pytest.mark.parametrize("stem", contracts_of(*HERE))
def test_every_row_is_accepted_or_in_quarantine_as_counted(stem: str) -> None:
    folder, outcome = CONTRACTS[stem]
    assert take_in(stem, folder).outcome == outcome


@pytest.mark.parametrize("oddity", oddities_of(*HERE))
def test_the_contract_meets_the_oddity(oddity: Oddity) -> None:
    prove(oddity, take_in(oddity.contract, CONTRACTS[oddity.contract][0]))
