"""What a shard is, on record: the JSON manifest beside each Arrow file, and the data set version that lists them.

Formats: docs/formats.md, sections "shard manifest" and "data set version".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError

FORMAT = 2
# 2: without the attempts, whose names are drawn anew on each machine; the same content is the same version anywhere.
# 3: shards name their region and size, no site.
VERSION_FORMAT = 3
BLOCK_BYTES = 262_144
Split = Literal["train", "held-out"]
SPLITS = ("train", "held-out")
_IDS = ("dataset", "partition", "ingest_id", "curation_id", "tokenizer", "arrow_sha256", "terms_sha")
_TEXTS = (*_IDS, "region", "token_dtype", "purpose")
_COUNTS = ("part", "parts", "tokens", "records", "text_bytes", "arrow_bytes", "block_bytes", "token_offset")


@dataclass(frozen=True)
class Manifest:
    """One shard: an immutable run of tokens of one partition version, for one tokenizer, in one region.

    `arrow_sha256` names the Arrow file, `decision` holds the sentences of the policy that let it rest there. A unit
    (one split of one partition version) is cut into `parts` shards, of which this is number `part`, from 0.
    `blocks` are the SHA-256 of each `block_bytes` of the Arrow file, the last shorter, so that a range can be checked.
    `token_offset` is the byte of the Arrow file at which the tokens begin, `mask_offset` that of the loss mask, one
    byte a token, where `loss_mask` says that there is one.
    Units: `tokens` counts end-of-text tokens too, `text_bytes` counts UTF-8 bytes of the text alone.
    """

    dataset: str
    partition: str
    part: int
    parts: int
    ingest_id: str
    curation_id: str
    split: Split
    tokenizer: str
    region: str
    token_dtype: Literal["uint16", "uint32"]
    tokens: int
    records: int
    text_bytes: int
    arrow_bytes: int
    arrow_sha256: str
    block_bytes: int
    blocks: tuple[str, ...]
    token_offset: int
    loss_mask: bool
    mask_offset: int | None
    terms_sha: str
    purpose: str
    decision: tuple[str, ...]
    format: int = FORMAT
    # Of a manifest that was read in an older format, whose canonical JSON this class no longer makes.
    recorded_sha: str = field(default="", repr=False, compare=False)

    @property
    def folder(self) -> str:
        """The folder of the shard's two objects in its region's store."""
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
        return self.recorded_sha or document_sha(self.document())

    def document(self) -> dict[str, Any]:
        """Return the manifest as its JSON value."""
        made = {**asdict(self), "blocks": list(self.blocks), "decision": list(self.decision)}
        del made["recorded_sha"]
        return made

    def windows(self, window: int) -> int:
        """Return how many windows of `window` inputs the shard holds; the last may be short and is padded."""
        return max(0, -(-(self.tokens - 1) // window))


def read_manifest(store: Store, key: str, sha: str | None = None) -> Manifest:
    """Read a manifest, checked against `sha` when it is given; one of format 1 has no blocks and token_offset -1.

    Raises:
        StoreError: it is missing, damaged, or of another format; names the object.
    """
    value = store.get_json(key, sha)
    try:
        if value["format"] == 1:
            return _sound(_first_format(value))
        if value["format"] != FORMAT:
            raise StoreError(
                f"{store.url}/{key}: manifest format {value['format']!r}; this Causeway reads formats 1 and {FORMAT}"
            )
        return _sound(Manifest(**{**value, "blocks": tuple(value["blocks"]), "decision": tuple(value["decision"])}))
    except (TypeError, KeyError) as error:
        raise StoreError(f"{store.url}/{key}: damaged: not a shard manifest ({error})") from error


def _sound(manifest: Manifest) -> Manifest:
    """Return the manifest; what reads it relies on the types of its fields."""
    for name in _TEXTS:
        if not isinstance(getattr(manifest, name), str):
            raise TypeError(f"{name} is no text")
    for name in _COUNTS:
        if type(getattr(manifest, name)) is not int:
            raise TypeError(f"{name} is no whole number")
    words = (*manifest.blocks, *manifest.decision)
    if manifest.block_bytes < 1 or manifest.split not in SPLITS or not all(isinstance(w, str) for w in words):
        raise TypeError("block_bytes, blocks, split or decision is not what it may be")
    return manifest


def _first_format(value: dict[str, Any]) -> Manifest:
    known = {name: v for name, v in value.items() if name != "site"}
    later: dict[str, Any] = {
        "part": 0,
        "parts": 1,
        "block_bytes": BLOCK_BYTES,
        "blocks": (),
        "token_offset": -1,
        "mask_offset": None,
    }
    later |= {"loss_mask": False, "decision": tuple(value["decision"]), "recorded_sha": document_sha(value)}
    return Manifest(**{**known, **later})


@dataclass(frozen=True)
class ShardRef:
    """How a data set version names a shard: everything that is needed to find it, check it and count its windows.

    `arrow_bytes` is the size of the Arrow file; 0 in versions of formats 1 and 2, which did not record it.
    """

    region: str
    split: Split
    key: str
    manifest_sha256: str
    arrow_sha256: str
    arrow_bytes: int
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
            region=m.region,
            split=m.split,
            key=m.key,
            manifest_sha256=m.sha,
            arrow_sha256=m.arrow_sha256,
            arrow_bytes=m.arrow_bytes,
            tokens=m.tokens,
            records=m.records,
            text_bytes=m.text_bytes,
            partition=m.partition,
            ingest_id=m.ingest_id,
        )

    @property
    def arrow_key(self) -> str:
        """Key of the Arrow file in the region's store."""
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
    # Of a version that was read in an older format: its name, by which its runs draw their order.
    recorded_sha: str = field(default="", repr=False, compare=False)

    def document(self) -> dict[str, Any]:
        """Return the version as its JSON value; partitions and shards are sorted."""
        made = {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "partitions": sorted(self.partitions, key=lambda p: str(p["partition"])),
            "shards": sorted((dict(vars(s)) for s in self.shards), key=lambda s: (str(s["key"]), str(s["region"]))),
        }
        del made["recorded_sha"]
        return made

    @cached_property
    def sha(self) -> str:
        """SHA-256 of the canonical JSON: the version's name."""
        return self.recorded_sha or document_sha(self.document())

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
    older = {"arrow_bytes": 0} if value["format"] < VERSION_FORMAT else {}
    shards = tuple(ShardRef(**{**older, **{n: v for n, v in s.items() if n != "site"}}) for s in value["shards"])
    recorded = sha if value["format"] < VERSION_FORMAT else ""
    return DatasetVersion(
        **{**value, "partitions": tuple(value["partitions"]), "shards": shards, "recorded_sha": recorded}
    )
