from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.errors import CausewayError
from training.planning import RunConfig, load_run_config
from training.sites import load_sites

GOOD = 'name = "small"\npurpose = "research pre-training"\ntokenizer = 300\ndatasets = ["test/notes"]\n'


TWO = GOOD.replace('["test/notes"]', '["test/notes", "test/more"]')


def step(from_round: int, dataset: str = "test/notes", weight: float = 1) -> str:
    return f'[[curriculum]]\nfrom_round = {from_round}\nweights = {{ "{dataset}" = {weight} }}\n'


def length(from_round: int, steps: int) -> str:
    return f"[[lengths]]\nfrom_round = {from_round}\nsteps = {steps}\n"


def load(folder: Path, text: str | bytes) -> RunConfig:
    path = folder / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_run_config(path)


def test_four_lines_are_a_run(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.name, config.purpose, config.tokenizer) == ("small", "research pre-training", 300)


def test_the_order_of_the_purposes_words_is_not_another_purpose(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("research pre-training", "pre-training research")) == load(tmp_path, GOOD)


@pytest.mark.parametrize("field", ["name", "purpose", "tokenizer", "datasets"])
def test_what_has_no_default_must_be_said(tmp_path: Path, field: str) -> None:
    text = "".join(line + "\n" for line in GOOD.splitlines() if not line.startswith(field))
    with pytest.raises(CausewayError, match=f"run.toml: {field}: Field required"):
        load(tmp_path, text)


FAULTS = {
    "no such purpose": (GOOD.replace("research", "any"), "run.toml: purpose: .*commercial, research"),
    "half a purpose": (GOOD.replace("research pre-training", "research"), "run.toml: purpose: "),
    "name": (GOOD.replace('"small"', '"../small"'), "run.toml: name: "),
    "no data set": (GOOD.replace('["test/notes"]', "[]"), "run.toml: datasets: "),
    "unknown field": (GOOD + "epochs = 3\n", "run.toml: epochs: Extra inputs"),
    "unknown inner field": (GOOD + "[inner]\nrate = 1\n", "run.toml: inner.rate: Extra inputs"),
    "no rounds": (GOOD + "rounds = 0\n", "run.toml: rounds: "),
    "outer": (GOOD + '[outer]\nmethod = "lion"\n', "run.toml: outer.method: "),
    "weight 0": (GOOD + '[weights]\n"test/notes" = 0\n', "run.toml: weights.test/notes: "),
    "weight inf": (GOOD + '[weights]\n"test/notes" = inf\n', "run.toml: weights.test/notes: "),
    "weight of another": (GOOD + '[weights]\n"test/note" = 1\n', "weights names test/note, which is not in datasets"),
    "weight of some": (
        TWO + '[weights]\n"test/notes" = 1\n',
        "weights: give test/more a weight as well",
    ),
    "curriculum of another": (GOOD + step(2, "test/note"), "curriculum from round 2 names test/note, which is not in"),
    "curriculum of some": (TWO + step(2, "test/notes"), "curriculum from round 2: give test/more a weight as well"),
    "curriculum backwards": (GOOD + step(3) + step(2), "each step begins after the one before it, not at rounds"),
    "curriculum of nothing": (GOOD + step(3, weight=0), "curriculum from round 3: one data set needs a weight above 0"),
    "curriculum from 0": (GOOD + step(0), "run.toml: curriculum.0.from_round: "),
    "temperature 0": (GOOD + "temperature = 0\n", "run.toml: temperature: "),
    "growth without end": (GOOD + "growth = 1.2\n", "a growth above 1 needs a longest of at least 15 steps"),
    "longest without growth": (GOOD + "longest = 60\n", "growth 1 with longest 60: "),
    "longest below steps": (GOOD + "growth = 1.2\nlongest = 12\n", "a longest of at least 15 steps"),
    "shrinking": (GOOD + "growth = 0.9\nlongest = 60\n", "run.toml: growth: "),
    "lengths backwards": (GOOD + length(3, 4) + length(3, 5), "lengths: each begins after the one before it, not at"),
    "length 0": (GOOD + length(3, 0), "run.toml: lengths.0.steps: "),
    "two lengths": (GOOD + "growth = 1.2\nlongest = 60\n" + length(3, 4), "growth and lengths: give one of them"),
    "unreadable": (GOOD + 'unreadable = "forget"\n', "run.toml: unreadable: "),
    "codec": (
        GOOD + 'codec = "zip"\n',
        "run.toml: codec: .*unknown codec 'zip'; this Causeway speaks fp32, bf16, int8-BLOCK",
    ),
    "a site's codec": (GOOD + '[codecs]\neast = "zip"\n', "run.toml: codecs: .*unknown codec 'zip'"),
    "feedback of several": (GOOD + 'codec = "auto"\nfeedback = 0.5\n', "feedback: it is that of one codec"),
    "time without seconds": (GOOD + 'pace = "time"\n', "round_s 0 does not go with pace 'time'"),
    "seconds without time": (GOOD + "round_s = 5\n", "round_s 5 does not go with pace 'fixed'"),
    "feedback": (GOOD + "feedback = 2\n", "run.toml: feedback: "),
    "weight cap": (GOOD + "weight_cap = 0\n", "run.toml: weight_cap: "),
    "clip": (GOOD + 'clip = "mean"\n', "run.toml: clip: "),
    "heads": (GOOD + "[model]\nhidden_size = 10\nheads = 4\n", "each head needs the same even width"),
    "small": (GOOD + "[model]\nhidden_size = 4\n", "model hidden_size: "),
    "not TOML": ("name = ", "run.toml: not TOML"),
    "not UTF-8": (b'name = "\xff"', "run.toml: not TOML"),
}


SITES = """format = 2
[home]
store = "home"
jurisdictions = ["SE"]
""" + "".join(
    f'[[site]]\nname = "{n}"\nregion = "{n}"\njurisdictions = ["SE"]\nstore = "sites/{n}"\n' for n in "abcde"
) + "".join(
    f'[[link]]\nfrom = "{n}"\nto = "home"\nmbit_s = {speed}\n'
    for n, speed in (("a", 100), ("b", 1000), ("c", 10_000), ("d", 40_000))
)  # fmt: skip


def test_a_codec_is_chosen_by_the_link_home(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(SITES)
    sites = load_sites(tmp_path / "sites.toml", tmp_path)

    def chosen(text: str) -> dict[str, str]:
        config = load(tmp_path, GOOD + text)
        return {site.name: config.codec_of(sites, site.name) for site in sites.sites}

    auto = {"b": "int4-128", "c": "int4-128", "d": "int8-256", "e": "bf16"}
    sgd = '[outer]\nmethod = "sgd"\nlr = 1.0\n'
    assert chosen('codec = "auto"\n' + sgd) == {"a": "topk-4096-64-2", **auto}
    assert chosen('codec = "auto"\n') == {"a": "int4-128", **auto}
    assert chosen('codec = "auto"\n[codecs]\ne = "fp32"\n') == {"a": "int4-128", **auto, "e": "fp32"}
    assert chosen('codec = "int8-256"\n[codecs]\na = "bf16"\n') == {**dict.fromkeys("bcde", "int8-256"), "a": "bf16"}


def test_rounds_are_as_long_as_said_or_grow(tmp_path: Path) -> None:
    given = load(tmp_path, GOOD + length(1, 4) + length(5, 9)).round_lengths
    assert [(x.from_round, x.steps) for x in given] == [(1, 4), (5, 9)]
    grown = load(tmp_path, GOOD + "steps = 4\ngrowth = 1.5\nlongest = 12\nrounds = 20\n").round_lengths
    assert [(x.from_round, x.steps) for x in grown] == [(1, 4), (2, 6), (3, 9), (4, 12)]
    assert load(tmp_path, GOOD).round_lengths == []


def test_a_curriculum_changes_weights_and_leaves_the_others(tmp_path: Path) -> None:
    text = TWO + '[weights]\n"test/notes" = 1\n"test/more" = 3\n' + step(4, "test/notes", 0) + step(9, "test/more", 5)
    config = load(tmp_path, text)
    assert [(s.from_round, s.weights) for s in config.curriculum] == [(4, {"test/notes": 0}), (9, {"test/more": 5})]


def test_what_is_left_open_is_the_recipe_that_was_measured_best(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.inner.optimizer, config.steps, config.codec) == ("muon", 15, "int4-128")
    assert (config.outer.method, config.outer.lr, config.outer.momentum) == ("nesterov", 0.7, 0.6)
    assert load(tmp_path, GOOD + "[inner]\nlr = 1e-3\n").inner.optimizer == "muon"
    assert load(tmp_path, GOOD + '[inner]\noptimizer = "adamw"\n').inner.optimizer == "adamw"
    assert load(tmp_path, GOOD + '[model]\ncheckpoint = "old"\n').inner.optimizer == "adamw"
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_by_file_and_field(tmp_path: Path, name: str) -> None:
    text, why = FAULTS[name]
    with pytest.raises(CausewayError, match=why) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "run.toml"))


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(CausewayError) as caught:
        load(tmp_path, GOOD + "rounds = 0\nsteps = -1\nextra = 1\n")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["steps", "rounds", "extra"]


def test_a_tokenizers_path_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD.replace("300", '"tok/tokenizer.json"'))
    assert config.tokenizer == str(tmp_path / "tok" / "tokenizer.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CausewayError, match=r"none\.toml: cannot be read"):
        load_run_config(tmp_path / "none.toml")


@pytest.mark.parametrize("said", ["", '[inner]\noptimizer = "adamw"\n', '[inner]\noptimizer = "muon"\n'])
def test_a_run_comes_back_from_json_as_it_was(tmp_path: Path, said: str) -> None:
    config = load(tmp_path, GOOD + said)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
