"""The stores of the tests are what they say they are."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from tests.conftest import available
from tests.stores import Access, Ceph, Server, Swift, shared, swift_venv


def opened(access: Access, bucket: str) -> S3Store:
    """Open a bucket without the product's own store class."""
    return S3Store(
        urllib.parse.urlsplit(bucket).netloc,
        endpoint=access.endpoint,
        region=access.name,
        access_key_id=access.access_key,
        secret_access_key=access.secret_key,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def test_of_eight_writers_of_a_key_in_ceph_one_creates_it(rgw: Access) -> None:
    store = opened(rgw, rgw.bucket("race"))

    def create(name: str, writer: int) -> bool:
        try:
            obstore.put(store, name, b"%d" % writer, mode="create", use_multipart=False)
            return True
        except AlreadyExistsError:
            return False

    with ThreadPoolExecutor(8) as pool:
        for key in map(str, range(20)):
            assert sum(pool.map(lambda writer, key=key: create(key, writer), range(8))) == 1


def test_each_region_has_keys_of_its_own(north: Access, west: Access) -> None:
    bucket = north.bucket("own")
    obstore.put(opened(north, bucket), "a", b"1")
    with pytest.raises(BaseError):
        obstore.get(opened(Access("north", north.endpoint, west.access_key, west.secret_key), bucket), "a")


@pytest.mark.parametrize(
    "make", [lambda folder: Ceph(folder), lambda folder: Swift(folder, "east")], ids=["ceph", "swift"]
)
def test_a_store_that_was_stopped_comes_back_with_its_data(make: Callable[[Path], Server], tmp_path: Path) -> None:
    with available(), make(tmp_path / "store") as server:
        access: Access = server.access
        store = opened(access, access.bucket("kept"))
        obstore.put(store, "folder/a", b"kept")
        server.stop()
        with pytest.raises(BaseError):
            obstore.get(store, "folder/a")
        server.start()
        assert bytes(obstore.get(store, "folder/a").bytes()) == b"kept"


def test_a_shared_store_is_one_for_all_its_users_and_ends_with_the_last(tmp_path: Path) -> None:
    with available():
        swift_venv()
    with shared("south", tmp_path) as first, shared("south", tmp_path) as second:
        assert first == second
        first.bucket("used")
    with shared("south", tmp_path) as third:
        third.bucket("used")
