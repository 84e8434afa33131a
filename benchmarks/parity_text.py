"""Text for the parity benchmark: bytes as tokens, each site its own data sets, held-out blocks that no site sees."""

from __future__ import annotations

import html
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import texts
from data_contracts.canonical import sha256
from data_contracts.errors import CausewayError

VOCABULARY = 257  # ids 1 to 256 are the bytes, as of the project's tokenizer; 0, the end of a text, does not occur
FOLDER = "CAUSEWAY_TEXT"
# Sets of the folder's healthcare, literature and law, a site each; all are free to use.
SETS = (
    ("healthcare/medquad",),
    ("literature/classic_books", "literature/tinyshakespeare"),
    ("law_government/german_civil_code",),
    ("literature/wikitext2",),
)
_BLOCK, _EVERY = 32, 20  # windows in a block; one block of twenty is held out
_ANSWER = re.compile(r"<Answer>(.*?)</Answer>", re.DOTALL)

Windows = NDArray[np.uint16]


@dataclass(frozen=True)
class Text:
    """Windows [N, L + 1] of each site, for training and held out; `name` says whose text, `sha` which bytes."""

    name: str
    sha: str
    train: tuple[Windows, ...]
    held_out: tuple[Windows, ...]


def load_text(sites: int, window: int, mixed: bool = False, generated: bool = False) -> Text:
    """Return the text of two to four sites.

    It is read from the folder that the environment's CAUSEWAY_TEXT names, by default `../shared/data`; where there is
    none, or with `generated`, it is made: words by Zipf's law, other words at each site. `mixed` deals all windows to
    all sites instead: the independent, identically distributed case.

    Raises:
        CausewayError: fewer than two or more than four sites.
    """
    if not 2 <= sites <= len(SETS):
        raise CausewayError(f"parity: {sites} sites, where the benchmark has text for two to {len(SETS)}")
    folder = Path(os.environ.get(FOLDER, Path(__file__).parents[2] / "shared" / "data"))
    real = not generated and all((folder / name).is_dir() for names in SETS[:sites] for name in names)
    if real:
        raw = [b"".join(_read(folder / name) for name in names) for names in SETS[:sites]]
        name = " | ".join(" + ".join(names) for names in SETS[:sites])
    else:
        raw = ["\n".join(texts(400_000, seed=11 + site)).encode() for site in range(sites)]
        name = "generated"
    train, held_out = zip(*(_split(data, window) for data in raw), strict=True)
    if mixed:
        name, train = f"mixed: {name}", _deal(train)
    return Text(name, sha256(b"".join(raw)), train, held_out)


def _read(folder: Path) -> bytes:
    """Return the text of a folder: of .txt files all of it, of .xml files their answers."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".txt", ".xml")):
        content = path.read_bytes()
        if path.suffix == ".xml":
            answers = _ANSWER.findall(content.decode())
            content = "\n".join(" ".join(html.unescape(answer).split()) for answer in answers).encode()
        found.append(content)
    return b"\n".join(found)


def _split(data: bytes, window: int) -> tuple[Windows, Windows]:
    count = len(data) // (window + 1)
    windows = np.frombuffer(data, np.uint8)[: count * (window + 1)].reshape(count, window + 1).astype(np.uint16) + 1
    out = np.arange(count) // _BLOCK % _EVERY == _EVERY // 2
    return windows[~out], windows[out]


def _deal(train: tuple[Windows, ...]) -> tuple[Windows, ...]:
    least = min(map(len, train))
    pool = np.concatenate([windows[:least] for windows in train])
    pool = pool[np.random.Generator(np.random.PCG64(0)).permutation(len(pool))]
    return tuple(pool[site :: len(train)] for site in range(len(train)))
