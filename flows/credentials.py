"""Credentials of stores and sources, from Prefect Secret blocks; and the password of a home's Prefect server.

A place's block `causeway-credentials-<place>` holds one JSON object of environment variables. A deployed run sets them
in its own process before it opens a store; what its machine has set already is replaced, since the block is what the
owner rotates. A run opens the stores of other places too: each place's AWS_*, AZURE_* and GOOGLE_* are also set as
CAUSEWAY_<PLACE>_AWS_* and so on, which is what a store with `credentials=<place>` in its URL reads. Values are in no
message, log or return value of this module.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from pathlib import Path

from data_contracts.catalog.store_opening import environment_prefix
from data_contracts.errors import CausewayError

_log = logging.getLogger(__name__)
# What stores (obstore: S3, Azure, Google) and the Hugging Face hub read. Nothing that could load code, change where
# programs are found, or turn Prefect elsewhere.
_STORE = re.compile(r"(?:AWS|AZURE|GOOGLE)_[A-Z0-9_]{1,100}")
_NAME = re.compile(rf"(?:CAUSEWAY_[A-Z][A-Z0-9_]{{0,31}}_)?{_STORE.pattern}|HF_TOKEN")
_BLOCK = "causeway-credentials-"
_PLACE = re.compile(r"[a-z][a-z0-9-]{0,31}")


def block_name(place: str) -> str:
    """Return the name of the Secret block of a place: `home`, a site, or a name that stores' URLs give.

    Raises:
        CausewayError: no place can have this name.
    """
    if not _PLACE.fullmatch(place):
        raise CausewayError(f"{place!r} cannot name a place: use `home` or a site of sites.toml")
    return f"{_BLOCK}{place}"


async def load_credentials(place: str) -> tuple[str, ...]:
    """Set the variables of a place's block in this process; return their names. Without a block nothing is set.

    Those of other places' blocks are set under their place's name only, and only where nothing is set: a place's own
    block, or its machine, may have other keys to them, such as keys that only read.

    Raises:
        CausewayError: the block is no JSON object of text, or has a name that is not allowed; names it.
    """
    own = await read_credentials(place)
    found = {**_named(place, own), **own}
    for other, variables in (await _others(place)).items():
        for name, value in _named(other, variables).items():
            if name not in os.environ:
                found.setdefault(name, value)
    os.environ.update(found)
    return tuple(sorted(found))


def _named(place: str, variables: dict[str, str]) -> dict[str, str]:
    return {f"{environment_prefix(place)}{name}": v for name, v in variables.items() if _STORE.fullmatch(name)}


async def _others(place: str) -> dict[str, dict[str, str]]:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        documents = await client.read_block_documents_by_type("secret", include_secrets=True)
    found: dict[str, dict[str, str]] = {}
    for document in documents:
        other = str(document.name or "").removeprefix(_BLOCK)
        if document.name and document.name.startswith(_BLOCK) and other != place and _PLACE.fullmatch(other):
            try:
                found[other] = _variables(document.name, document.data.get("value"))
            except CausewayError as error:
                # The run may not need that place's store; if it does, opening it says what is missing.
                _log.warning("%s", error)
    return found


async def load_where_deployed(place: str) -> None:
    """Load a place's credentials when this flow run is of a deployment; a person's own process has its own."""
    from prefect import runtime

    if runtime.deployment.id:
        await load_credentials(place)


async def read_credentials(place: str) -> dict[str, str]:
    """Return the variables of a place's block; empty when there is no block.

    Raises:
        CausewayError: as for `load_credentials`.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    name = block_name(place)
    async with get_client() as client:
        try:
            document = await client.read_block_document_by_name(name, "secret", include_secrets=True)
        except ObjectNotFound:
            return {}
    return _variables(name, document.data.get("value"))


def _variables(block: str, value: object) -> dict[str, str]:
    if isinstance(value, str):
        # A block that was filled in the UI may hold text.
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        # Outside the handler, and without the value: a parser's message quotes what it read.
        raise CausewayError(
            f"block {block}: not a JSON object of names and text;"
            f" write it with: causeway secrets set {block.removeprefix(_BLOCK)} NAME"
        )
    for variable in value:
        check_name(variable, f"block {block}")
    return dict(value)


async def set_credential(place: str, variable: str, value: str) -> None:
    """Put one variable into a place's block, made if it is not there; the others stay.

    Raises:
        CausewayError: the name is not allowed, or the value is empty.
    """
    from prefect.blocks.system import Secret
    from pydantic import SecretStr

    check_name(variable, "secrets set")
    if not value or "\0" in value:
        raise CausewayError(f"{variable}: the value is empty or no text; give it on standard input")
    found = await read_credentials(place)
    block: Secret[str] = Secret(value=SecretStr(json.dumps({**found, variable: value})))
    await block.asave(block_name(place), overwrite=True)


def check_name(variable: str, where: str) -> None:
    """Check that a block may set this environment variable.

    Raises:
        CausewayError: it may not; says which may.
    """
    if not _NAME.fullmatch(variable):
        raise CausewayError(
            f"{where}: {variable[:100]!r} is not a variable of credentials; allowed are"
            " AWS_*, AZURE_*, GOOGLE_*, each also after CAUSEWAY_<NAME>_, and HF_TOKEN"
        )


def auth_file(home: Path) -> Path:
    """Return where the `user:password` of a home's Prefect server stands, if it has one."""
    return home / "keys" / "prefect-auth"


def make_auth(home: Path) -> Path:
    """Make the `user:password` of a home's Prefect server, mode 0600, if there is none; return its file."""
    path = auth_file(home)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"causeway:{secrets.token_urlsafe(32)}\n")
    try:
        # The whole file or nothing, and of two that race one password.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path
