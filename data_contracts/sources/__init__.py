"""Sources: files of many formats, read as Arrow batches under a contract."""

from __future__ import annotations

from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.sources.records import Source, SourceFile, SourcePartition, source_schema

__all__ = ["Source", "SourceFile", "SourcePartition", "open_source", "source_schema"]

_FORMATS = ("csv", "jsonl", "parquet", "python-environment", "text", "xml")


def open_source(contract: Contract, location: str) -> Source:
    """Open the data of a contract: a folder or file, or 'env:' for the packages of a Python environment.

    Raises:
        ContractError: the contract's reader names no known format, or lacks a setting.
        DataRefused: nothing is there.
    """
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
    raise ContractError(f"{contract.path}: reader.format: {form!r}; it is one of {', '.join(_FORMATS)}")
