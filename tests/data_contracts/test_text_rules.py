"""Text rules: which texts fail, and that the quick way (a sieve in Arrow) says what the slow one says."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from data_contracts.batchchecks import BatchCheck
from data_contracts.checks.repetition import shares
from data_contracts.checks.text import SIEVES, one_fails
from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.rules import RowRule, batch_rules, failing, row_rules
from data_contracts.ruling.context import RuleContext
from data_contracts.ruling.texts import ARGUMENTS
from tests.data_contracts.making import column, make_contract

ENGLISH = "The quick brown fox jumps over the lazy dog and runs back into the forest where it lives."
SWEDISH = "Den snabba bruna räven hoppar över den lata hunden och springer tillbaka in i skogen där den bor."
CHINESE = "敏捷的棕色狐狸跳过懒狗，然后跑回它居住的森林里，那里有很多树和小动物。"
VARIED = " ".join(f"word{n} follows{n * 7 % 31} another{n * 3 % 17}" for n in range(40))
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("mojibake", {}, ["naïve café", "Zürich «süß» …", CHINESE, ""], ["cafÃ© au lait", "itâ€™s", "a\ufffdb"]),
    ("mojibake", {"maximum": 1}, ["a\ufffdb"], ["a\ufffdb\ufffd"]),
    ("controlCharacters", {}, ["a\tb\r\nc", "日本", ""], ["a\x00b", "bell\x07", "\x85", "\x7f", "\ufffe", "a\x0cb"]),
    ("controlCharacters", {"allow": "\x0c"}, ["page\x0cpage"], ["a\x0c\x00"]),
    ("lengthInCharacters", {"minimum": 2, "maximum": 3}, ["ab", "日本語", "😀😀"], ["", "a", "abcd"]),
    ("language", {"expected": ["en"]}, [ENGLISH, "short", ""], [SWEDISH, CHINESE]),
    ("language", {"expected": ["sv", "zh"], "minimum": 0.8}, [SWEDISH, CHINESE], [ENGLISH]),
    ("nonTextShare", {"maximum": 0.3}, [ENGLISH, "", "  ", CHINESE], ["#### ---- ####", "a + b = c // 3;"]),
    ("repetition", {}, [VARIED, "spam " * 20, ""], ["spam " * 60, "one line of text\n" * 20, "买它" * 40]),
    ("repetition", {"minWords": 0}, [], ["same\nsame"]),
    (
        "personalData",
        {},
        ["call 12345", "version 1.2.3", "a @ b", "order 4111111111111112", "SE4550000000058398257467", "2024-01-31"],
        ["mail jo@example.org now", "+46 8 123 456 78", "card 4111 1111 1111 1111", "SE45 5000 0000 0583 9825 7466"],
    ),
    ("personalData", {"kinds": ["phone"], "region": "US"}, ["jo@example.org", "555"], ["ring (212) 555-2368 today"]),
    ("personalData", {"kinds": ["se.personnummer"]}, ["811228-9875"], ["born 811228-9874, Malmö"]),
    ("personalData", {"kinds": ["us.ssn", "gb.nhs"]}, ["000-12-3456"], ["536-90-4399", "943 476 5870"]),
    ("personalData", {"kinds": ["email"], "maximum": 1}, ["a@b.org"], ["a@b.org and c@d.org"]),
    (
        "secrets",
        {},
        ["password = get_password()", 'password = "changeme"', "sk-learn", "a secret is out", "sk-" + "long-slug-" * 5,
         'token: "aaaaaaaaaaaa1"'],
        [
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
            "key AKIA" + "Q3EGRBL7XK2MZNPT",
            "ghp_" + "a8Kd92LmQx7Zr4Tn6Vb1Wc3Ye5Uf0Pg8Hj2S",
            'password = "hT7#kLq92!xZ"',
            "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
        ],
    ),
]  # fmt: skip


def contract_of(folder: Path, *checks: dict[str, Any]) -> Contract:
    columns = (column("day", partitioned=True), column("content", quality=list(checks)))
    return make_contract(folder, columns)


def entry(metric: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "custom", "engine": "causeway", "implementation": {"metric": metric, **arguments}, **more}


def only(contract: Contract, metric: str) -> RowRule:
    (rule,) = (rule for rule in row_rules(contract) if rule.kind == metric)
    return rule


@pytest.mark.parametrize(("metric", "arguments", "good", "bad"), CASES)
def test_a_text_fails_by_its_metric(
    tmp_path: Path, metric: str, arguments: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    rule = only(contract_of(tmp_path, entry(metric, arguments)), metric)
    assert rule.name == f"content.{metric}"
    texts = [*good, None, *bad]
    found = failing(rule, pa.record_batch({"content": pa.array(texts, pa.string())})).to_pylist()
    assert dict(zip(texts, found, strict=True)) == {t: t in bad for t in texts}
    assert [one_fails(rule, text) for text in texts if text is not None] == [t in bad for t in texts if t is not None]


PIECES = ["é", "Ã©", "\ufffd", "\x00", "a@b.org", "+46 8 123 456 78", "4111 1111 1111 1111", "AKIAQ3EGRBL7XK2MZNPT",
          'token="hT7#kLq92!xZ"', " ", "\n", "\u2028", "word", "7", "##", "日本"]  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=6).map("".join), max_size=6))
def test_the_sieve_lets_through_every_text_that_fails(texts: list[str]) -> None:
    batch = pa.record_batch({"content": pa.array(texts, pa.string())})
    for metric in ("mojibake", "controlCharacters", "personalData", "secrets", "nonTextShare", "lengthInCharacters"):
        arguments = {"maximum": 0.4} if metric == "nonTextShare" else {"maximum": 3} if "length" in metric else {}
        rule = RowRule("r", "content", metric, arguments, "")
        assert failing(rule, batch).to_pylist() == [one_fails(rule, text) for text in texts], metric


def test_tokens_are_counted_by_the_tokenizer_that_is_named_and_by_no_other(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    sha = hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    bounds = {"minimum": 2, "maximum": 3}
    batch = pa.record_batch({"content": ["a", "a b", None, "a b a b"]})
    named = contract_of(
        tmp_path, entry("lengthInTokens", {**bounds, "tokenizer": {"file": "tokenizer.json", "sha256": sha}})
    )
    assert failing(only(named, "lengthInTokens"), batch).to_pylist() == [True, False, False, True]
    other = contract_of(
        tmp_path, entry("lengthInTokens", {**bounds, "tokenizer": {"file": "tokenizer.json", "sha256": "0" * 64}})
    )
    with pytest.raises(DataRefused, match="is not the tokenizer that the rule names"):
        failing(only(other, "lengthInTokens"), batch)
    none = contract_of(tmp_path, entry("lengthInTokens", bounds))
    with pytest.raises(DataRefused, match="no tokenizer is named"):
        failing(only(none, "lengthInTokens"), batch)
    context = RuleContext(count_tokens=lambda texts: [len(text.split()) for text in texts])
    (rule,) = (rule for rule in row_rules(none, context) if rule.kind == "lengthInTokens")
    assert failing(rule, batch).to_pylist() == [True, False, False, True]


def test_with_a_threshold_or_as_a_warning_a_text_rule_judges_the_batch(tmp_path: Path) -> None:
    contract = contract_of(
        tmp_path,
        entry("mojibake", {"mustBeLessOrEqualTo": 50, "unit": "percent"}),
        entry("secrets", {}, severity="warning"),
        entry("personalData", {"kinds": ["email"], "mustBeLessThan": 2}),
        entry("controlCharacters", {"mustBe": 0}),
    )
    assert [rule.name for rule in row_rules(contract)] == ["record.decodes", "content.controlCharacters"]
    rows = pa.table({"content": ["itâ€™s", "fine", "me@home.org", None]})
    results = {}
    for rule in batch_rules(contract):
        check = BatchCheck(rule, contract)
        check.add(rows)
        results[rule.name] = check.judge(4, 4)
    assert {name: (r.observed, r.passed, r.rule.severity) for name, r in results.items()} == {
        "content.mojibake": (25.0, True, "error"),
        "content.secrets": (0, True, "warning"),
        "content.personalData": (1, True, "error"),
    }


@pytest.mark.parametrize(
    ("metric", "arguments", "says"),
    [
        ("mojibak", {}, "perhaps mojibake"),
        ("mojibake", {"maximum": -1}, "give a whole number from 0"),
        ("mojibake", {"most": 1}, "metric mojibake has no such argument"),
        ("lengthInCharacters", {}, "needs minimum or maximum"),
        ("lengthInCharacters", {"minimum": 3, "maximum": 2}, "more than maximum"),
        ("lengthInTokens", {"minimum": 1, "tokenizer": {"file": "../t", "sha256": "0" * 64}}, "beside the contract"),
        ("language", {}, "needs expected"),
        ("language", {"expected": "en"}, "a list of ISO 639 codes"),
        ("nonTextShare", {}, "needs maximum"),
        ("nonTextShare", {"maximum": 30}, "a share from 0 to 1"),
        ("personalData", {"kinds": ["passport"]}, "a list of email, phone"),
        ("personalData", {"kinds": ["se.nothing"]}, "national numbers as python-stdnum names them"),
        ("personalData", {"region": "Sweden"}, "ISO 3166 code"),
        ("secrets", {"minEntropy": 0}, "a number above 0"),
        ("mojibake", {"mustBe": "few"}, "is compared with 'few'"),
    ],
)  # fmt: skip
def test_arguments_that_mean_nothing_are_faults(
    tmp_path: Path, metric: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, entry(metric, arguments))
    assert says in str(caught.value)


def test_a_text_rule_is_of_a_string_column_and_a_language_is_one_that_can_be_told(tmp_path: Path) -> None:
    number = column("n", "integer", quality=[entry("mojibake", {})])
    with pytest.raises(ContractError, match="metric mojibake is of text, and n is integer"):
        make_contract(tmp_path, (column("day", partitioned=True), column("content"), number))
    rule = only(contract_of(tmp_path, entry("language", {"expected": ["xx"]})), "language")
    with pytest.raises(ContractError, match="'xx' cannot be told"):
        failing(rule, pa.record_batch({"content": [ENGLISH]}))


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a.",
        "a@",
        "a@b.",
        "1",
        "1 ",
        "4-",
        "eyJ",
        "eyJ-",
        "-----BEGIN A ",
        "password",
        "token = ",
        "+46",
        "GB29 ",
        "\n",
    ],
)
def test_no_text_takes_longer_than_its_length_warrants(unit: str) -> None:
    hostile = "x@y " + unit * (400_000 // len(unit)) + " secret"
    kinds = ["email", "card", "iban", "se.personnummer"]
    began = time.monotonic()
    one_fails(RowRule("r", "content", "personalData", {"kinds": kinds, "maximum": 10**9}, ""), hostile)
    one_fails(RowRule("r", "content", "secrets", {"maximum": 10**9}, ""), hostile)
    one_fails(RowRule("r", "content", "mojibake", {}, ""), hostile)
    assert time.monotonic() - began < 20


def test_shares_of_repetition_are_those_that_the_paper_defines() -> None:
    found = shares("a b\na b\nc d")
    assert found["duplicateLines"] == pytest.approx(1 / 3)
    assert found["duplicateLineCharacters"] == pytest.approx(3 / 9)
    assert found["topBigram"] == pytest.approx(2 * 2 / 6)
    assert shares("")["topBigram"] == 0.0


def test_every_metric_has_cases_here() -> None:
    tried = {metric for metric, _, _, bad in CASES if bad} | {"lengthInTokens"}
    assert tried == set(ARGUMENTS) and set(SIEVES) < set(ARGUMENTS)
