"""Is a shard what its manifest says, may it lie there, and are its records the curated rows it names?

The bytes are hashed as they are read. The records of a unit are compared with the tables by a keyed sum over their
ids (Clarke et al., "Incremental multiset hash functions", 2003): one number a unit, whatever its size. Only where it
differs are the ids themselves compared, to name them.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError
from data_contracts.policy import Purpose
from data_contracts.terms import TrainingTerms
from training.shards.curated_ids import CuratedIds, Sum
from training.shards.manifest import Manifest
from training.shards.placement import may_hold
from training.shards.writer import buffer_offsets, open_shard
from training.sites import Region, Site
from training.workspace import today

# Every shard is hashed as a whole; of its blocks one in so many, drawn anew each time, is compared with its own hash.
# A block that is wrong in a manifest whose whole is right was never written so by us, and stops a loader, no more.
_BLOCK_SAMPLE = 64
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Lying:
    """A manifest as it lies in a region's store, whatever it says itself."""

    region: str
    store: Store
    key: str
    manifest: Manifest

    @property
    def arrow_key(self) -> str:
        """The Arrow file beside it, wherever the two were moved to: manifest and file are one object."""
        return f"{self.key.rpartition('/')[0]}/{self.manifest.arrow_sha256}.arrow"

    @property
    def unit(self) -> tuple[str, ...]:
        """What the shards of one unit have in common: together they hold its records."""
        m = self.manifest
        return (
            self.region,
            m.dataset,
            m.partition,
            m.ingest_id,
            m.split,
            m.curation_id,
            m.tokenizer,
            m.terms_sha,
            m.purpose,
            str(m.parts),
        )


@dataclass(frozen=True)
class Content:
    """What reading a shard's Arrow file found: what is wrong with it, and the sum of its record ids."""

    problems: tuple[str, ...]
    ids: Sum | None = None


def misfits(key: str, manifest: Manifest, region: str) -> Iterator[str]:
    """Yield why a manifest may not lie under this key in this region: a sentence each."""
    if manifest.key != key:
        yield f"its name is not that of its content, {manifest.key}: it was changed or moved."
    if manifest.region != region:
        yield f"its manifest says region {manifest.region}, and it lies in {region}."


def unlawful(manifest: Manifest, terms: Mapping[str, TrainingTerms], where: Site | Region) -> Iterator[str]:
    """Yield why the terms in force, by data set, do not let a shard lie there."""
    held = terms.get(manifest.dataset)
    if held is None:
        yield f"{manifest.dataset}: no terms are in force for it."
        return
    try:
        purpose = Purpose.parse(manifest.purpose)
    except CausewayError as error:
        yield str(error)
        return
    asked = purpose if manifest.split == "train" else Purpose("evaluation", purpose.use)
    decision = may_hold(held, asked, where, today())
    if not decision.allowed:
        yield from decision.reasons


def read_content(lying: Lying, ids: CuratedIds, progress: Callable[[int], None] = lambda size: None) -> Content:
    """Read a shard's Arrow file once: its bytes against the hashes, then its parts against the manifest.

    A file of a remote store comes to a temporary folder first. `progress` is told how many bytes were read.
    """
    try:
        if lying.store.root is not None:
            return _content(lying.store.path(lying.arrow_key), lying, ids, progress)
        with tempfile.TemporaryDirectory(prefix="causeway-verify-") as folder:
            path = Path(folder) / "shard.arrow"
            size = lying.store.size(lying.arrow_key)
            lying.store.fetch(lying.arrow_key, path, lying.manifest.arrow_sha256, size, progress)
            return _content(path, lying, ids, lambda size: None)
    except FileNotFoundError:
        url = f"{lying.store.url}/{lying.arrow_key}"
        return Content((f"{url}: no such object: its Arrow file is missing; restore it or shard the data set again.",))
    except OSError as error:
        return Content((f"its Arrow file cannot be read: {error.strerror}; restore it or shard the data set again.",))
    except CausewayError as error:
        return Content((str(error),))


def _content(path: Path, lying: Lying, ids: CuratedIds, progress: Callable[[int], None]) -> Content:
    m = lying.manifest
    wrong = tuple(_wrong_bytes(path, m, progress))
    if wrong:
        return Content(wrong)
    shard = open_shard(path)
    offsets = shard.offsets
    counts: dict[str, tuple[Any, Any]] = {
        "tokens": (len(shard.tokens), m.tokens),
        "records": (shard.table.num_rows, m.records),
        "text_bytes": (int(shard.text_bytes.sum()), m.text_bytes),
        "loss_mask": (shard.mask is not None, m.loss_mask),
        "token_dtype": (shard.tokens.dtype.name, m.token_dtype),
    }
    if m.format > 1:
        places = buffer_offsets(path)
        counts |= {"token_offset": (places[0], m.token_offset), "mask_offset": (places[1], m.mask_offset)}
    problems = [
        f"its manifest says {name} {said}, its file has {has}." for name, (has, said) in counts.items() if has != said
    ]
    if offsets[0] != 0 or offsets[-1] != len(shard.tokens) or (np.diff(offsets) < 1).any():
        problems.append("its record boundaries do not cut its tokens into records.")
    return Content(tuple(problems), ids.add([ids.sum_of(chunk) for chunk in shard.table.column("record_id").chunks]))


def _wrong_bytes(path: Path, m: Manifest, progress: Callable[[int], None]) -> Iterator[str]:
    """Hash the file while it is read; where it is not what the manifest names, say which bytes."""
    whole, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    draw, number, false_blocks, size = random.Random(), 0, [], 0
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer):
            whole.update(buffer[:read])
            size += read
            progress(read)
            for start in range(0, read if m.blocks else 0, m.block_bytes):
                if number < len(m.blocks) and draw.randrange(_BLOCK_SAMPLE) == 0:
                    found = hashlib.sha256(buffer[start : min(start + m.block_bytes, read)]).hexdigest()
                    false_blocks += [number] if found != m.blocks[number] else []
                number += 1
    if whole.hexdigest() != m.arrow_sha256:
        where = "".join(_damaged_blocks(path, m))
        yield f"its Arrow file is damaged: sha256 is {whole.hexdigest()}, recorded as {m.arrow_sha256}{where}."
    elif size != m.arrow_bytes or (m.blocks and len(m.blocks) != -(-size // m.block_bytes)):
        yield f"its manifest says {m.arrow_bytes} bytes in {len(m.blocks)} blocks, its file has {size}."
    elif false_blocks:
        yield f"its manifest names other bytes for block {false_blocks[0]} than its file has; shard it again."


def _damaged_blocks(path: Path, m: Manifest) -> Iterator[str]:
    with path.open("rb") as file:
        wrong = [n for n, sha in enumerate(m.blocks) if hashlib.sha256(file.read(m.block_bytes)).hexdigest() != sha]
    if wrong:
        first, last = wrong[0] * m.block_bytes, min((wrong[-1] + 1) * m.block_bytes, m.arrow_bytes)
        yield f"; {len(wrong)} of {len(m.blocks)} blocks differ, within bytes {first} to {last}"


def misplaced_records(unit: Sequence[Lying], contents: Sequence[Content], ids: CuratedIds) -> list[list[str]]:
    """Return, for each shard of one unit, what is wrong with its records: strangers, or rows that are missing.

    `contents` are those of the same shards. Shards whose bytes are wrong are passed over.
    """
    problems: list[list[str]] = [[] for _ in unit]
    m = unit[0].manifest
    try:
        expected = ids.sums(m.dataset, m.ingest_id, m.curation_id)
        if expected is None:
            return [[f"its partition version {m.ingest_id[:12]} is not in the tables."] for _ in unit]
        whole = sorted(one.manifest.part for one in unit) == list(range(m.parts))
        sound = all(not c.problems for c in contents)
        if whole and sound and ids.add([c.ids for c in contents]) == expected.get(m.split, Sum(0, 0)):
            return problems
        curated = ids.of(m.dataset, m.ingest_id, m.curation_id, m.split)
        seen = 0
        for found, lying, content in zip(problems, unit, contents, strict=True):
            if not content.problems:
                names = _ids_of(lying)
                strange = names.filter(pc.invert(pc.is_in(names, curated)))
                seen += len(names) - len(strange)
                if len(strange):
                    first = sorted(strange.to_pylist())[0]
                    found.append(f"{len(strange)} records are not curated {m.split} rows, the first {first}.")
        if not whole:
            there = ", ".join(str(one.manifest.part) for one in unit)
            problems[0].append(f"of the {m.parts} shards of its unit only number {there} is there.")
        elif sound and seen != len(curated):
            problems[0].append(f"{len(curated)} {m.split} rows are curated, and its unit has {seen} of them.")
    except CausewayError as error:
        return [[str(error)] for _ in unit]
    return problems


def _ids_of(lying: Lying) -> pa.StringArray:
    def ids(path: Path) -> pa.StringArray:
        names = open_shard(path).table.column("record_id")
        return pa.concat_arrays([pa.array([], pa.string()), *names.chunks])

    if lying.store.root is not None:
        return ids(lying.store.path(lying.arrow_key))
    with tempfile.TemporaryDirectory(prefix="causeway-verify-") as folder:
        path = Path(folder) / "shard.arrow"
        size = lying.store.size(lying.arrow_key)
        lying.store.fetch(lying.arrow_key, path, lying.manifest.arrow_sha256, size)
        return ids(path)
