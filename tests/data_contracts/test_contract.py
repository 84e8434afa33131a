"""Loading contracts: ODCS first, then ours, every fault with its file, line, field and fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data_contracts
from data_contracts.contract import ServiceLevel, load_contract
from data_contracts.errors import ContractError

LIBRARY = Path(data_contracts.__file__).parent / "library"

GOOD = """\
apiVersion: v3.1.0
kind: DataContract
id: demo/notes
name: Notes
version: 1.0.0
status: active
schema:
  - name: notes
    properties:
      - name: key
        logicalType: string
        primaryKey: true
        primaryKeyPosition: 2
      - name: day
        logicalType: date
        partitioned: true
        primaryKey: true
        primaryKeyPosition: 1
      - name: content
        physicalName: body
        logicalType: string
        required: true
        logicalTypeOptions: {minLength: 1}
    quality:
      - metric: rowCount
        mustBeGreaterThan: 0
slaProperties:
  - property: frequency
    value: daily
customProperties:
  - property: reader
    vendor: causeway
    value: {format: csv}
  - property: trainingTerms
    vendor: causeway
    value:
      format: 1
      licence: {expression: CC-BY-4.0}
      purposes: {permitted: [pre-training]}
      residency: {storage: [SE], processing: [EU]}
      validFrom: 2026-01-01
      heldOut: {share: 0.1, key: demo}
      text: content
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(old: str = "", new: str = "") -> Path:
        assert old in GOOD
        path = tmp_path / "notes.yaml"
        path.write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return path

    return put


def faults(path: Path) -> list[str]:
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    return str(caught.value).splitlines()


def line_of(text: str) -> int:
    return GOOD[: GOOD.index(text)].count("\n") + 1


def test_a_good_contract_gives_its_typed_view(write: Write) -> None:
    contract = load_contract(write())
    assert contract.id == "demo/notes"
    assert contract.slug == "demo--notes"
    assert contract.primary_key == ("day", "key")
    assert contract.partition_column == "day"
    assert contract.property("content").physical_name == "body"
    assert contract.property("content").line == line_of("- name: content")
    assert contract.property("key").required, "a primary key cannot be null"
    assert contract.sla == {"frequency": ServiceLevel("daily")}
    assert contract.reader == {"format": "csv"}
    assert contract.sequence == "arrival"


def test_the_split_goes_by_primary_key_when_the_terms_do_not_say(write: Write) -> None:
    assert load_contract(write()).terms.split_group == ("day", "key")


def test_updates_stay_at_home_when_the_terms_do_not_say(write: Write) -> None:
    assert load_contract(write()).terms.derived_updates == "restricted"


def test_the_sha_is_of_the_meaning_and_not_of_the_layout(write: Write) -> None:
    first = load_contract(write()).sha
    assert load_contract(write("version: 1.0.0", "version:   '1.0.0'  # a comment")).sha == first
    assert load_contract(write("version: 1.0.0", "version: 1.0.1")).sha != first


def test_a_contract_without_terms_is_refused_unless_asked_for(write: Write) -> None:
    path = write("property: trainingTerms\n    vendor: causeway", "property: other\n    vendor: acme")
    assert "there are no trainingTerms" in faults(path)[0]
    contract = load_contract(path, require_terms=False)
    assert contract.terms.permitted == () and contract.terms.storage == ()


@pytest.mark.parametrize(
    ("old", "new", "at", "says"),
    [
        ("logicalType: date", "logicalType: banana", "logicalType: date", "'banana' is not allowed; use one of string"),
        ("logicalType: date", "logicalType: strin", "logicalType: date", "perhaps string?"),
        ("status: active", "statsu: active", "status", "statsu: there is no such field (perhaps status?)"),
        ("kind: DataContract\n", "", "apiVersion", "kind is missing; add it"),
        ("partitioned: true", "partitoned: true", "partitioned", "perhaps partitioned?"),
        ("minLength: 1", "minLenght: 1", "logicalTypeOptions", "perhaps minLength?"),
        ("mustBeGreaterThan: 0", "description: x", "metric: rowCount", "mustBeGreaterThan"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.0", "apiVersion", "v3.0 to v3.2"),
        ("id: demo/notes", "id: ../notes", "id: demo", "cannot name a data set"),
        ("id: demo/notes", "id: demo--notes", "id: demo", "cannot name a data set"),
        ("id: demo/notes", "id: demo-/notes", "id: demo", "cannot name a data set"),
        ("id: demo/notes", "id: demo/-notes", "id: demo", "cannot name a data set"),
        ("partitioned: true", "unique: false", "properties:", "mark exactly one"),
        ("logicalType: date", "logicalType: array", "logicalType: date", "array is not supported"),
        ("name: content", "name: record_id", "name: content", "Causeway adds"),
        ("name: content", "name: ../up", "name: content", "cannot name a column"),
        ("- name: content", "- name: key", "- name: content", "'key' stands twice"),
        ("primaryKeyPosition: 2", "primaryKeyPosition: 1", "- name: key", "number them 1 to 2"),
        ("format: csv", "format: cvs", "value: {format: csv}", "perhaps csv?"),
        ("text: content", "text: contnet", "text: content", "no column 'contnet' (perhaps content?)"),
        ("text: content", "text: day", "text: content", "name a string column"),
        ("purposes:", "purpose:", "purposes:", "purpose: there is no such field (perhaps purposes?)"),
        ("[SE]", "[SW]", "residency", "'SW' is not allowed"),
        ("2026-01-01", "2026-13-01", "validFrom", "is not of the form"),
        ("CC-BY-4.0", "CC-BY-FOUR", "licence:", "no SPDX licence expression"),
        ("share: 0.1", "share: 1", "heldOut", "1"),
        ("property: reader", "property: raeder", "property: reader", "perhaps reader?"),
    ],
)
def test_a_fault_names_its_line_and_the_fix(write: Write, old: str, new: str, at: str, says: str) -> None:
    found = [line for line in faults(write(old, new)) if says in line]
    assert found, faults(write(old, new))
    match = re.match(r".*notes\.yaml:(\d+):\d+: ", found[0])
    assert match and int(match[1]) == line_of(at), found[0]


def test_all_faults_are_reported_at_once(write: Write, tmp_path: Path) -> None:
    text = (
        GOOD.replace("id: demo/notes", "id: Demo")
        .replace("[SE]", "[XX]")
        .replace("logicalType: date", "logicalType: d")
    )
    path = tmp_path / "many.yaml"
    path.write_text(text)
    found = "\n".join(faults(path))
    assert "'XX' is not allowed" in found and "'d' is not allowed" in found


def test_one_wrong_value_does_not_accuse_its_neighbours(write: Write) -> None:
    assert len(faults(write("logicalType: date", "logicalType: banana"))) == 1


def test_terms_of_another_vendor_are_not_ours(write: Write) -> None:
    path = write("property: trainingTerms\n    vendor: causeway", "property: trainingTerms\n    vendor: acme")
    assert any("add 'vendor: causeway'" in line for line in faults(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id: [", "not YAML"),
        ("- a\n- b\n", "a contract is a mapping"),
        ("a: 1\na: 2\n", "duplicate"),
        ("a: .nan\n", "not a finite number"),
        ("1: x\n", "is no text"),
        ("a: &a [1,2,3,4,5,6,7,8,9,0]\n" + "".join(
            f"{c}: &{c} [{','.join(['*' + p] * 10)}]\n" for p, c in zip("abcde", "bcdef", strict=True)), "100,000"),
        ("a: !!python/object:os.system [a]\n", "tag"),
        ("a: !secret x\n", "not allowed"),
        ("[" * 1500, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_no_plain_mapping_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert says in faults(path)[0] and faults(path)[0].startswith(f"{path}:")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "none.yaml: cannot be read" in faults(tmp_path / "none.yaml")[0]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"id: \xff\xfe")
    assert "UTF-8" in faults(path)[0]


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t)
    )
)
def test_any_value_of_the_terms_gives_a_contract_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    import json

    path = tmp_path_factory.mktemp("any") / "any.yaml"
    head = GOOD[: GOOD.index("    value:\n      format: 1")]
    path.write_text(head + "    value: " + json.dumps(value) + "\n")
    faults(path)


def test_a_date_counts_the_same_with_and_without_quotes(write: Write) -> None:
    assert load_contract(write("2026-01-01", "'2026-01-01'")).sha == load_contract(write()).sha


@pytest.mark.parametrize(
    ("name", "zones"),
    [
        ("software-python-source", ("SE", "US")),
        ("software-package-docs", ("anywhere",)),
        ("legal-licence-texts", ("SE",)),
    ],
)
def test_the_demo_sets_differ_in_residency_and_take_no_copyleft(name: str, zones: tuple[str, ...]) -> None:
    terms = load_contract(LIBRARY / f"{name}.yaml").terms
    assert terms.storage == terms.processing == zones
    assert terms.derived_updates == "may-leave"
    assert not any(entry.startswith(("GPL", "LGPL", "AGPL", "MPL")) for entry in terms.licences_allowed)


def test_a_promise_keeps_its_value_and_its_unit(write: Write) -> None:
    contract = load_contract(write("value: daily", "value: 4\n    unit: d"))
    assert contract.sla == {"frequency": ServiceLevel(4, "d")}


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("value: dayly", "'dayly' cannot be read (perhaps daily?); use one of: hourly, daily"),
        ("value: 3", "3 has no unit; use one of: hourly"),
        ("{value: 3, unit: m}", "m is minutes to some and months to others; write min or mo"),
        ("{value: 3, unit: dais}", "3 has the unit 'dais' (perhaps days?)"),
        ("value: true", "'True' cannot be read"),
        ("value: null", "'None' cannot be read"),
        ("value: 61 6 * * *", "'61 6 * * *' is no cron expression (Bad minute)"),
        ("value: 0 0 31 2 *", "is no cron expression (Bad day-of-month)"),
        ("{value: 0, unit: d}", "0 d is no time at all"),
        ("value: PT0S", "PT0S is no time at all"),
        ("value: P", "'P' cannot be read"),
        ("value: P1DT", "'P1DT' cannot be read"),
        ("{value: 5, unit: mo}", "5 mo cannot be scheduled by the calendar"),
        ("{value: 1.5, unit: y}", "1.5 years is no whole number of years"),
        ("value: P99999999999D", "is more than a century"),
    ],
)
def test_a_frequency_that_cannot_be_read_is_a_fault_with_its_line(write: Write, written: str, says: str) -> None:
    entry = written.strip("{}").replace(", ", "\n    ")
    (fault,) = faults(write("value: daily", entry))
    assert f":{line_of('value: daily')}:5: slaProperties[frequency].value: " in fault
    assert says in fault


def test_a_latency_is_a_length_of_time_and_stands_once(write: Write) -> None:
    said = faults(
        write(
            "    value: daily",
            "    value: daily\n  - property: latency\n    value: daily\n  - {property: latency, value: PT6H}",
        )
    )
    assert len(said) == 2
    assert "slaProperties[latency].value: 'daily' cannot be read; use one of: a number with a unit" in said[0]
    assert "latency stands twice; keep one" in said[1]


def test_other_promises_are_kept_as_they_stand(write: Write) -> None:
    contract = load_contract(
        write("    value: daily", "    value: daily\n  - {property: retention, value: 3, unit: m}")
    )
    assert contract.sla["retention"] == ServiceLevel(3, "m")
