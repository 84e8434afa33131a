"""Where every kind of object lies in a store (docs/formats.md): a key that fits no place here is nobody's.

Shards, contributions and evaluation results are left to the checker, which reads them before it claims them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

TABLE_FOLDERS = ("tables", "docs", "contracts", "curations", "reviews")
_SHA = "[0-9a-f]{64}"
_NAME = r"[^/]+"
_NUMBER = "[0-9]{6}"
_TABLE = "(accepted|quarantine|versions|curation|resolved)"

# A data set's own folders, wherever its terms let them lie.
_TABLES = (
    rf"tables/{_NAME}/{_TABLE}/({_NAME}={_NAME}/)*{_NAME}\.parquet",
    rf"tables/{_NAME}/{_TABLE}/_delta_log/({_NAME}\.(json|crc|parquet|tmp)|_last_checkpoint)",
    rf"docs/{_NAME}/.*\.(css|gif|html|ico|jpe?g|js|json|otf|png|svg|ttf|woff2?)",
    rf"contracts/{_NAME}/({_SHA}\.yaml|current\.json)",
    rf"curations/{_NAME}/{_SHA}\.json",
    rf"reviews/{_NAME}/review-[0-9a-f]{{16}}\.csv",
    rf"lineage/{_NAME}/{_NAME}\.ndjson",
    rf"leases/({_NAME}/)+{_NUMBER}\.json",
    rf"backfills/{_NAME}/bf-[0-9a-f]+(-[0-9]+)?/(plan|(attempts|outcomes)/{_NUMBER}-[0-9]{{2}}|stages/[a-z]+|orders/{_NUMBER})\.json",
)
_HOME = (
    rf"terms/{_NUMBER}\.json",
    rf"tokenizers/({_SHA}|{_SHA}\.lineage|recipes/{_SHA}|densities/{_SHA}-{_NAME})\.json",
    rf"removals/{_NUMBER}\.json",
    rf"datasets/{_NAME}/{_SHA}\.json",
    r"notices/[a-z0-9-]+/[0-9a-f]{12}\.json",
)
_HOME_RUN = (
    r"(plan|control)\.json",
    rf"(commits|amendments)/{_NAME}\.json",
    rf"inputs/{_SHA}\.(json|safetensors)",
    rf"snapshots/{_NUMBER}/{_SHA}\.safetensors",
    rf"evaluations/{_NAME}/{_NAME}\.json",
)
_EVALUATION = re.compile(rf"evaluations/{_NAME}/{_NAME}/{_NAME}/(?P<slug>{_NAME})\.parquet")
# A site process holds an empty file locked while it works.
_LOCK = re.compile(r"\.[a-z0-9-]+\.lock")


def _site_run(site: str) -> tuple[str, ...]:
    return (
        rf"contributions/{_NUMBER}/{site}-{_SHA}\.safetensors",
        rf"inner/{site}-{_NAME}\.safetensors",
        rf"leases/{site}\.json",
        rf"telemetry/{_NUMBER}/{site}\.json",
    )


class Layout:
    """What may lie in the store of one place, `home` or a site, given the runs whose plans are known.

    `beside` are other sites that have the same store.
    """

    def __init__(self, place: str, runs: Collection[str], beside: Collection[str] = ()) -> None:
        own = (*_TABLES, *_HOME) if place == "home" else _TABLES
        self._own = re.compile("|".join(f"(?:{pattern})" for pattern in own))
        sites = "|".join(re.escape(name) for name in (place, *beside))
        of_run = _HOME_RUN if place == "home" else _site_run(f"({sites})")
        self._of_run = re.compile("|".join(f"(?:{pattern})" for pattern in of_run))
        self._runs = frozenset(runs)

    def knows(self, key: str) -> bool:
        """Say whether a key fits a place of this store."""
        if key.startswith("runs/"):
            _, run, *rest = key.split("/", 2)
            return run in self._runs and bool(rest) and self._of_run.fullmatch(rest[0]) is not None
        return self._own.fullmatch(key) is not None or _LOCK.fullmatch(key) is not None


def evaluation_slug(key: str) -> str | None:
    """Return the slug of the data set whose per-document results a key holds, or None when it holds none."""
    match = _EVALUATION.fullmatch(key)
    return match["slug"] if match else None
