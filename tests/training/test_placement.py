from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.policy import Purpose
from data_contracts.terms import TrainingTerms, terms_from_document
from training.shards.placement import Placement, Standing, Unit, place, purposes
from training.shards.solving import TOLERANCE
from training.sites import Link, Site, Sites

TODAY = dt.date(2026, 5, 4)
PURPOSES = purposes(Purpose("pre-training", "commercial"))
EU = {"SE", "DE", "FR"}


def terms(**changes: object) -> TrainingTerms:
    return terms_from_document(
        {
            "format": 2,
            "licence": {"expression": "CC0-1.0"},
            "purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": []},
            "residency": {"storage": ["anywhere"], "processing": ["anywhere"]},
            "heldOut": {"share": 0.1, "key": "k"},
            "text": "content",
            **changes,
        }
    )


def site(name: str, *countries: str, speed: float = 1.0, capacity: int | None = None, region: str = "") -> Site:
    store = f"stores/{region or name}"
    return Site(name, region or f"region-{name}", countries, store, name, speed, capacity_bytes=capacity)


def sites(*named: Site, links: Sequence[Link] = ()) -> Sites:
    home = Site("home", "home", ("SE",), "home", "home")
    return Sites(home, tuple(sorted(named, key=lambda s: s.name)), Path(), tuple(links))


def unit(name: str, tokens: int, split: str = "train", dataset: str = "d/a", size: int | None = None) -> Unit:
    return Unit(dataset, name, f"{name:0>64}", split, tokens, 2 * tokens + 1 if size is None else size)


def standing(where: Sites, **facts: Mapping[str, object]) -> Standing:
    return Standing({"d/a": where.home, "d/b": where.home}, **facts)  # type: ignore[arg-type]


def put(
    units: Sequence[Unit], where: Sites, by_set: Mapping[str, TrainingTerms], **facts: Mapping[str, object]
) -> Placement:
    return place(units, where, by_set, PURPOSES, TODAY, standing(where, **facts))


def goes(found: Placement) -> dict[str, str | None]:
    return {a.unit.name: a.region.name if a.region else None for a in found.assignments}


ZONES = st.lists(st.sampled_from(["EU", "SE", "US", "SG", "north-sea"]), min_size=1, max_size=3, unique=True)
# Half of the terms permit much: else there is little to choose between.
PLACES = st.one_of(st.just(["anywhere"]), ZONES)
NEVER = st.one_of(st.just([]), st.just([]), st.lists(st.sampled_from(["US", "SG", "EU", "north-sea"]), max_size=1))
WORDS = st.lists(
    st.sampled_from(["pre-training", "evaluation", "research", "commercial", "commercial pre-training"]),
    min_size=1,
    max_size=2,
    unique=True,
)
BOTH = st.just(["pre-training", "evaluation"])


@st.composite
def drawn_terms(draw: st.DrawFn) -> TrainingTerms:
    grounds = [("CC0-1.0", False)] * 5 + [("CC-BY-NC-4.0", False), ("NOASSERTION", False), ("NOASSERTION", True)]
    licence, ground = draw(st.sampled_from(grounds))
    prohibited = draw(st.one_of(st.just([]), st.just([]), st.just([]), WORDS))
    if licence == "CC-BY-NC-4.0" and "commercial" not in prohibited:
        prohibited = [*prohibited, "commercial"]
    residency = {"storage": draw(PLACES), "processing": draw(PLACES)}
    for clause in ("neverIn", "neverOutside"):
        if named := draw(NEVER):
            residency[clause] = named
    until = draw(st.sampled_from([None] * 6 + ["2026-05-04", "2026-05-03"]))
    begins = draw(st.sampled_from([None] * 6 + ["2026-05-04", "2026-05-05"]))
    if begins and until and until < begins:
        begins = None
    return terms(
        licence={"expression": licence},
        **({"legalBasis": {"basis": "contract", "reference": "file 7"}} if ground else {}),
        purposes={"permitted": draw(st.one_of(BOTH, BOTH, WORDS, st.just(["retrieval"]))), "prohibited": prohibited},
        residency=residency,
        zones={"north-sea": ["SE", "DE"]},
        **({"validUntil": until} if until else {}),
        **({"validFrom": begins} if begins else {}),
    )


@st.composite
def drawn_sites(draw: st.DrawFn) -> Sites:
    laws = draw(
        st.lists(st.sampled_from([("SE",), ("DE",), ("US",), ("SG",), ("DE", "US"), ("FR",)]), min_size=2, max_size=4)
    )
    named = [
        site(
            name,
            *countries,
            speed=draw(st.sampled_from([0.5, 1.0, 2.0])),
            capacity=draw(st.sampled_from([None, None, 40, 90])),
        )
        for name, countries in zip("abcd", laws, strict=False)
    ]
    ends = [s.name for s in named]
    pairs = [("home", end) for end in ends] + list(itertools.combinations(ends, 2))
    links = [
        Link(a, b, draw(st.sampled_from([1e6, 1e8])), 0.05, draw(st.sampled_from([0.0, 1e7, 3e7])))
        for a, b in pairs
        if draw(st.booleans())
    ]
    return sites(*named, links=links)


def permitted(one: TrainingTerms, countries: Sequence[str], split: str) -> bool:
    """The clauses of the terms, written a second time and the slow way."""
    zones = {"EU": EU, "EEA": EU, **{name: set(codes) for name, codes in one.zones.items()}}

    def inside(country: str, names: Sequence[str]) -> bool:
        return any(z in ("anywhere", country) or country in zones.get(z, ()) for z in names)

    if one.valid_until is not None and one.valid_until < TODAY:
        return False
    if one.valid_from is not None and one.valid_from > TODAY:
        return False
    if one.licence == "NOASSERTION" and not one.legal_basis:
        return False
    if one.licence == "CC-BY-NC-4.0":  # the run is commercial
        return False
    for country in countries:
        if not (inside(country, one.storage) and inside(country, one.processing)):
            return False
        if inside(country, one.never_in) or (one.never_outside and not inside(country, one.never_outside)):
            return False
    words = {"train": {"pre-training", "commercial"}, "held-out": {"evaluation", "commercial"}}[split]
    covers = [set(entry.split()) <= words for entry in one.permitted]
    return any(covers) and not any(set(entry.split()) <= words for entry in one.prohibited)


UNITS = st.lists(
    st.tuples(st.sampled_from(["d/a", "d/b"]), st.sampled_from(["train", "train", "held-out"]), st.integers(0, 30)),
    min_size=1,
    max_size=5,
).map(lambda rows: [unit(f"p{i}", tokens, split, dataset) for i, (dataset, split, tokens) in enumerate(rows)])


def lies(data: st.DataObject, units: Sequence[Unit], where: Sites) -> dict[str, set[str]]:
    names = st.lists(st.sampled_from([r.name for r in where.regions]), max_size=2)
    return {u.name: set(found) for u in units if (found := data.draw(names))}


def price(where: Sites, start: str, end: str) -> float:
    """Cost of a byte: of the link that is stated in either direction, else none."""
    for link in where.links:
        if {link.source, link.target} == {start, end}:
            return link.cost_per_gb / 1e9
    return 0.0


def brute_force(
    units: Sequence[Unit], where: Sites, by_set: Mapping[str, TrainingTerms], lying: Mapping[str, set[str]]
) -> list[tuple[float, int, float]]:
    """Finish time, bytes moved and cost of every assignment that the clauses and the room allow; a region is a site."""
    found = []
    choices = [[s for s in where.sites if permitted(by_set[u.dataset], s.jurisdictions, u.split)] for u in units]
    lawful = {(u.name, s.region) for u, may in zip(units, choices, strict=True) for s in may}
    for chosen in itertools.product(*choices):
        busy, filled, moved, cost = dict.fromkeys(where.sites, 0.0), dict.fromkeys(where.sites, 0), 0, 0.0
        for u, s in zip(units, chosen, strict=True):
            busy[s] += u.tokens / s.tokens_per_s if u.split == "train" else 0
            filled[s] += u.arrow_bytes
            at = [o for o in where.sites if o.region in lying.get(u.name, ()) and (u.name, o.region) in lawful]
            if s not in at:
                moved += u.arrow_bytes
                cost += u.arrow_bytes * min(price(where, o.name, s.name) for o in (at or [where.home]))
        if all(s.capacity_bytes is None or filled[s] <= s.capacity_bytes for s in where.sites):
            found.append((max(busy.values()), moved, cost))
    return found


@settings(max_examples=100)
@given(UNITS, drawn_sites(), drawn_terms(), drawn_terms(), st.data())
def test_no_placement_violates_a_clause_and_the_best_of_all_is_found(
    units: list[Unit], where: Sites, a: TrainingTerms, b: TrainingTerms, data: st.DataObject
) -> None:
    by_set = {"d/a": a, "d/b": b}
    lying = lies(data, units, where)
    # What lies where it may not is removed before anything is placed.
    lawful = {
        (u.name, s.region) for u in units for s in where.sites if permitted(by_set[u.dataset], s.jurisdictions, u.split)
    }
    lying = {name: {r for r in regions if (name, r) in lawful} for name, regions in lying.items()}
    found = put(units, where, by_set, lying=lying)
    assert [f.unit for f in found.assignments] == sorted(units, key=lambda u: u.name)
    for one in found.assignments:
        if one.region is not None:
            assert (one.unit.name, one.region.name) in lawful
            assert (one.how == "stays") == (one.region.name in lying.get(one.unit.name, ()))
            assert one.reasons
        else:
            anywhere = any(name == one.unit.name for name, _ in lawful)
            assert one.how == ("has no room" if anywhere else "may go nowhere")
            named = {r.split(":")[0] for r in one.reasons}
            allowed = {r for name, r in lawful if name == one.unit.name}
            assert named == (allowed if anywhere else {r.name for r in where.regions})
    placeable = [u for u in units if any(name == u.name for name, _ in lawful)]
    possible = brute_force(placeable, where, by_set, lying)
    if not possible:
        assert any(one.how == "has no room" for one in found.homeless)
        return
    assert all(one.how == "may go nowhere" for one in found.homeless)
    earliest = min(end for end, _, _ in possible)
    within = [p for p in possible if p[0] <= earliest * (1 + TOLERANCE) + 1e-6]
    moved = min(p[1] for p in within)
    cost = min(p[2] for p in within if p[1] == moved)
    assert found.end_s <= earliest * (1 + TOLERANCE) + 1e-6
    assert sum(one.bytes_moved for one in found.assignments) == moved
    assert sum(one.cost for one in found.assignments) == pytest.approx(cost, abs=1e-6)


@settings(max_examples=15)
@given(UNITS, drawn_sites(), st.randoms(use_true_random=False), st.data())
def test_placement_does_not_depend_on_the_order_of_anything(
    units: list[Unit], where: Sites, chance: random.Random, data: st.DataObject
) -> None:
    by_set = {"d/a": terms(), "d/b": terms(residency={"storage": ["EU"], "processing": ["DE"]})}
    lying = lies(data, units, where)
    found = put(units, where, by_set, lying=lying)
    for _ in range(3):
        chance.shuffle(units)
        mixed = dict(chance.sample(sorted(lying.items(), key=str), len(lying)))
        assert put(units, where, by_set, lying=mixed) == found


@settings(max_examples=15)
@given(st.lists(st.integers(1, 1000), min_size=4, max_size=12), st.data())
def test_what_was_placed_stays_when_it_is_placed_again(sizes: list[int], data: st.DataObject) -> None:
    where = sites(site("a", "SE", speed=2.0), site("b", "DE"), site("c", "US", speed=0.5))
    units = [unit(f"p{i}", n, data.draw(st.sampled_from(["train", "held-out"]))) for i, n in enumerate(sizes)]
    first = goes(put(units, where, {"d/a": terms()}))
    again = put(units, where, {"d/a": terms()}, lying={name: {str(region)} for name, region in first.items()})
    assert goes(again) == first
    assert {one.how for one in again.assignments} == {"stays"}


def test_tokens_are_in_proportion_to_the_speed_of_a_regions_sites() -> None:
    where = sites(site("a1", "SE", region="a"), site("a2", "SE", region="a"), site("b", "SE"))
    units = [unit(f"p{i}", 100) for i in range(9)]
    found = put(units, where, {"d/a": terms()})
    assert found.finish_s == {"a": 300.0, "region-b": 300.0}
    assert found.finish_bound_s == pytest.approx(300.0)


def test_held_out_rows_are_balanced_apart_from_those_that_are_trained_on() -> None:
    where = sites(site("a", "SE"), site("b", "SE"))
    units = [unit(f"p{i}", 100, split) for i in range(4) for split in PURPOSES]
    found = put(units, where, {"d/a": terms()})
    for split in PURPOSES:
        at = sorted(one.region.name for one in found.assignments if one.region and one.unit.split == split)
        assert at == ["region-a", "region-a", "region-b", "region-b"]


class TestLeastMoves:
    """40 units of 100 tokens over two equal regions; what changes then."""

    units = tuple(unit(f"p{i}", 100) for i in range(40))
    two = sites(site("a", "SE"), site("b", "US"))

    def lying(self) -> dict[str, set[str]]:
        return {name: {str(region)} for name, region in goes(put(self.units, self.two, {"d/a": terms()})).items()}

    def moves(self, found: Placement) -> int:
        return sum(one.how == "moves" for one in found.assignments)

    def test_a_site_more_takes_its_share_and_nothing_moves_between_the_others(self) -> None:
        three = sites(*self.two.sites, site("c", "DE", speed=2.0))
        found = put(self.units, three, {"d/a": terms()}, lying=self.lying())
        assert self.moves(found) == 20
        assert all(one.region.name == "region-c" for one in found.assignments if one.how == "moves" and one.region)
        assert found.finish_s == {"region-a": 1000.0, "region-b": 1000.0, "region-c": 1000.0}

    def test_a_site_that_leaves_gives_its_own_away_and_nothing_else_moves(self) -> None:
        three = sites(*self.two.sites, site("c", "DE", speed=2.0))
        was = goes(put(self.units, three, {"d/a": terms()}))
        left = {name: {str(region)} for name, region in was.items() if region != "region-c"}
        found = put(self.units, self.two, {"d/a": terms()}, lying=left)
        assert self.moves(found) == 0
        assert sum(one.how == "is written" for one in found.assignments) == 20

    def test_a_site_that_is_slower_gives_as_much_away_as_makes_the_ends_equal(self) -> None:
        slowed = sites(site("a", "SE"), site("b", "US", speed=1 / 3))
        found = put(self.units, slowed, {"d/a": terms()}, lying=self.lying())
        assert self.moves(found) == 10
        assert found.finish_s == {"region-a": 3000.0, "region-b": pytest.approx(3000.0)}

    def test_a_new_partition_goes_where_it_ends_soonest_and_nothing_moves(self) -> None:
        slow = sites(site("a", "SE", speed=41 / 20 - 1), site("b", "US"))
        found = put([*self.units, unit("new", 100)], slow, {"d/a": terms()}, lying=self.lying())
        assert self.moves(found) == 0
        assert [one.region.name for one in found.assignments if one.how == "is written" and one.region] == ["region-a"]

    def test_a_stricter_term_moves_what_it_forbids_and_nothing_else(self) -> None:
        other = [unit(f"q{i}", 100, dataset="d/b") for i in range(40)]
        by_set = {"d/a": terms(), "d/b": terms()}
        where = goes(put([*self.units, *other], self.two, by_set))
        strict = {**by_set, "d/b": terms(residency={"storage": ["SE"], "processing": ["SE"]})}
        # Removed at once from where they may no longer lie.
        left = {n: {str(r)} for n, r in where.items() if not (n.startswith("d/b") and r == "region-b")}
        found = put([*self.units, *other], self.two, strict, lying=left)
        assert {one.region.name for one in found.assignments if one.unit.dataset == "d/b" and one.region} == {
            "region-a"
        }
        assert found.finish_s == {"region-a": 4000.0, "region-b": 4000.0}
        back = sum(one.how == "moves" for one in found.assignments)
        assert back == sum(r == "region-a" for n, r in where.items() if n.startswith("d/a"))

    def test_less_than_a_hundredth_of_the_time_moves_nothing(self) -> None:
        slowed = sites(site("a", "SE"), site("b", "US", speed=0.985))
        found = put([unit(f"p{i}", 10) for i in range(400)], slowed, {"d/a": terms()})
        lying = {name: {str(region)} for name, region in goes(found).items()}
        barely = sites(site("a", "SE"), site("b", "US", speed=0.98))
        assert self.moves(put([unit(f"p{i}", 10) for i in range(400)], barely, {"d/a": terms()}, lying=lying)) == 0


def test_a_unit_comes_over_the_cheapest_link_from_wherever_it_lies() -> None:
    links = [Link("a", "c", 1e6, 0.1, 5.0), Link("b", "c", 1e6, 0.1, 2.0)]
    where = sites(site("a", "SE"), site("b", "US"), site("c", "DE"), links=links)
    only_c = {"d/a": terms(residency={"storage": ["DE", "SE", "US"], "processing": ["DE"]})}
    (one,) = put(
        [unit("p", 10, size=10**9)], where, only_c, lying={unit("p", 10).name: {"region-a", "region-b"}}
    ).assignments
    assert (one.how, one.source, one.region and one.region.name) == ("moves", "region-b", "region-c")
    assert (one.bytes_moved, one.cost, one.seconds) == (10**9, 2.0, 1000.1)


def test_what_is_written_beside_its_tables_crosses_no_link() -> None:
    where = sites(site("a", "SE"), site("b", "DE"))
    at_b = Standing({"d/a": where.site("b")})
    (one,) = place([unit("p", 10, "held-out")], where, {"d/a": terms()}, PURPOSES, TODAY, at_b).assignments
    assert one.region is not None
    assert (one.region.name, one.how, one.source, one.bytes_moved) == ("region-b", "is written", "b", 0)


def test_a_new_version_of_a_partition_goes_where_the_one_before_lies() -> None:
    where = sites(site("a", "SE"), site("b", "DE"))
    one = unit("p", 10, "held-out")
    for region in ("region-a", "region-b"):
        assert goes(put([one], where, {"d/a": terms()}, near={one.name: {region}})) == {one.name: region}


def test_a_unit_without_a_place_says_why_for_each_region() -> None:
    where = sites(site("east", "SG"), site("north", "SE"), site("west", "US"))
    strict = {"d/a": terms(residency={"storage": ["FR"], "processing": ["anywhere"]})}
    (found,) = put([unit("p", 5)], where, strict).homeless
    assert found.how == "may go nowhere"
    assert "region-west: residency.storage: region-west lies in US, and only FR is permitted." in found.reasons
    assert len({r.split(":")[0] for r in found.reasons}) == 3


def test_what_has_no_room_is_named_with_what_is_free_and_the_rest_is_placed() -> None:
    where = sites(site("a", "SE", capacity=100), site("b", "US", capacity=1000))
    only_sweden = {"d/a": terms(residency={"storage": ["SE"], "processing": ["SE"]}), "d/b": terms()}
    units = [unit("p", 5, size=60), unit("q", 5, size=50), unit("r", 5, dataset="d/b", size=900)]
    found = put(units, where, only_sweden, taken={"region-a": 20})
    (full,) = found.homeless
    assert (full.unit.partition, full.how) == ("q", "has no room")
    (why,) = full.reasons
    assert why.startswith("region-a: capacity_gb: 0.000 of 0.000 GB are free")
    assert goes(found)[units[0].name] == "region-a"
    assert goes(found)[units[2].name] == "region-b"


def test_bytes_that_stay_for_a_run_take_no_room_again() -> None:
    where = sites(site("a", "SE", capacity=100))
    one = unit("p", 5, size=60)
    assert put([one], where, {"d/a": terms()}, taken={"region-a": 60}).homeless
    kept = {one.name: {"region-a"}}
    found = put([one], where, {"d/a": terms()}, taken={"region-a": 60}, kept=kept, lying=kept)
    assert goes(found) == {one.name: "region-a"}


def test_fewer_bytes_go_before_a_cheaper_link() -> None:
    """Only one of two has room where both lie: the smaller one goes, though its way costs and the other's is free."""
    where = sites(
        site("a", "SE", capacity=100), site("t", "US"), site("u", "DE"), links=[Link("a", "u", 1e6, 0.0, 1e9)]
    )
    by_set = {
        "d/a": terms(residency={"storage": ["SE", "US"], "processing": ["SE", "US"]}),
        "d/b": terms(residency={"storage": ["SE", "DE"], "processing": ["SE", "DE"]}),
    }
    units = [unit("p", 5, "held-out", "d/a", size=100), unit("q", 5, "held-out", "d/b", size=90)]
    found = put(units, where, by_set, lying={u.name: {"region-a"} for u in units})
    assert goes(found) == {units[0].name: "region-a", units[1].name: "region-u"}
    assert [a.cost for a in found.assignments] == [0.0, 90.0]
