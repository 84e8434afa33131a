"""ODCS documents of every version: places of faults, what differs by version, and the standard's own examples."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contracting.document import read_document
from data_contracts.errors import ContractError
from data_contracts.odcs import odcs_faults, read_yaml

MINIMAL: dict[str, Any] = {
    "version": "1.0.0",
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "orders",
    "status": "active",
    "schema": [{"name": "orders", "properties": [{"name": "id", "logicalType": "integer"}]}],
}


def faults(**change: Any) -> list[str]:
    document = {name: value for name, value in {**MINIMAL, **change}.items() if value is not None}
    return [f"{'.'.join(map(str, fault.path))}: {fault.sentence}" for fault in odcs_faults(document)]


def test_a_fault_says_file_line_column_path_what_is_allowed_and_the_nearest_word(tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(
        "version: 1.0.0\napiVersion: v3.1.0\nkind: DataContract\nid: orders\nstatus: active\n"
        "schema:\n  - name: orders\n    properties:\n      - name: id\n        logicalType: integr\n"
    )
    with pytest.raises(ContractError) as caught:
        read_document(path)
    assert str(caught.value).startswith(
        f"{path}:10:9: schema[orders].properties[id].logicalType: 'integr' is not allowed; use one of string, date"
    )
    assert str(caught.value).endswith("(perhaps integer?)")


def test_the_two_halves_of_a_character_that_json_escapes_are_joined_and_one_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({**MINIMAL, "name": "a plane \U0001f6e9"}))
    assert "\\ud83d" in path.read_text()
    assert read_yaml(path).plain["name"] == "a plane \U0001f6e9"
    path.write_text(json.dumps({**MINIMAL, "name": "half \ud83d"}))
    with pytest.raises(ContractError, match="name: an escape is half of a character"):
        read_yaml(path)


def test_yaml_that_cannot_be_read_says_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text("version: 1.0.0\nid: [a, b\n")
    with pytest.raises(ContractError, match=r"orders\.yaml:3:1: \(root\): not YAML"):
        read_yaml(path)


@pytest.mark.parametrize("version", ["v3.0.0", "v3.0.1", "v3.0.2", "v3.1.0", "v3.2.0"])
def test_every_version_of_the_third_standard_is_read(version: str) -> None:
    assert not faults(apiVersion=version)


@pytest.mark.parametrize("version", ["v2.2.2", "v3.3.0", "3.1.0", "v4"])
def test_other_versions_are_refused(version: str) -> None:
    (fault,) = faults(apiVersion=version)
    assert fault.startswith("apiVersion: ")


def test_status_is_required_until_v3_1_and_not_after() -> None:
    assert faults(apiVersion="v3.0.2", status=None) == [": status is missing; add it"]
    assert faults(apiVersion="v3.1.0", status=None)
    assert not faults(apiVersion="v3.2.0", status=None)


def options(**given: Any) -> list[dict[str, Any]]:
    return [{"name": "t", "properties": [{"name": "n", "logicalType": "integer", "logicalTypeOptions": given}]}]


def test_exclusive_bounds_are_booleans_in_v3_0_only() -> None:
    assert not faults(apiVersion="v3.0.2", schema=options(maximum=9, exclusiveMaximum=True))
    assert faults(apiVersion="v3.1.0", schema=options(maximum=9, exclusiveMaximum=True))
    assert not faults(apiVersion="v3.1.0", schema=options(exclusiveMaximum=9))


def test_a_library_rule_is_named_by_rule_in_v3_0_only() -> None:
    table = [{"name": "t", "quality": [{"type": "library", "rule": "rowCount", "mustBeGreaterThan": 0}]}]
    assert not faults(apiVersion="v3.0.2", schema=table)
    assert faults(apiVersion="v3.1.0", schema=table)


def test_what_a_later_version_adds_is_read_in_an_older_document() -> None:
    table = [{"name": "t", "quality": [{"metric": "rowCount", "mustBeGreaterThan": 0}]}]
    assert not faults(apiVersion="v3.0.2", schema=table)


EXAMPLES = os.environ.get("CAUSEWAY_ODCS_EXAMPLES", "")


def examples() -> list[Path]:
    return sorted(Path(EXAMPLES).rglob("*.yaml")) if EXAMPLES else []


def mutations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each an official example with one thing that its version's schema refuses."""

    def changed(what: str, change: Callable[[dict[str, Any]], Any]) -> tuple[str, dict[str, Any]]:
        other = copy.deepcopy(document)
        change(other)
        return what, other

    for name in ("version", "apiVersion", "kind", "id", "status"):
        yield changed(f"without {name}", lambda d, name=name: d.pop(name))
        yield changed(f"{name} is a list", lambda d, name=name: d.update({name: ["x"]}))
    yield changed("another kind", lambda d: d.update(kind="Contract"))
    yield changed("unknown root field", lambda d: d.update(shcema=[]))
    yield changed("schema is text", lambda d: d.update(schema="orders"))
    yield changed("an object without a name", lambda d: d.setdefault("schema", []).append({"physicalName": "t"}))
    # Some examples have dozens of objects; the first of them stand for the rest.
    for index, table in enumerate((document.get("schema") or [])[:2]):
        yield changed("unknown field of an object", lambda d, i=index: d["schema"][i].update(propertys=[]))
        for inner, _ in enumerate((table.get("properties") or [])[:2]):
            where = f"property {index}.{inner}"

            def set_(d: dict[str, Any], i: int = index, p: int = inner, **value: Any) -> None:
                d["schema"][i]["properties"][p].update(value)

            yield changed(f"{where}: logicalType banana", lambda d, f=set_: f(d, logicalType="banana"))
            yield changed(f"{where}: required is text", lambda d, f=set_: f(d, required="yes"))
            yield changed(f"{where}: unknown field", lambda d, f=set_: f(d, requird=True))
            yield changed(f"{where}: quality is text", lambda d, f=set_: f(d, quality="good"))


@pytest.mark.skipif(not EXAMPLES, reason="CAUSEWAY_ODCS_EXAMPLES names no folder with the standard's examples")
def test_the_standards_examples_load_and_their_mutations_are_refused(tmp_path: Path) -> None:
    found, refused, passed = examples(), 0, []
    assert found, f"{EXAMPLES} holds no *.yaml"
    for path in found:
        document = read_document(path)
        assert document.sha and document.source.plain["kind"] == "DataContract"
        for what, other in mutations(json.loads(json.dumps(document.source.plain))):
            mutated = tmp_path / "mutated.yaml"
            mutated.write_text(json.dumps(other))
            try:
                read_document(mutated)
            except ContractError as error:
                refused += 1
                assert all(line.startswith(f"{mutated}:") for line in str(error).splitlines())
            else:
                passed.append(f"{path.name}: {what}")
    print(f"{len(found)} examples load, {refused} mutations of them are refused")
    assert not passed
