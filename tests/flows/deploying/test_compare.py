"""The difference between what a server should hold and what it holds."""

from __future__ import annotations

from typing import Any

from flows.deploying.compare import Difference, compare, unwanted
from flows.deploying.thing import Thing


def deployment(name: str = "ingest/notes", **fields: Any) -> Thing:
    return Thing("deployment", name, {"tags": ["causeway"], "parameters": {"home": "/h"}, **fields})


def test_the_same_things_need_no_change() -> None:
    assert compare([deployment()], [deployment()]) == []


def test_what_is_missing_is_added_and_pools_come_before_the_deployments_that_name_them() -> None:
    changes = compare([deployment(), Thing("pool", "home", {"type": "process"})], [])
    assert [(c.action, c.kind, c.thing.name) for c in changes] == [
        ("add", "pool", "home"),
        ("add", "deployment", "ingest/notes"),
    ]


def test_a_changed_field_is_named_with_its_old_and_its_new_value() -> None:
    (change,) = compare([deployment(description="new")], [deployment(description="old")])
    assert change.differences == (Difference("description", "old", "new"),)
    assert change.lines() == ["~ deployment ingest/notes", '    description: "old" -> "new"']
    assert change.fields() == {"description": "new"}


def test_of_a_nested_value_only_the_leaves_that_differ_are_shown() -> None:
    old = deployment(parameter_openapi_schema={"properties": {"a": {"type": "string"}, "b": {"type": "string"}}})
    new = deployment(parameter_openapi_schema={"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}})
    (change,) = compare([new], [old])
    assert change.differences == (Difference("parameter_openapi_schema.properties.b.type", "string", "integer"),)


def test_a_key_that_a_form_no_longer_has_is_a_change() -> None:
    old = deployment(parameter_openapi_schema={"properties": {"a": {}, "gone": {"type": "string"}}})
    (change,) = compare([deployment(parameter_openapi_schema={"properties": {"a": {}}})], [old])
    assert change.differences == (Difference("parameter_openapi_schema.properties.gone", {"type": "string"}, None),)


def test_a_parameter_that_the_operator_added_is_no_change() -> None:
    theirs = deployment(parameters={"home": "/h", "tokens_ready_bytes": 1})
    assert compare([deployment()], [theirs]) == []
    (change,) = compare([deployment(parameters={"home": "/other"})], [theirs])
    assert change.differences == (Difference("parameters.home", "/h", "/other"),)


def test_what_is_no_longer_wanted_is_removed_only_when_asked_and_automations_before_their_deployments() -> None:
    actual = [deployment("ingest/old"), deployment(), Thing("automation", "causeway: old", {})]
    assert compare([deployment()], actual) == []
    assert [t.name for t in unwanted([deployment()], actual)] == ["causeway: old", "ingest/old"]
    removed = compare([deployment()], actual, prune=True)
    assert [(c.action, c.thing.name) for c in removed] == [("remove", "causeway: old"), ("remove", "ingest/old")]


def test_pools_and_queues_are_never_removed() -> None:
    assert compare([], [Thing("pool", "old", {}), Thing("queue", "old/default", {})], prune=True) == []


def test_a_change_as_json_holds_both_values() -> None:
    (change,) = compare([deployment(concurrency_limit=1)], [deployment(concurrency_limit=None)])
    assert change.document() == {
        "action": "change",
        "kind": "deployment",
        "name": "ingest/notes",
        "fields": {"concurrency_limit": {"old": None, "new": 1}},
    }
