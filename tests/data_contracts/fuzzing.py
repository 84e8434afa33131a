"""Damaged sources and contracts, at random: only a `CausewayError` may be raised, and no record may get lost.

    python -m tests.data_contracts.fuzzing --seconds 300 --reader csv --seed 1
    python -m tests.data_contracts.fuzzing --seconds 300          # each reader and the contracts, 300 s each

Each case damages one of the sources of `fuzz_targets` (bytes changed, cut, doubled, spliced with words that parsers
trip over) and reads it as an ingest would. A case that breaks a rule is kept as a file and named, with its seed.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract, load_contract
from data_contracts.errors import CausewayError
from data_contracts.sources import open_source
from data_contracts.sources.records import SOURCE_FILE, SOURCE_LINE
from data_contracts.validation import validate
from tests.data_contracts.fuzz_targets import COLUMNS, TARGETS, Target, marked
from tests.data_contracts.making import SECRET, make_contract

# Far above what a case takes: a hang is what never ends, and a leak what grows with every case.
MOST_SECONDS = 20
MOST_GROWTH_MB = 1500
LIBRARY = Path(__file__).parents[2] / "data_contracts" / "library"

WORDS = [
    *(
        b'"',
        b'""',
        b"'",
        b",",
        b"\n",
        b"\r",
        b"\r\n",
        b"\x00",
        b"\\",
        b"\xff",
        b"\xed\xb0\x80",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b"NaN",
        b"1e999",
        b"-0",
        b"9" * 400,
        b"\\ud800",
        b"[" * 3000,
        b'{"a":' * 900,
    ),
    *(
        b"<",
        b">",
        b"&#0;",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"<![CDATA[",
        b"<a>" * 3000,
        b"</",
        b"%",
        b"\x1f\x8b",
        b"PK\x03\x04",
    ),
    *(
        b"2024-13-45",
        b"0001-01-01",
        b"9999-12-31T23:59:60Z",
        b"true",
        b"inf",
        b"\xf4\x90\x80\x80",
        b" ",
        b"\t",
        b"\xc2\x85",
    ),
]
YAML_WORDS = [
    *(
        b"&a ",
        b"*a",
        b"!!python/object:os.system",
        b"<<: ",
        b"? ",
        b"- ",
        b": ",
        b"{}",
        b"[]",
        b"null",
        b"~",
        b"true",
        b".nan",
    ),
    *(
        b".inf",
        b"1e999",
        b"0x",
        b"\t",
        b"%YAML 9.9\n",
        b"---\n",
        b"...\n",
        b"|\n",
        b">-\n",
        b"'",
        b'"',
        b"#",
        b"@",
        b"`",
        b"\x00",
    ),
    *(
        b"[" * 2000,
        b"{a: " * 500,
        b"!tag ",
        b"2024-99-99",
        b"(?P<x>",
        b"(((((",
        b"(a+)+$",
        b"-1",
        b"1.5",
        b"\xff",
        b"v9.9.9",
    ),
]


def damage(rng: random.Random, data: bytes, words: list[bytes]) -> bytes:
    """Change bytes in one to a handful of places; one case in thirty is left whole."""
    if rng.random() < 1 / 30:
        return data
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, to = sorted(rng.randrange(len(out) + 1) for _ in range(2))
        kind = rng.randrange(7)
        if kind == 0:
            out[at:at] = rng.choice(words)
        elif kind == 1 and len(out):
            out[min(at, len(out) - 1)] = rng.randrange(256)
        elif kind == 2:
            del out[at : min(to, at + rng.choice((1, 3, 40)))]
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[at : min(to, at + 400)]
        elif kind == 5:
            out[at : at + 2] = rng.choice(words)
        else:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 16)))
    return bytes(out)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Break what does not end."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"a case took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(target: Target, contract: Contract, folder: Path, data: bytes) -> int:
    """Read a damaged source as an ingest does; return how many records it gave.

    Raises:
        AssertionError: a record was lost, or numbered twice.
    """
    handed: list[int] = []
    total = 0
    try:
        source = open_source(contract, target.location(folder))
        for part in source.partitions():
            assert len(part.source_sha) == 64
            places: set[tuple[str, int]] = set()
            read = 0

            def batches(part: Any = part, places: set[tuple[str, int]] = places) -> Iterator[pa.RecordBatch]:
                nonlocal read
                for batch in source.read(part):
                    read += len(batch)
                    places.update(
                        zip(batch.column(SOURCE_FILE).to_pylist(), batch.column(SOURCE_LINE).to_pylist(), strict=True)
                    )
                    yield batch

            def keep(table: pa.Table) -> None:
                handed.append(table.num_rows)

            report = validate(contract, batches(), part.value, SECRET, keep, keep)
            assert report.rows_in == report.rows_accepted + report.rows_quarantined == read == sum(handed)
            assert len(places) == read, "two records have one number"
            total += read
            handed.clear()
    except CausewayError as error:
        assert str(error)
        return 0
    if target.count is not None and not marked(data):
        assert total == target.count(data), f"{total} records, {target.count(data)} in the file"
    return total


@cache
def _contract(name: str, place: int) -> Contract:
    with tempfile.TemporaryDirectory() as folder:
        return make_contract(Path(folder), COLUMNS, reader=TARGETS[name][place].reader)


def case_of(name: str, seed: int, folder: Path) -> tuple[int, Path | None]:
    """Run one case of a reader, or of contracts; return how many records it gave and the file that was damaged."""
    rng = random.Random(f"{name} {seed}")
    if name == "contract":
        path = folder / "contract.yaml"
        source = rng.choice(sorted(LIBRARY.glob("*.yaml")))
        path.write_bytes(damage(rng, source.read_bytes(), YAML_WORDS))
        with within(MOST_SECONDS):
            try:
                load_contract(path)
            except CausewayError as error:
                assert str(error)
        return 1, path
    target = rng.choice(TARGETS[name])
    file, data = rng.choice(sorted(target.seeds.items()))
    inside = folder / "in"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    data = damage(rng, data, WORDS)
    (inside / file).write_bytes(data)
    contract = _contract(name, TARGETS[name].index(target))
    with within(MOST_SECONDS):
        return check(target, contract, inside, data), inside / file


def run(name: str, seconds: float, first: int, most: int | None = None) -> tuple[int, int]:
    """Run cases for some time from a seed on; return how many there were, and how many records they gave.

    Raises:
        AssertionError: a case broke a rule; names the seed and keeps its file.
    """
    ends, seed, records = time.monotonic() + seconds, first, 0
    before = _peak_mb()
    with tempfile.TemporaryDirectory(prefix="causeway-fuzz-") as folder:
        while time.monotonic() < ends and (most is None or seed - first < most):
            path: Path | None = None
            try:
                found, path = case_of(name, seed, Path(folder))
                records += found
            except Exception as error:
                kept = Path(tempfile.mkdtemp(prefix="causeway-fuzz-")) / "case"
                shutil.copytree(folder, kept)
                raise AssertionError(
                    f"{name}, seed {seed}: {type(error).__name__}: {error}; its files are kept in {kept}"
                ) from error
            seed += 1
    grown = _peak_mb() - before
    assert grown < MOST_GROWTH_MB, f"{name}: memory grew by {grown:.0f} MB over {seed - first} cases"
    return seed - first, records


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


NAMES = (*TARGETS, "contract")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for each reader")
    parser.add_argument("--reader", choices=NAMES, action="append", help="all when it is not given")
    parser.add_argument("--seed", type=int, default=1, help="of the first case; the next has the next")
    given = parser.parse_args()
    # A library says every damage it meets.
    logging.disable(logging.CRITICAL)
    failed = 0
    for name in given.reader or NAMES:
        try:
            cases, records = run(name, given.seconds, given.seed)
            print(f"{name}: {cases:,} cases, {records:,} records, no rule broken", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"{name}: BROKEN: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
