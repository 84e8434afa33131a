"""What a store's error means: try again, or say in one sentence what is wrong and what to do.

obstore can retry by itself, but not all that has to be: it gives up on a put whose answer was lost, on a list that
fails between pages, and nothing interrupts it, so each of our requests is tried once by obstore and again by `retry`.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from obstore.exceptions import AlreadyExistsError, BaseError, GenericError

from data_contracts.catalog.store_opening import Remote
from data_contracts.errors import ObjectMissing, StoreError

T = TypeVar("T")
_log = logging.getLogger(__name__)
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_REASON = re.compile(r'message: "([^"]{1,200})"|(dns error)|(TimedOut|operation timed out)|kind: (\w+)')
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504, 507, 509, 522, 524}
_TRANSIENT_CODES = {
    "RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted",
    "XAmzContentSHA256Mismatch", "BadDigest",  # the body arrived as another one; nothing was written
}  # fmt: skip
_FIRST_WAIT_S, _LONGEST_WAIT_S, _QUIET_S = 0.1, 5.0, 3.0


class _Fork:
    """obstore answers through threads, which a forked child does not have: it would wait for ever."""

    used = False
    lost = False


def _after_fork() -> None:
    _Fork.lost = _Fork.used


os.register_at_fork(after_in_child=_after_fork)


def note_use(what: str) -> None:
    """Note that this process uses obstore.

    Raises:
        StoreError: it was forked from one that did.
    """
    if _Fork.lost:
        raise StoreError(
            f"{what}: this process was forked from one that had used a store, and can use none; start it with the"
            ' method "spawn" of multiprocessing (a torch DataLoader: multiprocessing_context="spawn")'
        )
    _Fork.used = True


def status_of(error: Exception) -> int | None:
    """Return the HTTP status in an error of obstore, if the store gave an answer."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def code_of(error: Exception) -> str:
    """Return the S3 error code in an error of obstore ("NoSuchBucket"), or ""."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def is_transient(error: Exception) -> bool:
    """Say whether the same request may succeed later: no answer, a timeout, throttling, a fault of the server."""
    if isinstance(error, AlreadyExistsError):
        # 409 of a conditional put: others are at it, and the outcome is not yet known (S3: ConditionalRequestConflict).
        return status_of(error) == 409
    if not isinstance(error, GenericError):
        return False
    status = status_of(error)
    if status is None:
        return "Configuration" not in str(error) and "169.254.169.254" not in str(error)
    return status in _TRANSIENT or code_of(error) in _TRANSIENT_CODES


def retry(call: Callable[[], T], retry_s: float, what: str) -> T:
    """Call until it succeeds, fails for good, or `retry_s` seconds are over; the last error is raised.

    The waits grow from 0.1 s to 5 s, each drawn between nothing and its bound, so that many clients of a store that
    comes back do not come at once (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    begun, bound, told = time.monotonic(), _FIRST_WAIT_S, False
    while True:
        try:
            return call()
        except BaseError as error:
            passed = time.monotonic() - begun
            if not is_transient(error) or passed >= retry_s:
                raise
            if passed >= _QUIET_S and not told:
                told = True
                _log.warning("%s: %s; trying for %.0f s more", what, words(error), retry_s - passed)
        time.sleep(min(random.uniform(bound / 10, bound), max(0.0, begun + retry_s - time.monotonic()) + 0.01))
        bound = min(bound * 2, _LONGEST_WAIT_S)


def words(error: Exception) -> str:
    """Return an error of obstore in a few words: status and code, or why there was no answer; no body, no key."""
    status, code = status_of(error), code_of(error)
    if status is not None:
        return f"it answered {status}{f' ({code})' if code else ''}"
    if isinstance(error, GenericError) and "HTTP error" in str(error):
        found = [next(g for g in groups if g) for groups in _REASON.findall(str(error))]
        return f"no whole answer ({found[-1] if found else 'connection failed'})"
    return str(error).partition("\n")[0][:300]


def explain(error: Exception, what: str, verb: str, remote: Remote | None, retry_s: float = 0.0) -> StoreError:
    """Return the error that says what was wrong with an object (`what`), and what to do.

    `verb` completes "cannot be ...".
    """
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) and code_of(error) == "":
        return ObjectMissing(f"{what}: no such object")
    status, code = status_of(error), code_of(error)
    if remote is None:
        return StoreError(f"{what}: cannot be {verb}: {str(error).partition(chr(10))[0]}")
    if code == "NoSuchBucket" or (status == 404 and verb in ("written", "listed")):
        return no_bucket(what, remote)
    if status == 404 or isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{what}: no such object")
    names = " and ".join(remote.variables[:4]) or "its variables"
    if "169.254.169.254" in str(error):
        return StoreError(f"{what}: no credentials: set {names}, or run where the machine has a role")
    if code == "RequestTimeTooSkewed":
        return StoreError(f"{what}: cannot be {verb}: this machine's clock is too far from the store's; set the clock")
    if status in (401, 403):
        return StoreError(
            f"{what}: cannot be {verb}: the store refuses the credentials ({status}{f' {code}' if code else ''});"
            f" looked at {names}: check their values, and what this key may do in the bucket"
        )
    if status in (301, 307, 400):
        return StoreError(f"{what}: cannot be {verb}: {words(error)}; check endpoint= and region= of the store's URL")
    if is_transient(error):
        at = f" at {remote.endpoint}" if remote.endpoint else ""
        return StoreError(
            f"{what}: cannot be {verb}: the store{at} does not work: {words(error)}, tried for {retry_s:.0f} s;"
            " run the same command again when it is up"
        )
    return StoreError(f"{what}: cannot be {verb}: {words(error)}")


def no_bucket(what: str, remote: Remote) -> StoreError:
    """Return the error of a store whose bucket or container is not there."""
    at = f" at {remote.endpoint}" if remote.endpoint else ""
    return StoreError(f"{what}: there is no such bucket{at}; make it, or correct the store's URL")
