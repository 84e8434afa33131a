"""The benchmarks' lab: what its figures say of a history and of the loaders' log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.lab import figures
from benchmarks.lab.setting import make_setting, sites_toml
from training.rounds.contribution import Claim, Contribution, Header
from training.rounds.plan import Plan
from training.sites import load_sites


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("lab")
    setting = make_setting(folder, sites_toml("home", {"east": "sites/east", "west": "sites/west"}), 60_000, 4)
    return setting.plan("lab", steps=2, rounds=2)


def booked(plan: Plan, site: str, number: int, *claims: Claim) -> Contribution:
    header = Header(
        run=plan.run,
        plan=plan.sha,
        round=number,
        site=site,
        base="",
        base_state="",
        terms_head="",
        claims=claims,
        tokens=10 * sum(end - start for _, start, end in claims),
        tokens_by_dataset={},
        steps=1,
        loss=1.0,
        norm=1.0,
        codec="fp32",
        payload="0" * 64,
        payload_bytes=100,
        inner="kept",
        device="cpu",
    )
    return Contribution(header, header.body(), b"")


def line(site: str, *places: tuple[int, int]) -> dict[str, object]:
    return {"site": site, "places": [list(place) for place in places]}


def test_a_history_that_books_what_was_handed_out_loses_and_repeats_nothing(plan: Plan) -> None:
    rounds = [(1, [booked(plan, "east", 1, (0, 0, 2))]), (2, [booked(plan, "east", 2, (0, 2, 3))])]
    lines = [line("east", (0, 0), (0, 1)), line("east", (0, 2)), line("east", (0, 2))]
    assert figures.positions(plan, rounds, lines) == (0, 0)


def test_a_position_that_no_loader_handed_out_is_lost(plan: Plan) -> None:
    rounds = [(1, [booked(plan, "east", 1, (0, 0, 2))])]
    assert figures.positions(plan, rounds, [line("east", (0, 0)), line("west", (0, 1))]) == (1, 0)


def test_a_position_between_two_claims_is_lost_and_one_in_two_claims_is_repeated(plan: Plan) -> None:
    rounds = [(1, [booked(plan, "east", 1, (0, 0, 2))]), (2, [booked(plan, "east", 2, (0, 1, 2), (1, 1, 2))])]
    lines = [line("east", (0, 0), (0, 1), (1, 1))]
    assert figures.positions(plan, rounds, lines) == (1, 1)


def test_regions_have_lanes_of_their_own(plan: Plan) -> None:
    rounds = [(1, [booked(plan, "east", 1, (0, 0, 1)), booked(plan, "west", 1, (0, 0, 1))])]
    assert figures.positions(plan, rounds, [line("east", (0, 0)), line("west", (0, 0))]) == (0, 0)


def test_the_rate_counts_the_rounds_after_the_first(plan: Plan) -> None:
    rounds = [(n, [booked(plan, "east", n, (0, n, n + 4)), booked(plan, "west", n, (0, n, n + 1))]) for n in (1, 2, 3)]
    assert figures.rate(figures.tokens_by_round(rounds), {1: 5.0, 2: 6.0, 3: 9.0}) == 100 / 4
    assert figures.bytes_sent(rounds) == 600


def test_a_line_that_a_kill_cut_off_is_no_line(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text(json.dumps(line("east", (0, 0))) + '\n{"site": "ea')
    assert figures.loader_lines(tmp_path) == [line("east", (0, 0))]


def test_sites_toml_is_one_that_the_product_reads(tmp_path: Path) -> None:
    url = "s3://bucket?endpoint=http://127.0.0.1:1&region=west"
    (tmp_path / "sites.toml").write_text(
        sites_toml("home", {"east": "sites/east", "west": url}, {"east": 2, "west": 1})
    )
    sites = load_sites(tmp_path / "sites.toml", tmp_path)
    assert [(s.name, s.decides_creates, s.tokens_per_s) for s in sites.sites] == [("east", True, 2), ("west", False, 1)]
