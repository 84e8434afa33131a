"""Add a site to a home's sites.toml: appended as text, so that comments stay, and read before it replaces the file."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import CausewayError
from training.sites import Site, load_sites

Value = str | float | bool | list[str]


def add_site(root: Path, start: Path, fields: Mapping[str, Value | None]) -> tuple[Site, str]:
    """Append a site to `sites.toml` in the `--home` folder `root`; return it, and the text that was appended.

    `fields` are those of a `[[site]]`; None leaves one out. A folder without the file gets a copy of `start` first.

    Raises:
        CausewayError: the name stands there already, or the file would not be read with it; nothing has changed then.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = (root / "sites.toml").resolve()
    with _alone(root):
        source = path if path.exists() else start
        text = source.read_text()
        block = site_block(fields)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            draft.write_text(f"{text.rstrip()}\n\n{block}")
            shutil.copymode(source, draft)
            # Read as a whole: a name or a store that is taken, or a region under other laws, is refused here.
            sites = load_sites(draft, root)
            with draft.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(draft, path)
        except CausewayError as error:
            raise CausewayError(str(error).replace(str(draft), str(path))) from None
        finally:
            draft.unlink(missing_ok=True)
    return sites.site(str(fields["name"])), block


def site_block(fields: Mapping[str, Value | None]) -> str:
    """Return a `[[site]]` as TOML; a basic string of TOML is written as JSON writes one, but for DEL."""

    def text(value: Value) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = [f"{name} = {text(value)}" for name, value in fields.items() if value is not None]
    return "\n".join(["[[site]]", *lines, ""])


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    # Of two that add at the same moment the second reads what the first has written.
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
