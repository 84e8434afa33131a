"""The run report: one HTML file that stands alone, escapes what it is given, and shows every number of the run."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import CausewayError
from flows.report.charts import clip
from flows.report.facts import Loss, PolicyCheck, RunFacts, from_document, to_document
from flows.report.render import licences, render, rulings, verdict
from flows.report.words import count, duration, share, short, size
from tests.flows.made_facts import made_facts


@cache
def _page() -> str:
    return render(made_facts())


def _section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    assert found, name
    return found[0]


def _says(page: str, section: str, *words: str) -> None:
    part = _section(page, section)
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", part))
    for word in words:
        assert word in plain, f"{word!r} is not in section {section}"


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = _page()
    assert "http:" not in page and "https:" not in page
    assert "<script" not in page and "<link" not in page and "@import" not in page
    for target in re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#"), target


def test_every_id_is_unique_and_every_reference_has_its_target() -> None:
    page = _page()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(targets) <= set(ids)


def test_tags_are_balanced() -> None:
    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in {"meta", "br", "wbr"}:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    checker = Checker()
    checker.feed(_page())
    assert checker.open == []


def _renamed(name: str) -> RunFacts:
    """Put `name` wherever a data set, site, rule, file, node or command is named."""
    document = json.dumps(to_document(made_facts()))
    for old in ("software/python-source", "stockholm", "licence.allowed", "pkg0/module_0.py", "causeway demo", "lease"):
        document = document.replace(f'"{old}', f'"{json.dumps(name)[1:-1]}')
    return from_document(json.loads(document))


def test_markup_in_a_name_is_shown_as_text() -> None:
    page = render(_renamed('<script>alert("x")</script>'))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "name", ["--><img src=x onerror=y>", "<!--", "$\\frac{1}$ $", "' onload='x", "{{ 7 * 7 }}", "临床/记录", "%s&amp;"]
)
def test_a_hostile_or_foreign_name_changes_no_markup(name: str) -> None:
    page = render(_renamed(name))
    assert "<img" not in page and "<!--" not in page and "49" not in re.findall(r"<h3>(.*?)</h3>", page)
    plain = render(_renamed("plain"))
    assert len(re.findall(r"<(?:section|table|figure|svg)\b", page)) == len(
        re.findall(r"<(?:section|table|figure|svg)\b", plain)
    )


def test_the_headline_has_the_key_numbers() -> None:
    facts = made_facts()
    _says(
        _page(), "headline", count(facts.rows_accepted), count(facts.rows_quarantined), count(facts.rows_removed),
        "8.120 → 2.939", "unigram baseline 4.810: beaten", short(facts.tokens_trained), "1,318 objects", "verified", "5 rounds",
    )  # fmt: skip


def test_what_came_in_has_rows_bytes_partitions_and_licences() -> None:
    for data_set in made_facts().data_sets:
        _says(_page(), "came-in", data_set.name, count(data_set.rows_in), size(data_set.bytes_in), "19", "MIT 52.0 %")


def test_refusals_have_their_rows_reasons_and_examples() -> None:
    (first, *_) = made_facts().data_sets
    for refusal in first.refusals:
        _says(_page(), "refused", refusal.rule, refusal.description, count(refusal.rows))
        _says(_page(), "refused", *(e.record_id or "no readable key" for e in refusal.examples))
    assert "<svg" in _section(_page(), "refused")


def test_placement_has_a_decision_for_every_data_set_and_site_with_its_sentences() -> None:
    _says(
        _page(),
        "placed",
        "● placed",
        "○ permitted",
        "✕ refused",
        "residency.storage permits EU; oregon lies in US.",
        "4 shards",
    )
    assert "1.86 M" in _section(_page(), "placed")


def test_loss_time_and_evaluation_have_charts_and_numbers() -> None:
    _says(_page(), "loss", "frankfurt", "3.40", "nats per token", "round")
    _says(_page(), "time", "compute", "wait", "transfer", "3 min 39 s", "79.6 %", "minutes since the run began")
    _says(
        _page(), "evaluation", "8.020", "2.610", "4.710", "± 0.012", "better than the unigram baseline", "bits per byte"
    )


def test_each_round_says_who_counted_by_what_and_what_changed() -> None:
    _says(_page(), "rounds", "2oregon joins", "change-weights software/licences=2", "more licences")
    _says(
        _page(),
        "rounds",
        "counted",
        "cuda bfloat16 fsdp-8",
        "12,000",
        "41.50 · 6.20 · 0.40 · 3.10",
        "81.0 %",
        "41.2 %",
        "21400 J",
    )
    _says(_page(), "rounds", "late", "refused: outlying: norm 99 is beyond 12")
    _says(_page(), "rounds", "MFU: of 989 TFLOP/s, H100, bfloat16.", "Energy measured: NVML.")


def test_the_table_of_a_long_run_has_its_last_rows_and_says_what_is_left_out() -> None:
    _says(render(made_facts(rounds=200)), "rounds", "302 earlier rows are left out", "200")


def test_a_chart_shows_its_numbers_unrounded() -> None:
    charts = "".join(re.findall(r"<svg.*?</svg>", _section(_page(), "evaluation"), re.DOTALL))
    assert ">8.020<" in charts and ">2.610<" in charts


def test_all_bytes_that_left_a_site_are_listed_by_object_kind() -> None:
    _says(
        _page(),
        "left",
        "55,088,718 bytes",
        "18,362,906",
        "contribution header",
        "6,020",
        "lease",
        "evaluation figures",
        "2,406",
    )


def test_lineage_has_counts_and_the_walk_to_the_sources() -> None:
    _says(
        _page(),
        "lineage",
        "ingest",
        "58",
        "57 partitions",
        "57 sources",
        "61 shards",
        "and 58 more",
        "model/first-light-20260114@5",
    )


def test_reproduction_has_the_commands_and_the_environment() -> None:
    _says(_page(), "reproduce", "causeway demo --home ./first-light --seed 7", "torch", "2.13.0")


def test_what_nobody_checked_is_never_reported_as_zero_or_fine() -> None:
    page = render(dataclasses.replace(made_facts(), policy=None, chain=None, evaluations=()))
    _says(page, "headline", "not checked", "Nobody checked", "not evaluated")
    assert "no violation of policy" not in page and "verified" not in _section(page, "headline")


def test_violations_and_a_broken_chain_are_said_first() -> None:
    facts = made_facts()
    assert facts.chain
    chain = dataclasses.replace(facts.chain, verified=False, detail="000003.json: signature")
    bad = dataclasses.replace(facts, policy=PolicyCheck(2, 9, ("shard/1 lies in US",)), chain=chain)
    _says(
        render(bad),
        "headline",
        "2 violations of policy",
        "shard/1 lies in US",
        "does not verify",
        "000003.json: signature",
    )


def test_tokens_at_a_place_that_refuses_them_are_shown_as_a_violation() -> None:
    facts = made_facts()
    placed = next(p for p in facts.placements if p.tokens)
    others = tuple(p for p in facts.placements if p is not placed)
    page = render(dataclasses.replace(facts, placements=(*others, dataclasses.replace(placed, allowed=False))))
    _says(page, "placed", "! violation")


def test_a_run_of_which_nothing_is_known_still_renders() -> None:
    facts = RunFacts("empty", "none", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", 0, 0, 0, (), ())
    page = render(facts)
    assert "<svg" not in page and "not evaluated" in page


@pytest.mark.parametrize(("sites", "rounds", "sets"), [(1, 1, 1), (6, 60, 2), (12, 200, 4)])
def test_runs_of_any_size_render_to_a_page_that_a_browser_opens_at_once(sites: int, rounds: int, sets: int) -> None:
    facts = made_facts(sites, rounds, sets)
    page = render(facts)
    assert len(page) < 1_500_000
    assert all(site.name in _section(page, "loss") for site in facts.sites)


def test_a_loss_that_is_not_finite_is_told_and_not_drawn() -> None:
    facts = made_facts()
    page = render(dataclasses.replace(facts, losses=(*facts.losses, Loss("oregon", 6, float("nan")))))
    _says(page, "loss", "1 loss of 16", "diverged")


def test_the_same_facts_give_the_same_page() -> None:
    assert render(made_facts()) == _page()


def test_facts_survive_json() -> None:
    facts = made_facts()
    assert from_document(json.loads(json.dumps(to_document(facts)))) == facts


def test_facts_with_a_wrong_field_name_it() -> None:
    with pytest.raises(CausewayError, match="run facts: rounds"):
        from_document({**to_document(made_facts()), "rounds": "many"})


def test_sites_with_the_same_decision_stand_together_and_placed_ones_first() -> None:
    first, second = rulings(made_facts(), "software/python-docs")
    assert (first.state, first.sites) == ("placed", ("stockholm", "frankfurt"))
    assert (second.state, second.sites) == ("refused", ("oregon",))


def test_many_licences_are_summed_up_after_the_fifth() -> None:
    data_set = dataclasses.replace(made_facts().data_sets[0], licences={f"L-{n}": 10 for n in range(9)})
    assert licences(data_set)[-1][0] == "4 others"


def test_a_difference_below_what_the_test_can_see_is_not_called_better() -> None:
    entry = dataclasses.replace(made_facts().evaluations[0], before=2.0, after=1.995)
    assert verdict(entry) == "no difference that this test can see"


def test_importing_the_report_imports_neither_matplotlib_nor_jinja() -> None:
    code = "import sys, flows.report.render, flows.report.charts; print({'matplotlib', 'jinja2', 'numpy'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (short(999), "999"), (short(999_600), "1.00 M"), (short(12_440), "12.4 k"), (size(3_100_000), "3.10 MB"), (size(0), "0 B"),
        (duration(59.97), "1 min 00 s"), (duration(7_800), "2 h 10 min"), (share(1, 100_000), "< 0.1 %"),
        (share(99_999, 100_000), "> 99.9 %"), (share(0, 5), "0 %"), (share(5, 5), "100 %"), (share(0, 0), "–"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(said: str, meant: str) -> None:
    assert said == meant


@given(st.text(max_size=80), st.integers(6, 40))
def test_a_clipped_name_is_never_longer_than_asked(name: str, most: int) -> None:
    assert len(clip(name, most)) <= most
