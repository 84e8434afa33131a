"""From one string to the clients of a remote store: its URL, its options, and the credentials the environment has.

    s3://bucket/prefix?endpoint=http://127.0.0.1:8091&region=north&credentials=north

The string holds no secret, so it may stand in sites.toml, a plan, a command line or a message. `credentials=north`
says that the variables of this store begin with CAUSEWAY_NORTH_ (CAUSEWAY_NORTH_AWS_ACCESS_KEY_ID, ...), which lets one
process open stores of several owners; without it the plain names are read (AWS_*, AZURE_*, GOOGLE_*).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from data_contracts.errors import StoreError

_FAMILIES = {
    "s3": "AWS", "s3a": "AWS", "gs": "GOOGLE",
    "az": "AZURE", "azure": "AZURE", "adl": "AZURE", "abfs": "AZURE", "abfss": "AZURE",
}  # fmt: skip
_PARAMETERS = {
    "AWS": ("endpoint", "region", "credentials"),
    "AZURE": ("endpoint", "credentials"),
    "GOOGLE": ("credentials",),
    "": (),
}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
# Other ways to an AWS identity than a key: a role of the machine, of its container, or no identity at all.
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_USUAL = {
    "AWS": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "AZURE": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
    "GOOGLE": ("GOOGLE_SERVICE_ACCOUNT",),
}
_IDENTITY = re.compile("KEY|TOKEN|SECRET|ACCOUNT|CREDENTIAL|CLIENT|TENANT|ROLE|SAS")
_SILENCE_S = 30.0


@dataclass(frozen=True)
class Remote:
    """A store that is reached over the network.

    `base` is its URL without the query; `variables` are the names, never the values, of what it is opened with;
    `delta` are the storage options that deltalake needs (they hold the secrets: never print them); `verifies` says
    that the store compares each body with a sha256 that is sent with it; `seen` is set once the bucket has answered.
    """

    base: str
    endpoint: str
    credentials: str
    variables: tuple[str, ...]
    verifies: bool
    once: ObjectStore = field(repr=False)
    delta: dict[str, str] = field(repr=False)
    _build: Callable[[float, float], ObjectStore] = field(repr=False)
    seen: threading.Event = field(default_factory=threading.Event, repr=False)

    def patient(self, size_bytes: int, retry_s: float = 0.0) -> ObjectStore:
        """Return a client for one large body: it may take a second more for each MB, and retries parts by itself."""
        if not self.variables:
            return self.once  # no network: a store in memory is the same one only here
        return self._build(_SILENCE_S + size_bytes / 1e6, retry_s)


def environment_prefix(credentials: str) -> str:
    """Return what the variables of `credentials=NAME` begin with: CAUSEWAY_NAME_."""
    return f"CAUSEWAY_{credentials.upper().replace('-', '_')}_"


def base_of(url: str) -> str:
    """Return a store's URL without its query: what may stand before a key."""
    return url.partition("#")[0].partition("?")[0].rstrip("/")


def credentials_of(url: str) -> str:
    """Return the NAME of `credentials=NAME` in a store's URL, or ""."""
    return dict(parse_qsl(urlsplit(url).query)).get("credentials", "") if "://" in url else ""


def check_url(url: str) -> dict[str, str]:
    """Return the parameters of a store's URL.

    Raises:
        StoreError: a parameter is unknown, stands twice or is malformed, or the URL holds a user or a fragment. The
            message never quotes a value: it may be a secret that stands in the wrong place.
    """
    base, parts = base_of(url), urlsplit(url)
    before, at, _ = parts.netloc.rpartition("@")
    if at and (":" in before or not parts.scheme.startswith("abfs")):
        raise StoreError(
            f"{parts.scheme}://: this store's URL has a user before '@'; keys are variables, and the URL names them:"
            " ?credentials=NAME"
        )
    allowed = _PARAMETERS[_FAMILIES.get(parts.scheme, "")]
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in pairs:
        if name not in allowed or not value or [n for n, _ in pairs].count(name) > 1:
            raise StoreError(
                f"{base}: parameter {name[:40]!r} is unknown, empty or stands twice; a {parts.scheme}:// URL may have:"
                f" {', '.join(allowed) or 'none'}. Keys never stand in a URL"
            )
    if parts.fragment:
        raise StoreError(f"{base}: a store's URL has no '#'")
    found = dict(pairs)
    if "credentials" in found and not _NAME.fullmatch(found["credentials"]):
        raise StoreError(f"{base}: credentials= is a name of a-z, 0-9 and '-', as of a site, never a key")
    endpoint = urlsplit(found.get("endpoint", "http://localhost"))
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.username or endpoint.query:
        raise StoreError(f"{base}: endpoint= is http://host:port or https://host:port")
    return found


def open_remote(url: str) -> Remote:
    """Open a store by its URL; nothing is asked of it yet.

    Raises:
        StoreError: the URL is malformed, or the environment lacks the credentials that it names; says which variables.
    """
    found = check_url(url)
    base, family = base_of(url), _FAMILIES.get(urlsplit(url).scheme, "")
    name, endpoint = found.get("credentials", ""), found.get("endpoint", "")
    prefix = environment_prefix(name) if name else ""
    given = {k.removeprefix(prefix): v for k, v in os.environ.items() if family and k.startswith(f"{prefix}{family}_")}
    usual = _USUAL.get(family, ())
    variables = tuple(sorted(prefix + variable for variable in {*filter(_IDENTITY.search, given), *usual}))
    _check_given(base, family, name, given, endpoint)
    config: dict[str, Any] = {k.lower(): v for k, v in given.items()} if name else {}
    options: dict[str, Any] = {"connect_timeout": "5s", "timeout": "1h", "user_agent": "causeway"}
    provider = None
    if endpoint:
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    if "region" in found:
        config["region"] = found["region"]
    if family == "AWS":
        # The signature holds the sha256 of each body and each part: a store refuses a body that is another. (Of 2026,
        # Ceph 16.2 ignores x-amz-checksum-sha256, which others refuse to know, and every one checks the signature.)
        config["unsigned_payload"] = "false"
        if all(variable in given for variable in usual):
            provider = _fixed_key(given)
            for key in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
                config.pop(key, None)

    def build(silence_s: float, retry_s: float) -> ObjectStore:
        return from_url(
            base,
            config=config or None,
            client_options={**options, "read_timeout": f"{max(1, round(silence_s))}s"} if family else None,
            credential_provider=provider,
            retry_config={
                "max_retries": 1000 if retry_s else 0,
                "retry_timeout": timedelta(seconds=retry_s or 1),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            }
            if family
            else None,
        )

    try:
        once = build(_SILENCE_S, 0.0)
    except (BaseError, OSError, ValueError, TypeError) as error:
        # The parser's text may quote a value of the configuration.
        why = "" if name else f": {str(error).partition(chr(10))[0][:200]}"
        raise StoreError(
            f"{base}: this store cannot be opened{why}; check its URL and the variables {', '.join(variables) or '-'}"
        ) from (None if name else error)
    where = endpoint or given.get("AWS_ENDPOINT_URL", "")
    delta = _delta_options(family, given, found, bool(name))
    return Remote(base, where, name, variables, family == "AWS", once, delta, build)


def _check_given(base: str, family: str, name: str, given: dict[str, str], endpoint: str) -> None:
    prefix = environment_prefix(name) if name else ""
    usual = _USUAL.get(family, ())
    if not usual:
        return
    half = family == "AWS" and len([v for v in usual if v in given]) == 1
    # Of a store with an endpoint of its own no role of an Amazon machine holds; asking for one takes seconds.
    lacks = not given if prefix else family == "AWS" and endpoint and usual[0] not in given
    if half or (lacks and not any(role in given for role in _ROLES)):
        absent = [prefix + variable for variable in usual if variable not in given]
        raise StoreError(
            f"{base}: no credentials: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not set;"
            f" set them in the environment of this process, or for deployed runs with: causeway secrets set"
            f" {name or 'PLACE'} {usual[0]}"
        )
    if endpoint and family == "AWS" and os.environ.get("AWS_ENDPOINT_URL_S3", endpoint) != endpoint:
        raise StoreError(f"{base}: AWS_ENDPOINT_URL_S3 of the environment overrides the endpoint of the URL; unset it")


def _fixed_key(given: dict[str, str]) -> Callable[[], dict[str, Any]]:
    # A provider, not the configuration: a session token of the environment must not join a key of another name.
    key: dict[str, Any] = {
        "access_key_id": given["AWS_ACCESS_KEY_ID"],
        "secret_access_key": given["AWS_SECRET_ACCESS_KEY"],
        "token": given.get("AWS_SESSION_TOKEN") or None,
        "expires_at": None,
    }
    return lambda: key


def _delta_options(family: str, given: dict[str, str], found: dict[str, str], named: bool) -> dict[str, str]:
    # deltalake reads plain variables itself; those of a name have to be handed over.
    made = dict(given) if named else {}
    if "endpoint" in found:
        made[f"{family}_ENDPOINT_URL" if family == "AWS" else "AZURE_STORAGE_ENDPOINT"] = found["endpoint"]
        made["allow_http"] = str(found["endpoint"].startswith("http://")).lower()
    if "region" in found:
        made["AWS_REGION"] = found["region"]
    if family == "AWS":
        # A commit is a conditional put, whatever the environment says of locks and of unsafe renames.
        made["aws_conditional_put"] = "etag"
    return made
