"""The one string that opens a store: what it may say, and that no fault of it shows a value."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalog.store_opening import base_of, check_url, credentials_of, environment_prefix, open_remote
from data_contracts.errors import StoreError

SECRET = "hunter2hunter2"
WORDS = st.sampled_from(["endpoint", "region", "credentials", "secret_access_key", "key", "", "Endpoint", "region "])


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://b/p", {}),
        (
            "s3://b/p?endpoint=http://h:1&region=r&credentials=a-b",
            {"endpoint": "http://h:1", "region": "r", "credentials": "a-b"},
        ),
        ("gs://b?credentials=x", {"credentials": "x"}),
        ("abfss://c@account.dfs.core.windows.net/p?credentials=x", {"credentials": "x"}),
        ("az://c/p?endpoint=https://h", {"endpoint": "https://h"}),
    ],
)
def test_a_url_says_where_and_whose(url: str, found: dict[str, str]) -> None:
    assert check_url(url) == found
    assert credentials_of(url) == found.get("credentials", "")
    assert base_of(url) == url.partition("?")[0]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"s3://AKIA:{SECRET}@b/p", "user before '@'"),
        (f"abfss://c:{SECRET}@account.dfs.core.windows.net", "user before '@'"),
        (f"s3://b?secret_access_key={SECRET}", "parameter 'secret_access_key'"),
        (f"s3://b?region={SECRET}&region={SECRET}", "parameter 'region' is unknown, empty or stands twice"),
        ("s3://b?region=", "parameter 'region'"),
        (f"gs://b?endpoint=http://{SECRET}", "parameter 'endpoint'"),
        (f"s3://b?endpoint=http://u:{SECRET}@h", "endpoint= is http://host:port"),
        (f"s3://b?endpoint={SECRET}", "endpoint= is http://host:port"),
        (f"s3://b?credentials={SECRET}!", "credentials= is a name"),
        (f"s3://b#{SECRET}", "no '#'"),
        (f"memory:///?key={SECRET}", "may have: none"),
    ],
)
def test_a_fault_is_named_without_its_value(url: str, why: str) -> None:
    with pytest.raises(StoreError, match=why) as caught:
        open_remote(url)
    assert SECRET not in str(caught.value)


@settings(max_examples=200)
@given(
    scheme=st.sampled_from(["s3", "s3a", "gs", "az", "memory", "https"]),
    pairs=st.lists(st.tuples(WORDS, st.sampled_from([SECRET, f"http://u:{SECRET}@h", f"{SECRET}!", ""])), max_size=3),
    user=st.booleans(),
)
def test_whatever_is_wrong_no_value_is_shown(scheme: str, pairs: list[tuple[str, str]], user: bool) -> None:
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    url = f"{scheme}://{f'u:{SECRET}@' if user else ''}bucket/p" + (f"?{query}" if query else "")
    try:
        found = check_url(url)
    except StoreError as error:
        assert SECRET not in str(error)
        return
    # What passes may stand in a message: it is a place or a name.
    assert set(found) <= {"endpoint", "region", "credentials"}
    assert not user
    assert f":{SECRET}@" not in url


def test_a_name_is_a_prefix_of_variables() -> None:
    assert environment_prefix("eu-north") == "CAUSEWAY_EU_NORTH_"


def test_a_variable_that_obstore_does_not_know_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_ODD_AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("CAUSEWAY_ODD_AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("CAUSEWAY_ODD_AWS_SECRET_ACCESS_KEYS", SECRET)
    with pytest.raises(StoreError, match="CAUSEWAY_ODD_AWS_SECRET_ACCESS_KEYS") as caught:
        open_remote("s3://b?credentials=odd")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
