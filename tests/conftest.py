"""What holds for every test: drawn cases are the same each time, no clock decides whether one passes, real stores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from tests.stores import Access, Unavailable, shared

settings.register_profile("causeway", deadline=None, derandomize=True)
settings.load_profile("causeway")


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """Ceph's gateway: a store that decides creates. Its keys are in the environment."""
    yield from _shared("rgw", tmp_path_factory)


@pytest.fixture(scope="session")
def north(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A Swift region with keys of its own, which are in the environment; it does not decide creates."""
    yield from _shared("north", tmp_path_factory)


@pytest.fixture(scope="session")
def west(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A second Swift region with keys of its own."""
    yield from _shared("west", tmp_path_factory)


@contextmanager
def available() -> Iterator[None]:
    """Skip where a server's packages cannot be had; with CI=true that is a failure."""
    try:
        yield
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def _shared(kind: str, factory: pytest.TempPathFactory) -> Iterator[Access]:
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "stores"
    with available(), shared(kind, folder) as access:
        os.environ.update(access.environment())
        yield access
