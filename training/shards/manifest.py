"""What a shard is, on record: the JSON manifest beside each Arrow file, and the data set version that lists them.

Formats: docs/formats.md, sections "shard manifest" and "data set version".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError

FORMAT = 1
# 2: without the attempts, whose names are drawn anew on each machine; the same content is the same version anywhere.
VERSION_FORMAT = 2
Split = Literal["train", "held-out"]


@dataclass(frozen=True)
class Manifest:
    """One shard: an immutable run of tokens of one partition version, for one tokenizer, at one site.

    `arrow_sha256` names the Arrow file, `decision` holds the sentences of the policy that let it rest there.
    Units: `tokens` counts end-of-text tokens too, `text_bytes` counts UTF-8 bytes of the text alone.
    """

    dataset: str
    partition: str
    ingest_id: str
    curation_id: str
    split: Split
    tokenizer: str
    site: str
    region: str
    token_dtype: Literal["uint16", "uint32"]
    tokens: int
    records: int
    text_bytes: int
    arrow_bytes: int
    arrow_sha256: str
    terms_sha: str
    purpose: str
    decision: tuple[str, ...]
    format: int = FORMAT

    @property
    def folder(self) -> str:
        """The folder of the shard's two objects in its site's store."""
        return f"shards/{self.dataset.replace('/', '--')}"

    @property
    def arrow_key(self) -> str:
        """Key of the Arrow file."""
        return f"{self.folder}/{self.arrow_sha256}.arrow"

    @property
    def key(self) -> str:
        """Key of this manifest: named by its own content, so that a changed decision is another manifest."""
        return f"{self.folder}/{self.sha}.json"

    @property
    def sha(self) -> str:
        """SHA-256 of the manifest's canonical JSON."""
        return document_sha(self.document())

    def document(self) -> dict[str, Any]:
        """Return the manifest as its JSON value."""
        return {**asdict(self), "decision": list(self.decision)}

    def windows(self, window: int) -> int:
        """Return how many windows of `window` inputs the shard holds; the last may be short and is padded."""
        return max(0, -(-(self.tokens - 1) // window))


def read_manifest(store: Store, key: str, sha: str | None = None) -> Manifest:
    """Read a manifest, checked against `sha` when it is given.

    Raises:
        StoreError: it is missing, damaged, or of another format; names the object.
    """
    value = store.get_json(key, sha)
    try:
        if value["format"] != FORMAT:
            raise StoreError(
                f"{store.url}/{key}: manifest format {value['format']!r}; this Causeway reads format {FORMAT}"
            )
        return Manifest(**{**value, "decision": tuple(value["decision"])})
    except (TypeError, KeyError) as error:
        raise StoreError(f"{store.url}/{key}: damaged: not a shard manifest ({error})") from error


@dataclass(frozen=True)
class ShardRef:
    """How a data set version names a shard: everything that is needed to find it, check it and count its windows."""

    site: str
    region: str
    split: Split
    key: str
    manifest_sha256: str
    arrow_sha256: str
    tokens: int
    records: int
    text_bytes: int
    partition: str
    ingest_id: str

    @classmethod
    def of(cls, manifest: Manifest) -> ShardRef:
        """Return the reference to a manifest."""
        m = manifest
        return cls(
            m.site,
            m.region,
            m.split,
            m.key,
            m.sha,
            m.arrow_sha256,
            m.tokens,
            m.records,
            m.text_bytes,
            m.partition,
            m.ingest_id,
        )

    @property
    def arrow_key(self) -> str:
        """Key of the Arrow file in the site's store."""
        return f"{self.key.rsplit('/', 1)[0]}/{self.arrow_sha256}.arrow"


@dataclass(frozen=True)
class DatasetVersion:
    """What a run trains on of one data set: partition versions, curation, shards. Named by its SHA-256."""

    dataset: str
    contract_sha: str
    contract_version: str
    terms: dict[str, Any]
    terms_sha: str
    curation_id: str
    tokenizer: str
    partitions: tuple[dict[str, Any], ...]
    shards: tuple[ShardRef, ...]
    format: int = VERSION_FORMAT

    def document(self) -> dict[str, Any]:
        """Return the version as its JSON value; partitions and shards are sorted."""
        return {
            **asdict(self),
            "partitions": sorted(self.partitions, key=lambda p: str(p["partition"])),
            "shards": sorted((asdict(s) for s in self.shards), key=lambda s: str(s["key"]) + str(s["site"])),
        }

    @property
    def sha(self) -> str:
        """SHA-256 of the canonical JSON: the version's name."""
        return document_sha(self.document())

    def key(self) -> str:
        """Key in the home store."""
        return version_key(self.dataset, self.sha)

    def write(self, home: Store) -> None:
        """Write the version to the home store; writing it again is harmless."""
        home.ensure(self.key(), canonical_json(self.document()))

    def of(self, region: str, split: Split) -> tuple[ShardRef, ...]:
        """Return the shards of one region and split in their fixed order: by key."""
        return tuple(sorted((s for s in self.shards if s.region == region and s.split == split), key=lambda s: s.key))


def version_key(dataset: str, sha: str) -> str:
    """Return the home store's key of a data set version."""
    return f"datasets/{dataset.replace('/', '--')}/{sha}.json"


def read_version(home: Store, dataset: str, sha: str) -> DatasetVersion:
    """Read a data set version, checked against its name.

    Raises:
        StoreError: missing, damaged, or of another format; names the object.
    """
    key = version_key(dataset, sha)
    value = home.get_json(key, sha)
    if value.get("format") not in range(1, VERSION_FORMAT + 1):
        raise StoreError(
            f"{home.url}/{key}: data set version format {value.get('format')!r}; "
            f"this Causeway reads up to {VERSION_FORMAT}"
        )
    shards = tuple(ShardRef(**s) for s in value["shards"])
    return DatasetVersion(**{**value, "partitions": tuple(value["partitions"]), "shards": shards})
