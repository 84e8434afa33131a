"""The plan of a run: everything a site must know before round 1, frozen, signed by the owner.

Format: docs/formats.md, section "plan". A run's id is the plan's name and the start of its hash, so the same plan is
the same run: starting it again continues it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError
from data_contracts.signing import check_signature, public_hex, sign
from training.rounds.codecs.names import parse_codec
from training.shards.permutation import NEWEST_ORDER
from training.shards.schedule import LANES

# Fields that plans of the first version lack.
_LATER = (
    "temperature",
    "curriculum",
    "unreadable",
    "order",
    "feedback",
    "weight_cap",
    "clip",
    "lengths",
    "pace",
    "round_s",
    "overlap",
    "later",
    "norm_bound",
)
# Fields of a site that plans of earlier versions lack.
_LATER_OF_SITE = ("codec", "speed")
_LATER_OF_MEMBERSHIP = ("carry_rounds",)


def known_codec(name: str) -> str:
    """Return the name of a codec that this Causeway speaks, for a field of a model.

    Raises:
        ValueError: it speaks none of that name; says which it does.
    """
    try:
        return parse_codec(name).name
    except RoundError as error:
        raise ValueError(str(error)) from error


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanSite(_Frozen):
    """A site as the plan lists it; `public_key` is its Ed25519 key in hex.

    `codec` is that of its updates (empty: the plan's). `speed` is what sites.toml says of it, in comparison with the
    other sites (0: nothing): it counts until the chain knows better.
    """

    name: str
    region: str
    jurisdictions: list[str]
    public_key: str
    codec: str = ""
    speed: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        return known_codec(value) if value else value


class PlanDataset(_Frozen):
    """A data set version by its SHA-256, and the terms it was admitted under."""

    dataset: str
    version: str
    terms_sha: str


class Outer(_Frozen):
    """The outer optimizer. `lr` and `momentum` are dimensionless."""

    method: Literal["nesterov", "sgd", "average"] = "nesterov"
    lr: float = Field(default=0.7, gt=0)
    momentum: float = Field(default=0.6, ge=0, lt=1)

    @property
    def momentum_used(self) -> float:
        """The momentum of the method: 0 of one that has none."""
        return self.momentum if self.method == "nesterov" else 0.0


class Membership(_Frozen):
    """When a round closes without a site.

    `lost_region`: `wait` for it as long as it takes, or `reweight`: close when `quorum` sites have contributed and
    the grace (median + `grace_mad` x MAD of past waits, at least `grace_floor_s`, by the closer's monotonic clock) is
    over. `late`: what becomes of late work; `discard` issues its ranges again, `carry` applies it in a later round, at
    most `carry_rounds` after the one it was made for.
    """

    lost_region: Literal["wait", "reweight"] = "wait"
    quorum: int = Field(default=1, ge=1)
    grace_floor_s: float = Field(default=30.0, gt=0)
    grace_mad: float = Field(default=5.0, ge=0)
    late: Literal["discard", "carry"] = "discard"
    carry_rounds: int = Field(default=2, ge=1)


class Overlap(_Frozen):
    """What crosses while the sites train on (docs/overlap.md); the defaults are none of it.

    Of `fragments` parts of the model one crosses in each round. A round's result is applied at step `delay_steps` of
    the round after it, as `alpha` x the site's own parameters + the rest x the outer ones; without delay as it is.
    """

    fragments: int = Field(default=1, ge=1)
    delay_steps: int = Field(default=0, ge=0)
    alpha: float = Field(default=0.5, ge=0, le=1)

    @property
    def goes_on(self) -> bool:
        """True where a site keeps parameters of its own from one round to the next."""
        return self.fragments > 1 or self.delay_steps > 0


class CurriculumStep(_Frozen):
    """Mixture weights from a round on, by data set: one that is not named keeps its own, one of weight 0 rests."""

    from_round: int = Field(ge=1)
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(min_length=1)


class Length(_Frozen):
    """Inner steps of a round from a round on."""

    from_round: int = Field(ge=1)
    steps: int = Field(gt=0)


class Plan(_Frozen):
    """The plan. `steps` are inner steps per site and round; `weights` are mixture weights (none: by tokens).

    `lengths` change the steps at given rounds: training/rounds/lengths.py reads them, and nobody else.
    `pace`: every site takes those steps (`fixed`), or fewer by its `speed` beside the fastest, or what it can do in the
    `time` of `round_s` seconds.

    A data set without a weight weighs its windows to the 1/`temperature`. `curriculum` changes weights at given rounds.
    `unreadable`: what becomes of a shard that cannot be read: `stop` the site, or `skip` its positions, on record.
    The sites of `later` are members from the amendment on that adds them.
    `order` is the permutation of a stream's windows (training/shards/permutation.py). `feedback` is the part of what
    the codec left out that a site adds to its next update (0: none); no site weighs more than `weight_cap` of a round;
    `clip`: `median` scales an update whose norm is above the median of the round's norms down to it. `norm_bound`: an
    update is refused above ten times the model's own norm, and if `robust` beyond training/rounds/outliers.py as well.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    purpose: str
    owner: str
    home_jurisdictions: list[str]
    sites: list[PlanSite] = Field(min_length=1)
    datasets: list[PlanDataset] = Field(min_length=1)
    tokenizer: str
    model: dict[str, Any]
    inner: dict[str, Any]
    outer: Outer = Outer()
    membership: Membership = Membership()
    overlap: Overlap = Overlap()
    codec: str = "fp32"
    feedback: float = Field(default=0.0, ge=0, le=1)
    weight_cap: float = Field(default=1.0, gt=0, le=1)
    clip: Literal["none", "median"] = "none"
    norm_bound: Literal["model", "robust"] = "model"
    window: int = Field(gt=1)
    batch_windows: int = Field(gt=0)
    steps: int = Field(gt=0)
    lengths: list[Length] = []
    pace: Literal["fixed", "speed", "time"] = "fixed"
    round_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rounds: int = Field(gt=0)
    seed: int
    weights: dict[str, float] = {}
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    curriculum: list[CurriculumStep] = []
    unreadable: Literal["stop", "skip"] = "stop"
    later: list[str] = []
    order: int = Field(default=1, ge=1, le=NEWEST_ORDER)
    lanes: Literal[64] = LANES  # type: ignore[assignment]
    snapshot_every: int = Field(default=5, gt=0)
    snapshot0: str
    terms_head: str

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        return known_codec(value)

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Plan:
        check_lengths(self.lengths)
        check_pace(self.pace, self.round_s)
        check_overlap(self.overlap, self.membership, [self.steps, *(length.steps for length in self.lengths)])
        return self

    @model_validator(mode="after")
    def _some_begin(self) -> Plan:
        check_later(self.later, [site.name for site in self.sites])
        return self

    def body(self) -> dict[str, Any]:
        """Return the plan as its JSON value, unsigned.

        Fields that plans of earlier versions lack are left out at their default: what they say is what was done then,
        and an old plan keeps its hash.
        """
        body = self.model_dump(mode="json")
        _leave_out(body, type(self), _LATER)
        for site in body["sites"]:
            _leave_out(site, PlanSite, _LATER_OF_SITE)
        _leave_out(body["membership"], Membership, _LATER_OF_MEMBERSHIP)
        return body

    @property
    def sha(self) -> str:
        """SHA-256 of the unsigned plan: the `previous` of round 1."""
        return document_sha(self.body())

    @property
    def run(self) -> str:
        """The run's id."""
        return f"{self.name}-{self.sha[:8]}"

    def weights_from(self, number: int) -> dict[str, float]:
        """Return the weights that the curriculum sets from this round on; empty when none of its steps begins there."""
        return next((dict(step.weights) for step in self.curriculum if step.from_round == number), {})

    def site(self, name: str) -> PlanSite:
        """Return a site of the plan.

        Raises:
            RoundError: the plan has no such site.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise RoundError(f"run {self.run}: site {name!r} is not in its plan")

    def codec_of(self, site: str) -> str:
        """Return the codec of a site's updates."""
        return self.site(site).codec or self.codec

    def feedback_of(self, site: str) -> float:
        """Return the decay of a site's error feedback: the plan's, or that of a codec of its own."""
        own = self.site(site).codec
        return parse_codec(own).decay if own else self.feedback


def check_lengths(lengths: Sequence[Length]) -> None:
    """Check that each length begins after the one before it.

    Raises:
        ValueError: one does not; says at which rounds they begin.
    """
    rounds = [length.from_round for length in lengths]
    if rounds != sorted(set(rounds)):
        raise ValueError(f"lengths: each begins after the one before it, not at rounds {rounds}")


def check_pace(pace: str, round_s: float) -> None:
    """Check that a round has a time where, and only where, its steps go by time.

    Raises:
        ValueError: it has one without the other.
    """
    if (pace == "time") != (round_s > 0):
        raise ValueError(f"round_s {round_s:g} does not go with pace {pace!r}: pace 'time' needs it, no other has it")


def check_later(later: Sequence[str], sites: Sequence[str]) -> None:
    """Check that the sites that join later are sites of the plan, and leave one to begin.

    Raises:
        ValueError: they are not, or all would join later; names the sites.
    """
    known = ", ".join(sites)
    if strange := sorted(set(later) - set(sites)):
        raise ValueError(f"{', '.join(strange)} cannot join later: the sites of the run are {known}")
    if later and not set(sites) - set(later):
        raise ValueError(f"all of {known} would join later: one has to begin")


def check_overlap(overlap: Overlap, membership: Membership, steps: Sequence[int]) -> None:
    """Check that a delay fits into the shortest round, of `steps`, and that no late work is carried beside it.

    Raises:
        ValueError: it does not, or some is.
    """
    if overlap.delay_steps > min(steps):
        raise ValueError(
            f"overlap: delay_steps {overlap.delay_steps} is beyond the {min(steps)} steps of the shortest round"
        )
    if overlap.goes_on and membership.late == "carry":
        # A site's own parameters would hold work that another round applies once more.
        raise ValueError("overlap goes with late = 'discard' only: leave out the one or the other")


def _leave_out(body: dict[str, Any], kind: type[BaseModel], names: Sequence[str]) -> None:
    for name in names:
        default = kind.model_fields[name].default
        if body[name] == (default.model_dump(mode="json") if isinstance(default, BaseModel) else default):
            del body[name]


def write_plan(home: Store, plan: Plan, owner: Ed25519PrivateKey) -> str:
    """Write the signed plan to the home store; return the run's id. Writing it again is harmless."""
    if public_hex(owner) != plan.owner:
        raise RoundError(f"run {plan.run}: the key given is not the plan's owner")
    home.ensure(plan_key(plan.run), canonical_json(sign(plan.body(), owner)))
    return plan.run


def plan_key(run: str) -> str:
    """Key of a run's plan in the home store."""
    return f"runs/{run}/plan.json"


def read_plan(home: Store, run: str) -> Plan:
    """Read a run's plan and check its signature and its name.

    Raises:
        RoundError: no such run, not a plan, wrongly signed, or not the plan its run id names.
    """
    key = plan_key(run)
    try:
        document = home.get_json(key)
    except ObjectMissing as error:
        runs = sorted({k.split("/")[1] for k, _ in home.list("runs") if k.endswith("/plan.json")})
        raise RoundError(f"no run {run!r} in {home.url}; it has: {', '.join(runs) or 'none'}") from error
    try:
        plan = Plan.model_validate({k: v for k, v in document.items() if k != "signature"})
    except (ValidationError, AttributeError) as error:
        raise RoundError(f"{home.url}/{key}: not a plan of format 1: {error}") from error
    check_signature(document, plan.owner, f"{home.url}/{key}")
    if plan.run != run:
        raise RoundError(f"{home.url}/{key}: this plan's run is {plan.run}; it was changed or moved")
    return plan
