"""HTML files as a source: what a reader sees of an element, without scripts, styles and hidden parts.

Nothing is fetched. The parser takes any bytes that decode; damage of the markup is repaired as browsers do.
Source: HTML Living Standard, sections 15.3 (what is not rendered) and 13.2.3 (encoding).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from lxml import etree

from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.sources import decoding, opening
from data_contracts.sources.decoding import Encoding
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition
from data_contracts.sources.xml_files import check_paths

_UNSEEN = frozenset(
    ("script", "style", "template", "noscript", "head", "iframe", "object", "svg", "math", "select", "textarea")
)
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body br caption center dd details dialog div dl dt fieldset figcaption figure"
        " footer form h1 h2 h3 h4 h5 h6 header hr html legend li main nav ol p pre section summary table tbody tfoot"
        " thead title tr ul",
    )
)
_CELLS = frozenset(("td", "th"))
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_DECLARED = re.compile(rb"^\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{1,40})[\"']")


class HtmlFiles:
    """Files (default `**/*.html` and `**/*.htm`) with `reader.record` and `reader.fields`, paths as in format xml.

    Without `reader.record`, or with `$`, the document is the record; without `fields` its text is the column that the
    terms name. The text of an element is what is seen of it, a block on lines of its own.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        reader = contract.reader
        self.contract = contract
        self.record = _plain(str(reader.get("record", ".")))
        self.fields = {str(n): _plain(str(p)) for n, p in (reader.get("fields") or {contract.terms.text: "."}).items()}
        unknown = set(self.fields) - {prop.name for prop in contract.properties}
        if unknown:
            raise ContractError(
                f"{contract.path}: reader.fields: the schema has no column {', '.join(sorted(unknown))}"
            )
        check_paths(contract, self.record, self.fields)
        self.layout = FileLayout.of(contract, location, "**/*.html", "**/*.htm", packed=True)
        self.stated = reader.get("encoding")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield the records, numbered from 1 in each file; a file that cannot be decoded is one record with that fault.

        Raises:
            DataRefused: a file cannot be read, or is larger than 256 MiB.
        """
        return self.layout.batches(self._records(partition))

    def _records(self, partition: SourcePartition) -> Iterator[RawRecord]:
        for file in partition.files:
            columns = self.layout.columns(file.name, partition.value)
            data = opening.whole(file, self.layout.limit)
            try:
                root = _parsed(self._text(file, data))
            except ValueError as error:
                yield RawRecord(file.name, 1, columns, f"not usable HTML: {error}", data)
                continue
            for number, element in enumerate(_elements(root, root, self.record), start=1):
                values: dict[str, Any] = dict(columns)
                values.update({name: _value(root, element, path) for name, path in self.fields.items()})
                yield RawRecord(file.name, number, values)

    def _text(self, file: SourceFile, data: bytes) -> str:
        encoding = self.layout.encoding(file)
        if self.stated is None and encoding.known == "stated":
            # The document says what it is, if it does, in its first kilobyte.
            said = _DECLARED.search(data[:1024]) or _CHARSET.search(data[:4096])
            if said is not None:
                try:
                    encoding = Encoding(_codec(said[1].decode()))
                except LookupError as error:
                    raise ValueError(str(error)) from error
        return decoding.decoded(b"".join(decoding.utf8_blocks(io.BytesIO(data), encoding)), encoding)


def _codec(name: str) -> str:
    import codecs

    # The names that browsers take for Windows-1252 and GB18030.
    wider = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}
    found = codecs.lookup(name).name
    return wider.get(found, found)


def _plain(path: str) -> str:
    return path.removeprefix("$.").removeprefix("$") or "."


def _parsed(text: str) -> etree._Element:
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(text.encode("utf-8"), parser)
    except etree.LxmlError as error:
        raise ValueError(str(error)) from error
    if root is None:
        raise ValueError("there is no element")
    return root


def _elements(root: etree._Element, base: etree._Element, path: str) -> list[etree._Element]:
    if path in ("", "."):
        return [base]
    if path.startswith("//"):
        return root.findall("." + path)
    if path.startswith("/"):
        first, _, rest = path[1:].partition("/")
        if first not in ("*", root.tag):
            return []
        return root.findall(rest) if rest else [root]
    return base.findall(path)


def _value(root: etree._Element, record: etree._Element, path: str) -> str | None:
    if path.startswith("@"):
        value = record.get(path[1:])
        return None if value is None else str(value)
    where, at, attribute = path.rpartition("/@")
    if at:
        found = [str(v) for element in _elements(root, record, where) if (v := element.get(attribute)) is not None]
    else:
        found = [seen_text(element) for element in _elements(root, record, path.removesuffix("/text()"))]
    return "\n".join(found) if found else None


def seen_text(element: etree._Element) -> str:
    """Return what is seen of an element: blanks run together, blocks on their own lines, cells apart by a tab.

    Scripts, styles, the head and what its own style hides are left out, unless the element itself is one of them.
    """
    parts: list[str] = []
    # A stack of (what to do, element): documents may be nested deeper than Python calls.
    stack: list[tuple[bool, etree._Element]] = [(True, element)]
    while stack:
        entering, node = stack.pop()
        tag = node.tag if isinstance(node.tag, str) else ""
        if entering:
            hidden = node is not element and (tag in _UNSEEN or _hidden(node))
            if tag in _BLOCKS:
                parts.append("\n")
            elif tag in _CELLS:
                parts.append("\t")
            stack.append((False, node))
            if not hidden:
                parts.append(_BLANKS.sub(" ", node.text or ""))
                stack.extend((True, child) for child in reversed(node))
        else:
            if tag in _BLOCKS:
                parts.append("\n")
            if node is not element:
                parts.append(_BLANKS.sub(" ", node.tail or ""))
    rows = (_CELL.sub("\t", _BLANKS_IN_LINE.sub(" ", row)).strip() for row in "".join(parts).split("\n"))
    return "\n".join(row for row in rows if row)


def _hidden(element: etree._Element) -> bool:
    style = element.get("style")
    return element.get("hidden") is not None or (style is not None and _HIDDEN.search(str(style)) is not None)


_BLANKS = re.compile(r"[ \t\r\n\f]+")
_BLANKS_IN_LINE = re.compile(r" {2,}")
_CELL = re.compile(r" *\t[ \t]*")
