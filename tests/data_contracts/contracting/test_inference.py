"""A first contract from data: what is guessed, that it is marked, that it holds, and that terms are never guessed."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.contract import Contract, load_contract
from data_contracts.contracting.document import check
from data_contracts.contracting.inference import Inferred, infer
from data_contracts.contracting.profiling import profile
from data_contracts.contracting.trial import Trial, try_contract
from data_contracts.errors import CausewayError, ContractError, DataRefused
from data_contracts.sources import open_source
from tests.data_contracts.making import write_lines


def tried(found: Inferred, source: Path, folder: Path) -> tuple[Contract, Trial]:
    """The guessed contract, tried on what it was guessed from; its undecided terms left out."""
    path = folder / "inferred.yaml"
    path.write_text(found.text.partition("  - property: trainingTerms\n")[0])
    contract = load_contract(path, require_terms=False)
    return contract, try_contract(contract, open_source(contract, str(source)))


def csv_of(folder: Path, rows: int = 60) -> Path:
    lines = ["Incident No,opened,severity,contact e-mail,cost,details"]
    for n in range(rows):
        cost = "n/a" if n == 7 else f"{n * 1.5}"
        kind = "low" if n % 2 else "high"
        lines.append(f"AB-{n:04},2026-03-{n % 28 + 1:02},{kind},p{n}@example.org,{cost},the engine of {n} ran rough")
    path = folder / "incidents.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_types_bounds_keys_and_personal_data_are_guessed_and_hold(tmp_path: Path) -> None:
    path = csv_of(tmp_path)
    contract, trial = tried(infer(path), path, tmp_path)
    assert {p.name: p.logical_type for p in contract.properties} == {
        "Incident_No": "string",
        "opened": "date",
        "severity": "string",
        "contact_e_mail": "string",
        "cost": "number",
        "details": "string",
        "part": "string",
    }
    assert contract.primary_key == ("Incident_No",)
    assert contract.property("Incident_No").physical_name == "Incident No"
    assert contract.property("Incident_No").options == {"pattern": r"^[A-Z]{2}\-\d{4}$"}
    assert contract.property("opened").options == {"minimum": "2026-03-01"}
    assert contract.property("cost").options == {"minimum": 0.0, "maximum": 88.5}
    assert contract.property("contact_e_mail").classification == "email"
    assert not contract.property("cost").required and contract.property("details").required
    assert [entry["value"] for entry in contract.document["schema"][0]["properties"][2]["enum"]] == ["high", "low"]
    assert contract.reader["nulls"] == ["", "n/a"]
    assert trial.passed and trial.partitions[0].accepted == 60


def test_every_guess_is_marked_in_the_text(tmp_path: Path) -> None:
    found = infer(csv_of(tmp_path))
    assert len(found.guesses) > 15
    assert found.text.count("# guessed: ") == len(found.guesses)


def test_terms_are_never_guessed_and_check_says_what_to_decide(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(infer(csv_of(tmp_path)).text)
    faults = check(path).faults
    assert len(faults) == 6 and all("TODO is a placeholder; " in fault for fault in faults)
    fields = ("licence.expression", "purposes.permitted", "residency.storage", "residency.processing", "share", "key")
    assert [field for field in fields if any(field in fault for fault in faults)] == list(fields)
    with pytest.raises(ContractError, match="placeholder"):
        load_contract(path)


def test_once_decided_the_contract_loads(tmp_path: Path) -> None:
    text = infer(csv_of(tmp_path)).text
    for old, new in (
        ("expression: TODO", "expression: CC0-1.0"),
        ("permitted: [TODO]", "permitted: [pre-training]"),
        ("storage: [TODO]", "storage: [EU]"),
        ("processing: [TODO]", "processing: [EU]"),
        ("share: TODO", "share: 0.1"),
        ("key: TODO", "key: incidents/1"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "contract.yaml"
    path.write_text(text)
    contract = load_contract(path)
    assert contract.id == "draft/incidents" and contract.terms.text == "details"


def test_a_folder_has_a_partition_for_each_file_named_by_its_date(tmp_path: Path) -> None:
    for day in ("2026-03-01", "2026-03-02"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"report-{day}.csv").write_text("a,b\n1,x\n2,y\n")
    contract, trial = tried(infer(tmp_path / "data"), tmp_path / "data", tmp_path)
    assert [p.partition for p in trial.partitions] == ["2026-03-01", "2026-03-02"] and trial.passed
    assert contract.reader["partition"]["from"] == "path"


def test_many_files_in_few_folders_are_partitions_by_folder(tmp_path: Path) -> None:
    for folder in ("east", "west"):
        for n in range(6):
            write_lines(tmp_path / "data" / folder / f"{n}.jsonl", [{"id": f"{folder}{n}", "text": "words"}])
    _, trial = tried(infer(tmp_path / "data"), tmp_path / "data", tmp_path)
    assert [p.partition for p in trial.partitions] == ["east", "west"] and trial.passed


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_delimiter_and_encoding_are_found(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "data.csv"
    rows = [["name", "place"], *(["Åsa", "Malmö"] for _ in range(30))]
    path.write_bytes("\n".join(delimiter.join(row) for row in rows).encode("cp1252"))
    contract, trial = tried(infer(path), path, tmp_path)
    assert contract.reader["delimiter"] == delimiter and contract.reader["encoding"] == "cp1252"
    assert trial.passed and trial.partitions[0].accepted == 30


def test_data_without_a_header_gets_numbered_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("1,apple\n2,berry\n")
    contract, trial = tried(infer(path), path, tmp_path)
    assert contract.reader["columns"] == ["column_1", "column_2"] and trial.partitions[0].rows_in == 2


DOCUMENTS: dict[str, tuple[Any, str, int]] = {
    "list": ([{"id": 1, "t": "a"}, {"id": 2, "t": "b"}], "", 2),
    "under a member": ({"data": [{"id": n, "a": {"b": "x"}, "l": ["p", "q"]} for n in range(3)]}, "$.data[*]", 3),
    "by key": ({f"k{n}": {"t": f"text {n}"} for n in range(30)}, "$.*", 30),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_records_are_found_in_json_documents(tmp_path: Path, name: str) -> None:
    document, record, rows = DOCUMENTS[name]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(document))
    contract, trial = tried(infer(path), path, tmp_path)
    assert contract.reader.get("record", "") == record
    assert trial.passed and trial.partitions[0].accepted == rows


def test_parquet_keeps_the_types_that_it_states(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"n": [1, 2], "x": [0.5, None], "ok": [True, False], "text": ["a", "b"]}), path)
    contract, trial = tried(infer(path), path, tmp_path)
    assert [p.logical_type for p in contract.properties[:4]] == ["integer", "number", "boolean", "string"]
    assert trial.passed


def test_xml_records_are_the_commonest_element(tmp_path: Path) -> None:
    path = tmp_path / "data.xml"
    entries = "".join(f"<note id='{n}'><title>t{n}</title><body>words {n}</body></note>" for n in range(5))
    path.write_text(f"<notes><meta/>{entries}</notes>")
    contract, trial = tried(infer(path), path, tmp_path)
    assert contract.reader["record"] == "note" and contract.reader["fields"]["id"] == "@id"
    assert trial.passed and trial.partitions[0].accepted == 5


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,x\n2,y\n"))
    _, trial = tried(infer(path), path, tmp_path)
    assert trial.passed and trial.partitions[0].accepted == 2


@pytest.mark.parametrize("name", ["nothing.csv", "data.bin", "empty.csv", "broken.json", "broken.parquet", "plain.xml"])
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    if name != "nothing.csv":
        (tmp_path / name).write_text({"empty.csv": "", "plain.xml": "<a/>"}.get(name, "{"))
    with pytest.raises(DataRefused, match=name):
        infer(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "logical"),
    [
        (["1", "-20", "0"], "integer"),
        (["1", "2.5", "1e3"], "number"),
        (["00123", "00456"], "string"),
        (["true", "FALSE"], "boolean"),
        (["2026-03-01", "2025-12-31"], "date"),
        (["2026-03-01T10:00:00Z", "2026-03-01 10:00"], "timestamp"),
        (["3/22/2020 23:45", "12/1/2020 1:00"], "timestamp"),
        (["2026-02-30"], "string"),
        (["12345678901234567890"], "number"),
        ([None, None], "string"),
        (["x", 1], "string"),
        ([1, 2.5], "number"),
        ([True, None], "boolean"),
    ],
)
def test_a_type_is_guessed_only_where_the_values_read_so(values: list[Any], logical: str) -> None:
    assert profile("column", values).logical_type == logical


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("x", ["ann@example.org", "bob@example.org"], "email"),
        ("x", ["+46 70 123 45 67", "+1 650 253 0000"], "phone"),
        ("x", ["192.168.0.1", "10.0.0.7"], "ip-address"),
        ("x", ["DE89370400440532013000", "GB82WEST12345698765432"], "iban"),
        ("patientName", ["A", "B"], "person-name"),
        ("date_of_birth", ["2001-01-01"], "birth-date"),
        ("x", ["apple", "berry"], None),
        ("version", ["1.2.3.4.5"], None),
    ],
)
def test_personal_data_is_guessed_by_name_and_by_check_digits(name: str, values: list[str], kind: str | None) -> None:
    assert profile(name, values).classification == kind


_cells = st.one_of(st.integers(-10, 10).map(str), st.text(st.characters(codec="utf-8"), max_size=6), st.just(""))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({"a": _cells, "b b": _cells, "split": _cells}), min_size=1, max_size=8))
def test_a_whole_sample_always_passes_its_own_guesses(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    path = write_lines(tmp_path / "data.jsonl", rows)
    _, trial = tried(infer(path), path, tmp_path)
    assert trial.quarantined == 0 and trial.partitions[0].rows_in == len(rows)


_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".xml", ".parquet", ".arrow", ".txt", ".csv.gz", ".json.zst")
_bytes = st.one_of(
    st.binary(max_size=200),
    st.text('{}[]",:\n<>/ab1=\x00\r\t;|', max_size=120).map(str.encode),
    st.just(b"[" * 100_000),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(_SUFFIXES), data=_bytes)
def test_whatever_a_file_holds_is_inferred_from_or_refused(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(CausewayError):
        check_text = infer(path).text
        (tmp_path / "made.yaml").write_text(check_text)
        assert all("TODO" in fault for fault in check(tmp_path / "made.yaml").faults), check_text
