from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.policy import Purpose
from data_contracts.terms import TrainingTerms, terms_from_document
from training.shards.placement import Unit, place
from training.sites import Site

TODAY = dt.date(2026, 5, 4)
PURPOSES = {"train": Purpose("pre-training", "commercial"), "held-out": Purpose("evaluation", "commercial")}
EU = {"SE", "DE"}


def terms(**changes: object) -> TrainingTerms:
    return terms_from_document(
        {
            "format": 1,
            "licence": {"expression": "CC0-1.0"},
            "purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": []},
            "residency": {"storage": ["anywhere"], "processing": ["anywhere"]},
            "heldOut": {"share": 0.1, "key": "k"},
            "text": "content",
            **changes,
        }
    )


def site(name: str, *countries: str, speed: float = 1.0) -> Site:
    return Site(name, f"region-{name}", countries, f"sites/{name}", name, speed)


SITES = (site("east", "SG"), site("north", "SE"), site("south", "DE", "US"), site("west", "US"))
ZONES = st.lists(st.sampled_from(["anywhere", "EU", "SE", "US", "SG"]), min_size=1, max_size=3, unique=True)
WORDS = st.lists(st.sampled_from(["pre-training", "evaluation", "research", "commercial"]), max_size=2, unique=True)
TERMS = st.builds(
    lambda storage, processing, permitted, prohibited, until: terms(
        residency={"storage": storage, "processing": processing},
        purposes={"permitted": permitted or ["retrieval"], "prohibited": prohibited},
        **({"validUntil": until} if until else {}),
    ),
    ZONES,
    ZONES,
    WORDS,
    WORDS,
    st.sampled_from([None, None, "2026-05-04", "2026-05-03"]),
)
UNITS = st.lists(
    st.tuples(st.sampled_from(["d/a", "d/b"]), st.sampled_from(["train", "held-out"]), st.integers(0, 10_000)),
    min_size=1,
    max_size=25,
).map(lambda rows: [Unit(d, f"p{i}", f"{i:064d}", s, size) for i, (d, s, size) in enumerate(rows)])


def permitted(one: TrainingTerms, where: Site, split: str) -> bool:
    """The policy, written a second time and the slow way."""
    if one.valid_until is not None and one.valid_until < TODAY:
        return False
    for zones in (one.storage, one.processing):
        for country in where.jurisdictions:
            if not any(z == "anywhere" or z == country or (z == "EU" and country in EU) for z in zones):
                return False
    words = {"train": {"pre-training", "commercial"}, "held-out": {"evaluation", "commercial"}}[split]
    return any(entry in words for entry in one.permitted) and not any(entry in words for entry in one.prohibited)


@settings(deadline=None)
@given(UNITS, TERMS, TERMS, st.data())
def test_no_unit_is_ever_where_its_terms_do_not_permit_it(
    units: list[Unit], a: TrainingTerms, b: TrainingTerms, data: st.DataObject
) -> None:
    by_set = {"d/a": a, "d/b": b}
    known = {u.name: data.draw(st.sampled_from([s.name for s in SITES] + ["gone"])) for u in units}
    lying = {name: where for name, where in known.items() if data.draw(st.booleans())}
    found = place(units, SITES, by_set, PURPOSES, TODAY, lying)
    assert [f.unit for f in found] == sorted(units, key=lambda u: u.name)
    for one in found:
        allowed = [s.name for s in SITES if permitted(by_set[one.unit.dataset], s, one.unit.split)]
        assert (one.site is None) == (not allowed)
        if one.site is None:
            assert {r.split(":")[0] for r in one.reasons} == {s.name for s in SITES}
        else:
            assert one.site.name in allowed
            assert one.reasons
            if lying.get(one.unit.name) in allowed:
                assert one.site.name == lying[one.unit.name]


@settings(deadline=None)
@given(UNITS, st.randoms(use_true_random=False), st.floats(0.1, 9))
def test_placement_does_not_depend_on_the_order_of_anything(
    units: list[Unit], chance: random.Random, speed: float
) -> None:
    by_set = {"d/a": terms(), "d/b": terms(residency={"storage": ["EU"], "processing": ["SG"]})}
    sites = [site("east", "SG", speed=speed), site("north", "SE"), site("west", "US", speed=1 / 3)]
    lying = {u.name: chance.choice(sites).name for u in units if chance.random() < 0.5}
    found = place(units, sites, by_set, PURPOSES, TODAY, lying)
    for _ in range(3):
        chance.shuffle(units)
        chance.shuffle(sites)
        assert place(units, sites, by_set, PURPOSES, TODAY, lying) == found


@settings(deadline=None)
@given(UNITS, st.lists(st.floats(0.5, 8), min_size=3, max_size=3))
def test_sites_are_busy_for_the_same_time_but_for_one_unit(units: list[Unit], speeds: list[float]) -> None:
    sites = [site(n, "SE", speed=v) for n, v in zip("abc", speeds, strict=True)]
    units = [u for u in units if u.split == "train"]
    found = place(units, sites, {"d/a": terms(), "d/b": terms()}, PURPOSES, TODAY)
    busy = {s.name: sum(f.unit.text_bytes for f in found if f.site == s) / s.tokens_per_s for s in sites}
    for one in sites:
        last = min((f.unit.text_bytes for f in found if f.site == one), default=0)
        # Its smallest unit came last, and no other site would have been done with it sooner.
        assert all(busy[one.name] <= busy[s.name] + last / s.tokens_per_s + 1e-6 for s in sites)


def test_training_and_held_out_rows_are_balanced_apart(tmp_path: Path) -> None:
    units = [Unit("d/a", f"p{i}", "0" * 64, split, 100) for i in range(4) for split in PURPOSES]
    found = place(units, SITES, {"d/a": terms()}, PURPOSES, TODAY)
    for split in PURPOSES:
        assert sorted(f.site.name for f in found if f.site and f.unit.split == split) == [
            "east",
            "north",
            "south",
            "west",
        ]


def test_a_unit_without_a_home_says_why_for_each_site() -> None:
    (found,) = place(
        [Unit("d/a", "p", "0" * 64, "train", 5)],
        SITES,
        {"d/a": terms(residency={"storage": ["FR"], "processing": ["anywhere"]})},
        PURPOSES,
        TODAY,
    )
    assert found.site is None
    assert "west: residency.storage: west lies in US, and only FR is permitted." in found.reasons
    assert len({r.split(":")[0] for r in found.reasons}) == len(SITES)


def test_a_unit_moves_when_its_place_is_forbidden_or_gone() -> None:
    unit = Unit("d/a", "p", "0" * 64, "train", 5)
    only_sweden = {"d/a": terms(residency={"storage": ["SE"], "processing": ["SE"]})}
    for was in ("west", "closed-site"):
        (found,) = place([unit], SITES, only_sweden, PURPOSES, TODAY, {unit.name: was})
        assert found.site is not None
        assert found.site.name == "north"
