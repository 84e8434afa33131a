"""`run.toml` and data set versions -> a signed plan."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from data_contracts.errors import CausewayError
from data_contracts.policy import Purpose
from data_contracts.signing import public_hex
from training import model as models
from training.admission import require_version
from training.model import ModelSpec
from training.pretrained import read_checkpoint
from training.recipe import InnerRecipe
from training.rounds import merge
from training.rounds.codec import parse_codec
from training.rounds.codecs.names import codec_for
from training.rounds.fragments import fragment_of
from training.rounds.lengths import growing, total_steps
from training.rounds.plan import (
    CurriculumStep,
    Length,
    Membership,
    Outer,
    Overlap,
    Plan,
    PlanDataset,
    PlanSite,
    check_later,
    check_lengths,
    check_overlap,
    check_pace,
    known_codec,
    read_plan,
    write_plan,
)
from training.rounds.run import snapshot_key
from training.shards.manifest import DatasetVersion
from training.shards.permutation import NEWEST_ORDER
from training.shards.region import region_order
from training.sites import Sites
from training.workspace import Workspace

AUTO = "auto"  # in run.toml: the codec of each site by its link to home


class ModelConfig(BaseModel):
    """The shape of the model; its vocabulary follows from the tokenizer, its context from `window`.

    A llama of these sizes; or with `config` any causal language model of transformers; or the `checkpoint` of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden_size: int = Field(default=96, gt=0)
    layers: int = Field(default=3, gt=0)
    heads: int = Field(default=3, gt=0)
    intermediate_size: int = Field(default=256, gt=0)
    config: dict[str, Any] = Field(default={}, description="As config.json of transformers, in place of the sizes")
    checkpoint: str | None = Field(
        default=None, description="A folder with config.json and safetensors to train on from, in place of all that"
    )

    def spec(self, window: int, vocab_size: int) -> ModelSpec:
        """Return what the plan says of a model that begins anew."""
        if self.config:
            config = {**self.config, "vocab_size": vocab_size}
            return ModelSpec(architecture="transformers", config=config, vocab_size=vocab_size, window=window)
        sizes = self.model_dump(exclude={"config", "checkpoint"})
        return ModelSpec(window=window, vocab_size=vocab_size, **sizes)

    def begin(self, window: int, vocab_size: int, seed: int) -> tuple[ModelSpec, dict[str, NDArray[np.float32]]]:
        """Return the model and the parameters that training starts from.

        Raises:
            CausewayError: the checkpoint cannot be read, or has fewer tokens than the tokenizer.
        """
        if self.checkpoint is None:
            spec = self.spec(window, vocab_size)
            return spec, models.initial_parameters(spec, seed)
        spec, parameters = read_checkpoint(Path(self.checkpoint), window)
        if spec.vocab_size < vocab_size:
            raise CausewayError(
                f"{self.checkpoint}: the model has {spec.vocab_size} tokens, the tokenizer {vocab_size}; "
                "name the tokenizer.json that belongs to it in run.toml"
            )
        return spec, parameters

    @model_validator(mode="after")
    def _one_way(self) -> ModelConfig:
        ways = [name for name in ("config", "checkpoint") if getattr(self, name)]
        fields = type(self).model_fields
        sizes = [name for name in sorted(fields) if name not in ways and getattr(self, name) != fields[name].default]
        if len(ways) + bool(sizes) > 1:
            raise ValueError(f"{', '.join(ways + sizes)}: give one of sizes, config and checkpoint")
        return self


class RunConfig(BaseModel):
    """`run.toml`. `purpose` and `tokenizer` have no default: they must be said."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="The run's name; its id adds a hash")
    purpose: str = Field(description='Such as "research pre-training"; frozen in the plan, asked at shard and at train')
    tokenizer: int | str = Field(description="A vocabulary size to train one, or the path of a tokenizer.json")
    tokenizer_sample_bytes: int = Field(default=4_000_000, gt=0)
    datasets: list[str] = Field(min_length=1)
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default={}, description="Mixture weights by data set: all of them, or none; default: by tokens"
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="Without weights a data set weighs its tokens to the 1/temperature: 1 by tokens, above evens out",
    )
    curriculum: list[CurriculumStep] = Field(
        default=[], description="Other weights from a round on: [[curriculum]] from_round = 6, weights = {...}"
    )
    unreadable: Literal["stop", "skip"] = Field(
        default="stop", description="A shard that cannot be read: stop the site, or skip its positions, on record"
    )
    sites: list[str] = Field(default=[], description="Sites that take part; default: all that hold something")
    join_later: list[str] = Field(
        default=[], description="Sites of the plan that are no members until an amendment (amend add-site) adds them"
    )
    model: ModelConfig = ModelConfig()
    inner: InnerRecipe = Field(
        default=InnerRecipe(), description="Inside a site; its optimizer is muon unless said, adamw with a checkpoint"
    )
    outer: Outer = Outer()
    membership: Membership = Membership()
    overlap: Overlap = Overlap()
    codec: str = Field(
        default="int4-128",
        description="How updates cross: fp32, bf16, int8-256, topk-4096-64-2, ...; auto: by each site's link to home",
    )
    codecs: dict[str, str] = Field(default={}, description="Another codec of single sites, by name")
    feedback: float | None = Field(
        default=None, ge=0, le=1, description="Part of what the codec left out that is sent later; default: the codec's"
    )
    weight_cap: float = Field(default=1.0, gt=0, le=1, description="The most that one site weighs in a round")
    clip: Literal["none", "median"] = Field(default="none", description="Scale updates to at most the median norm")
    window: int = Field(default=256, gt=1, description="Context in tokens")
    steps: int = Field(default=15, gt=0, description="Inner steps per site and round")
    growth: float = Field(
        default=1.0,
        ge=1,
        le=10,
        description="Each round has so many times the steps of the one before, up to `longest`",
    )
    longest: int | None = Field(default=None, gt=0, description="Steps of the longest round, with growth")
    lengths: list[Length] = Field(
        default=[], description="Other steps from a round on: [[lengths]] from_round = 6, steps = 60"
    )
    pace: Literal["fixed", "speed", "time"] = Field(
        default="fixed", description="Steps of a site: those of the round, fewer by its speed, or what round_s allows"
    )
    round_s: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description='With pace = "time": seconds of steps in a round'
    )
    rounds: int = Field(default=10, gt=0)
    snapshot_every: int = Field(default=5, gt=0)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _measured(cls, given: Any) -> Any:
        """What run.toml leaves open is as docs/recipes.md found best; a checkpoint keeps to AdamW: not measured."""
        if not isinstance(given, dict):
            return given
        inner, model = given.get("inner", {}), given.get("model", {})
        if not isinstance(inner, dict) or not isinstance(model, dict) or model.get("checkpoint"):
            return given
        return {**given, "inner": {"optimizer": "muon", **inner}}

    @field_serializer("inner")
    def _with_optimizer(self, inner: InnerRecipe) -> dict[str, Any]:
        """A recipe leaves its default out, for the hash of old plans; here it would come back as muon."""
        return {"optimizer": inner.optimizer, **inner.model_dump(mode="json")}

    @field_validator("purpose")
    @classmethod
    def _known_purpose(cls, value: str) -> str:
        try:
            return str(Purpose.parse(value))
        except CausewayError as error:
            raise ValueError(str(error)) from error

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        return value if value == AUTO else known_codec(value)

    @field_validator("codecs")
    @classmethod
    def _known_codecs(cls, value: dict[str, str]) -> dict[str, str]:
        return {site: known_codec(codec) for site, codec in value.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        self._check_mixture()
        check_lengths(self.lengths)
        check_pace(self.pace, self.round_s)
        if (self.growth > 1) != (self.longest is not None) or (self.longest or self.steps) < self.steps:
            raise ValueError(
                f"growth {self.growth:g} with longest {self.longest}: a growth above 1 needs a longest of at least"
                f" {self.steps} steps, and no other length does"
            )
        if self.feedback is not None and (self.codec == AUTO or self.codecs):
            raise ValueError("feedback: it is that of one codec; sites with codecs of their own take what each wants")
        if self.growth > 1 and self.lengths:
            raise ValueError("growth and lengths: give one of them")
        check_overlap(self.overlap, self.membership, [self.steps, *(length.steps for length in self.lengths)])
        try:
            self.model.spec(self.window, 257)
        except ValidationError as error:
            raise ValueError(
                "; ".join(f"model {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            ) from error
        return self

    @property
    def round_lengths(self) -> list[Length]:
        """The lengths that the plan gets: those given, or those that `growth` makes."""
        if self.longest is None:
            return self.lengths
        return growing(self.steps, self.growth, self.longest, self.rounds)

    def codec_of(self, sites: Sites, site: str) -> str:
        """Return the codec of a site's updates: named for it, or by its link to home, or that of the run."""
        if site in self.codecs or self.codec != AUTO:
            return self.codecs.get(site, self.codec)
        link = sites.stated_link(site, "home")
        return codec_for(link.bytes_per_s if link else None, self.outer.momentum_used)

    def _check_mixture(self) -> None:
        """Check that weights name data sets of the run, and in each segment all of them or none."""
        steps = [(1, "weights", self.weights)]
        steps += [(s.from_round, f"curriculum from round {s.from_round}", s.weights) for s in self.curriculum]
        rounds = [number for number, _, _ in steps[1:]]
        if rounds != sorted(set(rounds)):
            raise ValueError(f"curriculum: each step begins after the one before it, not at rounds {rounds}")
        weights: dict[str, float] = {}
        for _, what, given in steps:
            unknown = sorted(set(given) - set(self.datasets))
            if unknown:
                raise ValueError(f"{what} names {', '.join(unknown)}, which is not in datasets")
            weights |= given
            missing = ", ".join(sorted(set(self.datasets) - set(weights)))
            if weights and missing:
                # A weight beside a number of tokens would mean nothing that anybody could have meant.
                raise ValueError(f"{what}: give {missing} a weight as well, or no data set one")
            if weights and max(weights.values()) == 0:
                raise ValueError(f"{what}: one data set needs a weight above 0")


def load_run_config(path: Path) -> RunConfig:
    """Read run.toml; a relative tokenizer path is taken from the file's folder.

    Raises:
        CausewayError: the file is missing, not TOML, or a field is missing, unknown or wrong; names each.
    """
    try:
        config = RunConfig.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise CausewayError(f"{path}: cannot be read: {error.strerror}; write one as in docs/tutorial.md") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CausewayError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc'])) or 'run'}: {e['msg']}" for e in error.errors()]
        raise CausewayError("\n".join(lines)) from error
    if isinstance(config.tokenizer, str):
        config = config.model_copy(update={"tokenizer": str(path.parent / config.tokenizer)})
    if config.model.checkpoint is not None:
        model = config.model.model_copy(update={"checkpoint": str(path.parent / config.model.checkpoint)})
        config = config.model_copy(update={"model": model})
    return config


def _begun(workspace: Workspace, plan: Plan) -> Plan | None:
    """Return the run that is this plan but for the head of the terms: another data set's terms begin no new run.

    Nor do a newer permutation and bound of the norms: a run goes on with those that it began with.
    """
    for key, _ in workspace.home.list("runs"):
        run = key.split("/")[1]
        if key.endswith("/plan.json") and run.startswith(f"{plan.name}-"):
            known = read_plan(workspace.home, run)
            newer = {name: getattr(plan, name) for name in ("terms_head", "order", "norm_bound")}
            if known.model_copy(update=newer) == plan:
                return known
    return None


def _other(codec: str, usual: str) -> str:
    return "" if codec == usual else codec


def make_plan(workspace: Workspace, config: RunConfig, versions: Sequence[DatasetVersion], vocab_size: int) -> Plan:
    """Ask the policy once more, freeze the plan, write snapshot 0 and the signed plan to the home store.

    The same configuration over the same versions is the same plan, so the same run.

    Raises:
        PolicyRefused: a data set's updates may not leave, or a site that holds shards may not train on them.
        CausewayError: no site holds anything, or a named site does not.
    """
    purpose = Purpose.parse(config.purpose)
    terms = workspace.terms()
    holding = {
        s.name: s
        for s in workspace.sites.sites
        if region_order(versions, s.region, config.window, config.seed, config.weights, config.temperature)
    }
    empty = sorted(set(config.sites) - set(holding))
    if empty:
        known = ", ".join(holding) or "none"
        raise CausewayError(f"run {config.name}: {', '.join(empty)} hold nothing to train on; those that do: {known}")
    chosen = [s for s in holding.values() if not config.sites or s.name in config.sites]
    if not chosen:
        raise CausewayError(f"run {config.name}: no site holds a shard to train on; run: causeway shard")
    if strange := sorted(set(config.codecs) - {s.name for s in chosen}):
        known = ", ".join(s.name for s in chosen)
        raise CausewayError(f"run {config.name}: codecs names {', '.join(strange)}; the sites of the run are {known}")
    try:
        check_later(config.join_later, [s.name for s in chosen])
    except ValueError as error:
        raise CausewayError(f"run {config.name}: join_later: {error}") from error
    for version in versions:
        require_version(terms, version, purpose, workspace.sites.home.place, chosen)
    spec, parameters = config.model.begin(config.window, vocab_size, config.seed)
    fragment_of({name: value.shape for name, value in parameters.items()}, config.overlap.fragments)
    codec = codec_for(None, 0.0) if config.codec == AUTO else config.codec
    state = merge.initial_state(parameters, config.outer.method)
    snapshot, sha = merge.pack_state(state)
    plan = Plan(
        name=config.name,
        purpose=str(purpose),
        owner=public_hex(workspace.owner),
        home_jurisdictions=list(workspace.sites.home.jurisdictions),
        sites=[
            PlanSite(
                name=s.name,
                region=s.region,
                jurisdictions=list(s.jurisdictions),
                public_key=public_hex(workspace.site_key(s.name)),
                codec=_other(config.codec_of(workspace.sites, s.name), codec),
                speed=s.tokens_per_s if config.pace == "speed" else 0.0,
            )
            for s in chosen
        ],
        datasets=[PlanDataset(dataset=v.dataset, version=v.sha, terms_sha=v.terms_sha) for v in versions],
        tokenizer=versions[0].tokenizer,
        model=spec.model_dump(mode="json"),
        inner=config.inner.model_dump(mode="json"),
        outer=config.outer,
        membership=config.membership,
        overlap=config.overlap,
        codec=codec,
        feedback=parse_codec(codec).decay if config.feedback is None else config.feedback,
        weight_cap=config.weight_cap,
        clip=config.clip,
        window=config.window,
        batch_windows=config.inner.batch_windows,
        steps=config.steps,
        lengths=config.round_lengths,
        pace=config.pace,
        round_s=config.round_s,
        rounds=config.rounds,
        seed=config.seed,
        weights=dict(sorted(config.weights.items())),
        temperature=config.temperature,
        curriculum=config.curriculum,
        unreadable=config.unreadable,
        later=sorted(config.join_later),
        norm_bound="robust",
        order=NEWEST_ORDER,
        snapshot_every=config.snapshot_every,
        snapshot0=sha,
        terms_head=terms.sha,
    )
    inner = config.inner.model_copy(update={"total_steps": total_steps(plan)})
    plan = plan.model_copy(update={"inner": inner.model_dump(mode="json")})
    plan = _begun(workspace, plan) or plan
    workspace.home.ensure(snapshot_key(plan.run, 0, sha), snapshot)
    write_plan(workspace.home, plan, workspace.owner)
    return plan
