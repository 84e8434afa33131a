"""Text of any encoding as UTF-8 blocks and lines, streamed.

Bytes that a file's encoding cannot decode stay in the blocks as what no UTF-8 decoder accepts (a surrogate for each
byte), so that the damage costs the record they stand in and `original` can give that record's bytes back.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from data_contracts.errors import DataRefused
from data_contracts.sources.opening import BLOCK_BYTES, MOST_RECORD_BYTES, opened
from data_contracts.sources.records import SourceFile

_KEEP = "causeway-keep"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def _keep(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode a byte as the surrogate U+DC00 + byte, and encode such a surrogate as its byte."""
    if isinstance(error, UnicodeDecodeError):
        return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end
    if isinstance(error, UnicodeEncodeError):
        lost = error.object[error.start : error.end]
        return bytes(ord(c) - 0xDC00 if 0xDC00 <= ord(c) <= 0xDCFF else 0x3F for c in lost), error.end
    raise error


codecs.register_error(_KEEP, _keep)


@dataclass(frozen=True)
class Encoding:
    """A file's encoding: the codec's name, how many bytes of a byte order mark precede the text, how it is known."""

    codec: str
    mark: int = 0
    known: str = "stated"

    @property
    def is_utf8(self) -> bool:
        """Say whether the bytes need no conversion."""
        return codecs.lookup(self.codec).name in ("utf-8", "ascii")


def encoding_of(file: SourceFile, stated: str, limit: float) -> Encoding:
    """Return a file's encoding: that of its byte order mark, else the stated one, or what `detect` finds.

    Raises:
        DataRefused: as for `opened`.
    """
    with opened(file, limit) as stream:
        head = stream.read(4)
        for mark, codec in _MARKS:
            if head.startswith(mark):
                return Encoding(codec, len(mark), "byte order mark")
        if stated != "detect":
            # utf-8-sig would take a mark that is not there; utf-16 without one is little-endian to Python.
            name = codecs.lookup(stated).name
            plain = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name)
            return Encoding("utf-8" if plain == "ascii" else plain)
        return Encoding(_detected(head, stream), 0, "detected")


def _detected(head: bytes, stream: IO[bytes]) -> str:
    """Tell UTF-8, UTF-16 without a mark, GB18030 and Windows-1252 apart, over the whole file.

    Damage does not change the answer: a file with ten good sequences of UTF-8 for each bad byte is UTF-8.
    """
    if len(head) >= 2 and head[:2].count(0) == 1:
        return "utf-16-le" if head[1] == 0 else "utf-16-be"
    decoders = {name: codecs.getincrementaldecoder(name)("replace") for name in ("utf-8", "gb18030")}
    bad = dict.fromkeys(decoders, 0)
    wide = dict.fromkeys(decoders, 0)
    hanzi = 0
    block = head
    while True:
        for name, decoder in decoders.items():
            text = decoder.decode(block, final=not block)
            if text.isascii():
                continue
            points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
            lost = points == 0xFFFD
            # A replacement character may also be written as such.
            bad[name] += max(
                0, int(lost.sum()) - block.count(b"\xef\xbf\xbd" if name == "utf-8" else b"\x84\x31\xa4\x37")
            )
            wide[name] += int(((points > 0x7F) & ~lost).sum())
            if name == "gb18030":
                hanzi += int(_COMMON[points[points < len(_COMMON)]].sum())
        if not block:
            break
        block = stream.read(1 << 20)
    if not bad["utf-8"] or wide["utf-8"] > 10 * bad["utf-8"]:
        return "utf-8"
    # Western text read as GB18030 gives rare characters; Chinese text is nearly all common ones and punctuation.
    if hanzi > 0.7 * wide["gb18030"] and hanzi > 10 * bad["gb18030"]:
        return "gb18030"
    return "cp1252"


_LOST = re.compile("[\udc00-\udcff]")


def _common() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the 3,755 characters of the first level of GB 2312 (rows 16 to 55), and Chinese punctuation."""
    level_1 = b"".join(bytes((high, low)) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    marked = np.zeros(0x10000, dtype=np.bool_)
    marked[[ord(c) for c in level_1.decode("gb2312", "ignore")]] = True
    for first, last in ((0x2014, 0x2014), (0x2018, 0x201D), (0x2026, 0x2026), (0x3000, 0x3011), (0xFF01, 0xFF5E)):
        marked[first : last + 1] = True
    return marked


_COMMON = _common()


def utf8_blocks(stream: IO[bytes], encoding: Encoding, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the text as UTF-8, without its byte order mark, in blocks that end anywhere."""
    stream.read(encoding.mark)
    if encoding.is_utf8:
        while block := stream.read(size):
            yield block
        return
    decoder = codecs.getincrementaldecoder(encoding.codec)(_errors(encoding.codec))
    while block := stream.read(size):
        if text := decoder.decode(block):
            yield text.encode("utf-8", "surrogatepass")
    if text := decoder.decode(b"", final=True):
        yield text.encode("utf-8", "surrogatepass")


def _errors(codec: str) -> str:
    # Python's own handler is faster, and knows bytes above 0x7F only: of UTF-16 and UTF-32 any byte may be lost.
    return _KEEP if codecs.lookup(codec).name.startswith(("utf-16", "utf-32", "utf-7")) else "surrogateescape"


def original(data: bytes, encoding: Encoding) -> bytes:
    """Return a part of a UTF-8 block as the file has it."""
    if encoding.is_utf8:
        return data
    try:
        return data.decode("utf-8", "surrogatepass").encode(encoding.codec, _KEEP)
    except UnicodeError:
        return data


def decoded(data: bytes, encoding: Encoding) -> str:
    """Return a part of a UTF-8 block as text.

    Raises:
        ValueError: it holds bytes that are not of the file's encoding; names the first.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if encoding.is_utf8:
            found, where = data[error.start], f" at byte {error.start}"
        else:
            lost = _LOST.search(data.decode("utf-8", "surrogatepass"))
            found, where = (ord(lost[0]) - 0xDC00 if lost else 0), ""
        raise ValueError(f"not {encoding.codec}: 0x{found:02x}{where}") from error


def lines(blocks: Iterator[bytes], end: str = "auto") -> Iterator[tuple[bytes, bytes]]:
    """Yield the lines of a text as (line, its end); `end` is auto (LF, CRLF or CR, even mixed), lf, crlf or cr.

    Raises:
        DataRefused: a line of more than 64 MiB.
    """
    carry = b""
    for block in blocks:
        data = carry + block if carry else block
        # A CR at the end of a block may be half of a CRLF.
        parts = _split(data, end)
        carry = parts.pop() if parts and not _ended(parts[-1], end) else b""
        if len(carry) > MOST_RECORD_BYTES:
            raise DataRefused(
                f"a line of more than {MOST_RECORD_BYTES >> 20} MiB, which is no line; check reader.lineEnd and format"
            )
        for part in parts:
            yield _parted(part, end)
    for part in _split(carry, end):
        yield _parted(part, end)


def _split(data: bytes, end: str) -> list[bytes]:
    if end == "auto":
        return data.splitlines(keepends=True)
    mark = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}[end]
    parts = [part + mark for part in data.split(mark)]
    last = parts.pop()[: -len(mark)]
    return [*parts, last] if last else parts


def _ended(part: bytes, end: str) -> bool:
    return part.endswith({"auto": b"\n", "lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}[end])


def _parted(part: bytes, end: str) -> tuple[bytes, bytes]:
    if end == "auto":
        # Only one end belongs to the line: a second CR before CRLF is data of nobody, yet not lost.
        mark = b"\r\n" if part.endswith(b"\r\n") else part[-1:] if part[-1:] in (b"\r", b"\n") else b""
        return part[: len(part) - len(mark)], mark
    mark = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}[end]
    return (part[: -len(mark)], mark) if part.endswith(mark) else (part, b"")
