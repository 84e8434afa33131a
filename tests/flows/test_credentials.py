"""Credentials of places in Secret blocks: set, listed by name, loaded into the process; and the server's password."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from prefect.testing.utilities import prefect_test_harness

from data_contracts.errors import CausewayError
from flows.credentials import auth_file, load_credentials, make_auth, read_credentials, set_credential


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process' variables are as before after the test."""
    before = dict(os.environ)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of the machine")
    yield
    # Those of the stores that tests share too, whose names are those of places.
    os.environ.clear()
    os.environ.update(before)


async def test_a_place_without_a_block_sets_nothing(server: None, environment: None) -> None:
    assert await load_credentials("nowhere") == ()
    assert os.environ["AWS_ACCESS_KEY_ID"] == "of the machine"


async def test_what_was_set_is_in_the_process_and_only_names_come_back(server: None, environment: None) -> None:
    await set_credential("north", "AWS_ACCESS_KEY_ID", "first")
    await set_credential("north", "AWS_SECRET_ACCESS_KEY", "second")
    await set_credential("north", "AWS_ACCESS_KEY_ID", "third")
    named = ("CAUSEWAY_NORTH_AWS_ACCESS_KEY_ID", "CAUSEWAY_NORTH_AWS_SECRET_ACCESS_KEY")
    assert await load_credentials("north") == ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *named)
    assert (os.environ[named[0]], os.environ[named[1]]) == ("third", "second")
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]) == ("third", "second")


async def test_the_stores_of_other_places_open_by_their_names(server: None, environment: None) -> None:
    await set_credential("eu-north", "AWS_ACCESS_KEY_ID", "of eu-north")
    await set_credential("eu-north", "HF_TOKEN", "of eu-north")
    await set_credential("far", "AWS_ACCESS_KEY_ID", "of far")
    await set_credential("near", "CAUSEWAY_FAR_AWS_ACCESS_KEY_ID", "of near, to read far")
    await load_credentials("near")
    assert os.environ["CAUSEWAY_EU_NORTH_AWS_ACCESS_KEY_ID"] == "of eu-north"
    assert os.environ["CAUSEWAY_FAR_AWS_ACCESS_KEY_ID"] == "of near, to read far"
    assert os.environ["AWS_ACCESS_KEY_ID"] == "of the machine"
    assert "HF_TOKEN" not in os.environ
    assert "CAUSEWAY_EU_NORTH_HF_TOKEN" not in os.environ


async def test_what_a_machine_has_for_another_place_stays(
    server: None, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_credential("far", "AWS_ACCESS_KEY_ID", "of far")
    monkeypatch.setenv("CAUSEWAY_FAR_AWS_ACCESS_KEY_ID", "of the machine")
    await load_credentials("nowhere")
    assert os.environ["CAUSEWAY_FAR_AWS_ACCESS_KEY_ID"] == "of the machine"
    await load_credentials("far")
    assert os.environ["CAUSEWAY_FAR_AWS_ACCESS_KEY_ID"] == "of far"


async def test_one_place_does_not_see_the_credentials_of_another(server: None) -> None:
    await set_credential("east", "AZURE_STORAGE_ACCOUNT_KEY", "of east")
    assert await read_credentials("west") == {}


@pytest.mark.parametrize(
    "name",
    ["PATH", "LD_PRELOAD", "PREFECT_API_URL", "AWS_", "aws_key", "AWS_A B", "", "CAUSEWAY_HOME", "CAUSEWAY_A_HF_TOKEN"],
)
async def test_a_variable_that_is_no_credential_is_refused(server: None, name: str) -> None:
    with pytest.raises(CausewayError, match="not a variable of credentials"):
        await set_credential("north", name, "value")


async def test_a_block_filled_elsewhere_cannot_set_the_path(server: None, environment: None) -> None:
    before = os.environ["PATH"]
    await Secret(value={"PATH": "/evil"}).asave("causeway-credentials-south")  # type: ignore[arg-type]
    with pytest.raises(CausewayError, match="causeway-credentials-south: 'PATH'"):
        await load_credentials("south")
    assert os.environ["PATH"] == before
    await load_credentials("north")  # another place's broken block stops nothing here
    assert os.environ["PATH"] == before


@pytest.mark.parametrize("value", ["not JSON: hunter2", "[1]", json.dumps({"AWS_ACCESS_KEY_ID": 7})])
async def test_a_block_that_cannot_be_read_is_named_and_not_quoted(server: None, value: str) -> None:
    await Secret(value=value).asave("causeway-credentials-broken", overwrite=True)  # type: ignore[arg-type]
    with pytest.raises(CausewayError, match="causeway-credentials-broken: not a JSON object") as caught:
        await load_credentials("broken")
    assert value not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_a_place_is_a_name(server: None) -> None:
    with pytest.raises(CausewayError, match="cannot name a place"):
        await load_credentials("../north")


def test_the_password_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    path = make_auth(tmp_path)
    assert path == auth_file(tmp_path) == tmp_path / "keys" / "prefect-auth"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made = path.read_text()
    user, _, password = made.strip().partition(":")
    assert (user, len(password)) == ("causeway", 43)
    assert make_auth(tmp_path).read_text() == made
    assert [p.name for p in path.parent.iterdir()] == ["prefect-auth"]
    assert make_auth(tmp_path / "other").read_text() != made
