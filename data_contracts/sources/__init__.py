"""Sources: files of many formats, read as Arrow batches under a contract."""

from __future__ import annotations

from pathlib import Path

from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.reader import FORMATS
from data_contracts.sources.records import Source, SourceFile, SourcePartition, source_schema

__all__ = ["Source", "SourceFile", "SourcePartition", "open_source", "place_of", "source_schema"]


def open_source(contract: Contract, location: str) -> Source:
    """Open the data of a contract at a location: a folder, a file, or what docs/sources.md lists.

    Raises:
        ContractError: the contract's reader names no known format, or lacks a setting.
        DataRefused: nothing is there.
    """
    source = _opened(contract, location)
    if (contract.reader.get("partition") or {}).get("from") == "column":
        from data_contracts.sources.spooled import Spooled

        if not isinstance(source, Spooled):
            return Spooled.of(contract, source)
    return source


def place_of(location: str) -> str:
    """Return a location as it is registered: a path made absolute, anything else as it stands."""
    return location if ":" in location.split("/", 1)[0] else str(Path(location).absolute())


def _opened(contract: Contract, location: str) -> Source:
    form = contract.reader.get("format")
    if form == "python-environment":
        from data_contracts.sources.python_environment import PythonEnvironment

        return PythonEnvironment(contract, location)
    if form == "xml":
        from data_contracts.sources.xml_files import XmlFiles

        return XmlFiles(contract, location)
    if form == "text":
        from data_contracts.sources.text_files import TextFiles

        return TextFiles(contract, location)
    if form == "csv":
        from data_contracts.sources.csv_files import CsvFiles

        return CsvFiles(contract, location)
    if form == "jsonl":
        from data_contracts.sources.json_lines import JsonLines

        return JsonLines(contract, location)
    if form == "parquet":
        from data_contracts.sources.parquet_files import ParquetFiles

        return ParquetFiles(contract, location)
    raise ContractError(f"{contract.path}: reader.format: {form!r}; it is one of {', '.join(FORMATS)}")
