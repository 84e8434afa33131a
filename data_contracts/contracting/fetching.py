"""A file at an http(s) address, brought here so that a contract can be inferred from it."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from data_contracts.errors import DataRefused

_MOST_BYTES = 1 << 30
_TIMEOUT_S = 60


def is_url(location: str) -> bool:
    """Say whether a location is an http or https address."""
    return location.startswith(("http://", "https://"))


def fetch(url: str, folder: Path) -> Path:
    """Download a file into a folder under the name that its address ends with; at most 1 GiB.

    Raises:
        DataRefused: the address cannot be reached or is no http(s) address, or the file is larger.
    """
    if not is_url(url):
        raise DataRefused(f"{url}: only http and https addresses are fetched; download the file and name it")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1]))
    target = folder / (name.lstrip(".") or "data")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, target.open("wb") as out:
            size = 0
            while block := response.read(1 << 20):
                size += len(block)
                if size > _MOST_BYTES:
                    raise DataRefused(f"{url}: more than 1 GiB; download it and name the file")
                out.write(block)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataRefused(f"{url}: cannot be fetched: {error}; check the address") from error
    return target
