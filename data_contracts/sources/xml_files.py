"""XML files as a source: one element is one record. Nothing is fetched or expanded, and a DTD is refused.

Sources: XML 1.0 (fifth edition); a DTD is how entity expansion ("billion laughs") and external entities get in.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.sources import decoding, opening
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition


class XmlFiles:
    """Files (default `**/*.xml`) with `reader.record`, the path of a record, and `reader.fields`, column -> path.

    A field's path is relative to the record ('Answer', 'Question/@qid', '@pid') or starts at the root
    ('/Document/@url'). Several elements at one path give their texts on lines of their own; none gives null.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        reader = contract.reader
        fields = reader.get("fields")
        if not isinstance(reader.get("record"), str) or not isinstance(fields, Mapping) or not fields:
            raise ContractError(
                f"{contract.path}: reader: format xml needs 'record' (a path) and 'fields' (column: path)"
            )
        unknown = set(fields) - {prop.name for prop in contract.properties}
        if unknown:
            raise ContractError(
                f"{contract.path}: reader.fields: the schema has no column {', '.join(sorted(unknown))}"
            )
        self.record = str(reader["record"])
        self.fields = {str(name): str(path) for name, path in fields.items()}
        check_paths(contract, self.record, self.fields)
        self.layout = FileLayout.of(contract, location, "**/*.xml", packed=True)
        self.stated = reader.get("encoding")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield the records; a file that is not well-formed, or has a DTD, is one record with that fault."""
        return self.layout.batches(self._records(partition))

    def _records(self, partition: SourcePartition) -> Iterator[RawRecord]:
        for file in partition.files:
            columns = self.layout.columns(file.name, partition.value)
            data = opening.whole(file, self.layout.limit)
            try:
                root = parse(*self._text(file, data))
            except (expat.ExpatError, ValueError, LookupError) as error:
                yield RawRecord(file.name, 1, columns, f"not usable XML: {error}", data)
                continue
            for number, element in enumerate(elements(root, root, self.record), start=1):
                values: dict[str, Any] = dict(columns)
                values.update({name: value_of(root, element, path) for name, path in self.fields.items()})
                yield RawRecord(file.name, number, values)

    def _text(self, file: SourceFile, data: bytes) -> tuple[bytes, str | None]:
        """Return a document's bytes, in UTF-8 where the contract states an encoding: else it says its own."""
        if self.stated is None:
            return data, None
        encoding = self.layout.encoding(file)
        text = b"".join(decoding.utf8_blocks(io.BytesIO(data), encoding))
        return decoding.decoded(text, encoding).encode(), "utf-8"


def parse(data: bytes, encoding: str | None = None) -> ElementTree.Element:
    """Parse XML bytes into a tree; `encoding` overrules what the document says of itself.

    Raises:
        ExpatError: not well-formed.
        ValueError: there is a document type declaration.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(encoding, namespace_separator="}")
    parser.buffer_text = True

    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber}: a DTD (<!DOCTYPE {name}>), which is refused; remove it")

    def name_of(name: str) -> str:
        return "{" + name if "}" in name else name

    def start(name: str, attributes: dict[str, str]) -> None:
        builder.start(name_of(name), {name_of(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        builder.end(name_of(name))

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def check_paths(contract: Contract, record: str, fields: Mapping[str, str]) -> None:
    """Try the paths on an empty document.

    Raises:
        ContractError: one is none.
    """
    empty = ElementTree.Element("none")
    for name, path in [("record", record), *((f"fields.{name}", path) for name, path in fields.items())]:
        try:
            value_of(empty, empty, path)
            # A path from the root is only parsed where its first step leads somewhere.
            where = path if "/@" not in path else path.rpartition("/@")[0]
            empty.findall(where.lstrip("/") or ".") if not where.startswith("@") else None
        except (SyntaxError, KeyError, ValueError) as error:
            raise ContractError(f"{contract.path}: reader.{name}: {path!r} is no path: {error}; correct it") from error


def elements(root: ElementTree.Element, base: ElementTree.Element, path: str) -> list[ElementTree.Element]:
    """Return the elements at a path from a base, or from the root where the path starts with '/'."""
    if path.startswith("/") and not path.startswith("//"):
        first, _, rest = path[1:].partition("/")
        if first not in ("*", root.tag):
            return []
        return root.findall(rest) if rest else [root]
    return base.findall(path) if path not in ("", ".") else [base]


def value_of(root: ElementTree.Element, record: ElementTree.Element, path: str) -> str | None:
    """Return the text or attribute at a path: several on lines of their own, None when there is none."""
    if path.startswith("@"):
        return record.get(path[1:])
    where, at, attribute = path.rpartition("/@")
    if at:
        found = [value for element in elements(root, record, where) if (value := element.get(attribute)) is not None]
    else:
        found = ["".join(element.itertext()).strip() for element in elements(root, record, path)]
    return "\n".join(found) if found else None
