"""Forms as the UI shows them."""

from __future__ import annotations

from typing import Any

from flows.deploying.forms import form


def schema(*names: str) -> dict[str, Any]:
    fields = {name: {"title": name, "type": "string", "position": n} for n, name in enumerate(names)}
    return {"type": "object", "properties": fields, "required": list(names)}


def test_titles_are_words() -> None:
    made, _ = form(schema("dataset", "max_active", "run_file"), [], [], ())
    titles = [field["title"] for field in made["properties"].values()]
    assert titles == ["Data set", "Max active", "Run file"]


def test_what_a_deployment_has_a_value_for_comes_last() -> None:
    made, _ = form(schema("home", "contract", "only", "partitions"), [], [], ("home", "contract"))
    by_position = sorted(made["properties"], key=lambda name: made["properties"][name]["position"])
    assert by_position == ["only", "partitions", "home", "contract"]


def test_the_schema_that_is_given_is_not_changed() -> None:
    before = schema("home", "dataset")
    form(before, ["test/notes"], [], ("home",))
    assert before == schema("home", "dataset")
