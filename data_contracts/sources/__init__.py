"""Sources: files of many formats, read as Arrow batches under a contract."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.sources.records import Source, SourceFile, SourcePartition, source_schema

__all__ = ["Source", "SourceFile", "SourcePartition", "open_source", "place_of", "source_schema"]

_NO_PATH = re.compile(r"env:|hf:|[a-z][a-z0-9+]*://")
_READERS = {
    "python-environment": ("python_environment", "PythonEnvironment"),
    "csv": ("csv_files", "CsvFiles"),
    "table": ("table_files", "TableFiles"),
    "jsonl": ("json_lines", "JsonLines"),
    "json": ("json_files", "JsonFiles"),
    "parquet": ("parquet_files", "ParquetFiles"),
    "arrow": ("arrow_files", "ArrowFiles"),
    "text": ("text_files", "TextFiles"),
    "xml": ("xml_files", "XmlFiles"),
    "html": ("html_files", "HtmlFiles"),
    "huggingface": ("hugging_face", "HuggingFace"),
    "sql": ("sql", "SqlQuery"),
}


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
    """Return a location as it is registered: paths made absolute, anything else as it stands."""
    for prefix in ("sqlite:///", "adbc+sqlite:///", "hf:"):
        inner = location.removeprefix(prefix)
        # A name of the hub is told from a folder by what lies here.
        if inner != location and (prefix != "hf:" or Path(inner).exists()):
            return prefix + str(Path(inner).absolute())
    return location if _NO_PATH.match(location) else str(Path(location).absolute())


def _opened(contract: Contract, location: str) -> Source:
    form = str(contract.reader.get("format"))
    if form not in _READERS:
        raise ContractError(f"{contract.path}: reader.format: {form!r}; it is one of {', '.join(_READERS)}")
    module, name = _READERS[form]
    # Only the reader that is needed is imported: some bring large libraries with them.
    made: Source = getattr(importlib.import_module(f"data_contracts.sources.{module}"), name)(contract, location)
    return made
