"""`causeway contracts ...`, called as the shell calls it, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from data_contracts.errors import CausewayError, ContractError, DataRefused
from data_contracts.sources import open_source
from flows.cli import app_of
from tests.data_contracts.making import KEYED, column, make_contract, write_lines
from training import steps
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*words: object) -> tuple[int, str]:
        given = ["contracts", *map(str, words)]
        capsys.readouterr()
        code = app_of(given)(given, result_action="return_value")
        return int(code), capsys.readouterr().out

    return call


def answer(text: str) -> Any:
    return json.loads(text.strip().splitlines()[-1])


def test_check_tells_each_fault_and_exits_1(say: Say, tmp_path: Path) -> None:
    path = make_contract(tmp_path).path
    assert say("check", path) == (0, f"{path}: test/notes 1.0.0: ok, 3 properties\n")
    path.write_text(path.read_text().replace('"string"', '"strng"', 1))
    code, text = say("check", path)
    assert code == 1 and f"{path}:1:" in text and "(perhaps string?)" in text
    code, text = say("check", path, "--json")
    (found,) = answer(text)
    assert code == 1 and not found["ok"] and found["id"] == "test/notes" and len(found["faults"]) == 1
    with pytest.raises(ContractError, match="no contract was named"):
        say("check")


def test_check_of_the_standard_alone_notes_what_stops_ingest(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    table = {
        "name": "orders",
        "properties": [{"name": "lines", "logicalType": "array", "items": {"logicalType": "string"}}],
    }
    document = {"version": "1", "apiVersion": "v3.1.0", "kind": "DataContract", "id": "o", "status": "active"}
    path.write_text(json.dumps(document | {"schema": [table, {"name": "customers"}]}))
    assert say("check", path)[0] == 1
    code, text = say("check", path, "--odcs-only")
    assert code == 0 and "ok, 1 properties" in text
    assert "note: " in text and "2 objects; a contract of a training set describes exactly one" in text
    assert say("show", path)[0] == 0
    assert say("changes", path, path)[0] == 0


def test_init_writes_a_marked_contract_and_tries_it(say: Say, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "notes.jsonl", [{"id": n, "words": f"text of {n}"} for n in range(30)])
    out = tmp_path / "notes.yaml"
    code, text = say("init", data, "--out", out, "--id", "industry/notes")
    assert code == 0 and "30 records, 0 would go to quarantine" in text and "causeway contracts check" in text
    assert "id: industry/notes" in out.read_text() and "# guessed: " in out.read_text()
    assert say("check", out)[0] == 1
    with pytest.raises(DataRefused, match="is there already"):
        say("init", data, "--out", out)
    code, text = say("init", data, "--json")
    found = answer(text)
    assert found["rows"] == found["tried"]["rows_in"] == 30 and found["whole"] and len(found["open"]) == 6


def test_init_fetches_an_address(say: Say, tmp_path: Path) -> None:
    write_lines(tmp_path / "served" / "notes.jsonl", [{"id": n, "words": "text"} for n in range(5)])

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert answer(say("init", f"{address}/notes.jsonl", "--json")[1])["rows"] == 5
        with pytest.raises(DataRefused, match="cannot be fetched: HTTP Error 404"):
            say("init", f"{address}/nothing.jsonl")
        server.shutdown()


def test_show_gives_columns_rules_and_terms(say: Say, tmp_path: Path) -> None:
    path = make_contract(tmp_path).path
    code, text = say("show", path)
    assert code == 0 and "content.minLength" in text and "purposes.permitted" in text and "primaryKey" in text
    found = answer(say("show", path, "--json")[1])
    assert ["licence.expression", "CC0-1.0"] in found["terms"]
    assert [c["name"] for c in found["columns"]] == ["key", "day", "content"] and not found["stops"]


def test_changes_exits_by_what_breaks(say: Say, tmp_path: Path) -> None:
    old = make_contract(tmp_path / "old").path
    same = make_contract(tmp_path / "same").path
    more = make_contract(tmp_path / "more", [*KEYED, column("more")], version="1.1.0").path
    less = make_contract(
        tmp_path / "less", KEYED, version="2.0.0", terms={"purposes": {"permitted": ["evaluation"]}}
    ).path
    assert say("changes", old, same) == (0, f"{same}: says the same as {old}\n")
    code, text = say("changes", old, more, "--json")
    found = answer(text)
    assert code == 0 and found["breaking"] == 0 and found["versionAskedFor"] == found["version"] == "1.1.0"
    assert say("changes", old, more, "--fail-on", "any")[0] == 1
    code, text = say("changes", old, less)
    assert code == 1 and "no longer permitted" in text and "terms" in text
    assert say("changes", old, less, "--fail-on", "never")[0] == 0


def test_test_tells_every_verdict_and_exits_1_when_a_record_fails(say: Say, tmp_path: Path) -> None:
    path = make_contract(tmp_path, reader=READER).path
    data = tmp_path / "data"
    write_lines(data / "monday.jsonl", [{"key": "a", "content": "apple"}, {"key": "b", "content": "x"}])
    write_lines(data / "tuesday.jsonl", [{"key": "c", "content": "carrot"}])
    code, text = say("test", path, data)
    assert code == 1 and "monday.jsonl:2 'x'" in text and "3 records, 1 would go to quarantine" in text
    assert say("test", path, data, "--allow-quarantine")[0] == 0
    assert say("test", path, data, "--partition", "tuesday")[0] == 0
    found = answer(say("test", path, data, "--json")[1])
    assert not found["passed"] and found["quarantined"] == 1 and found["refused"] == 0
    assert {v["rule"]: v["failing"] for v in found["rows"]}["content.minLength"] == 1


def test_export_writes_the_other_form_and_tells_what_it_cannot_say(
    say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_contract(tmp_path).path
    schema = json.loads(say("export", path)[1])
    assert schema["required"] == ["key", "content"]
    out = tmp_path / "suite.json"
    assert say("export", path, "--form", "gx", "--out", out)[1] == f"{out}: written\n"
    assert json.loads(out.read_text())["name"] == "test--notes"
    found = answer(say("export", path, "--json")[1])
    assert found["notes"] == ["primary key key: a schema of one record cannot compare records"]


def test_import_writes_a_contract_with_its_terms_left_open(say: Say, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"properties": {"content": {"type": "string"}, "n": {"type": "array"}}}))
    out = tmp_path / "new.yaml"
    code, text = say("import", schema, "--out", out, "--id", "industry/orders")
    assert code == 0 and "not taken over: property n of type array" in text and "1 columns" in text
    assert "id: industry/orders" in out.read_text() and say("check", out)[0] == 1
    with pytest.raises(DataRefused, match="is there already"):
        say("import", schema, "--out", out)
    assert answer(say("import", schema, "--json")[1])["form"] == "json-schema"


def test_docs_writes_one_page_that_needs_nothing_else(say: Say, tmp_path: Path) -> None:
    path = make_contract(tmp_path, [*KEYED, column("x", description="<b>bold</b>")], reader=READER).path
    out = tmp_path / "docs"
    found = answer(say("docs", path, "--out", out, "--json")[1])
    page = Path(found["page"]).read_text()
    assert found["dataDocs"] is None and "content.minLength" in page and "May be used for" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page
    assert not any(word in page for word in ("http://", "https://", "<script", "<link", "src="))


def test_docs_of_a_source_adds_verdicts_and_data_docs(say: Say, tmp_path: Path) -> None:
    path = make_contract(tmp_path, reader=READER).path
    write_lines(tmp_path / "data" / "monday.jsonl", [{"key": "a", "content": "apple"}, {"key": "b", "content": "x"}])
    found = answer(say("docs", path, "--source", tmp_path / "data", "--out", tmp_path / "docs", "--json")[1])
    page = Path(found["page"]).read_text()
    assert "Tried on data" in page and "Records that fail a rule" in page and "data-docs/index.html" in page
    assert Path(found["dataDocs"]).exists()


def test_test_of_a_foreign_key_asks_the_data_sets_of_a_home(say: Say, tmp_path: Path) -> None:
    parent = make_contract(tmp_path / "parent", reader=READER, id="test/parents")
    write_lines(tmp_path / "parents" / "all.jsonl", [{"key": "a", "content": "apple"}])
    workspace = Workspace.open(tmp_path / "home")
    steps.admit(workspace, parent, str(tmp_path / "parents"))
    source = open_source(parent, str(tmp_path / "parents"))
    for part in source.partitions():
        steps.ingest_one(workspace, parent, source, part)
    known = [{"property": "dataset", "vendor": "causeway", "value": "test/parents"}]
    leads = column("parent", relationships=[{"type": "foreignKey", "to": "parents.key", "customProperties": known}])
    path = make_contract(tmp_path, [*KEYED, leads], reader=READER).path
    write_lines(tmp_path / "data" / "monday.jsonl", [{"key": k, "content": "text", "parent": k} for k in "ab"])
    code, text = say("test", path, tmp_path / "data", "--home", tmp_path / "home", "--json")
    failing = {v["rule"]: v["failing"] for v in answer(text)["rows"]}
    assert code == 1 and failing["parent.foreignKey"] == 1
    with pytest.raises(CausewayError):
        say("test", path, tmp_path / "data")
