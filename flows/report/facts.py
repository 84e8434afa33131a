"""What a run report shows: one plain structure of numbers, names and sentences, without a restricted value.

Every field is JSON-able. Names (of data sets, sites, files) come from outside and are escaped where they are shown.
Times are seconds since the run began, sizes are bytes, losses are nats per token, evaluations are bits per byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Example:
    """Where one refused record is: its keyed id (None: its key could not be read) and source file; never its text."""

    record_id: str | None
    source_file: str
    source_line: int | None = None


@dataclass(frozen=True)
class Refusal:
    """One reason, and the rows it kept out: by the contract (quarantine) or afterwards (curation)."""

    rule: str
    description: str
    rows: int
    stage: Literal["quarantine", "curation"] = "quarantine"
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """One data set as it came in; a row may fail several rules, so refusals may add up to more than their rows.

    `licences` counts accepted rows by SPDX expression; `tables_at` is the place that holds its tables.
    """

    name: str
    contract_version: str
    rows_in: int
    bytes_in: int
    partitions: int
    partitions_refused: int
    rows_accepted: int
    rows_quarantined: int
    rows_removed: int
    rows_redacted: int = 0
    licences: Mapping[str, int] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    tables_at: str | None = None


@dataclass(frozen=True)
class Site:
    """One data center. `tokens_trained` counts what commits applied."""

    name: str
    region: str
    jurisdictions: tuple[str, ...]
    accelerator: str
    tokens_trained: int = 0


@dataclass(frozen=True)
class Placement:
    """May this data set be held and trained on at this site? Sentences name the clause; tokens > 0: placed there."""

    data_set: str
    site: str
    allowed: bool
    reasons: tuple[str, ...]
    tokens: int = 0
    shards: int = 0


@dataclass(frozen=True)
class Loss:
    """Mean training loss of one site in one round, in nats per token."""

    site: str
    round: int
    loss: float


@dataclass(frozen=True)
class Span:
    """What one site did from start_s to end_s, in seconds since the run began."""

    site: str
    kind: Literal["compute", "wait", "transfer"]
    start_s: float
    end_s: float
    round: int


@dataclass(frozen=True)
class RoundSite:
    """What one site did in one round; `outcome` is `counted`, `late`, or `refused: ` and why.

    `device` is what the signed header says, with the plan's dtype. Figures that the site kept itself, or that nobody
    measured, are None; `mfu_note` and `energy` say how the figure beside them is known, or why it is not.
    """

    round: int
    site: str
    outcome: str
    tokens: int = 0
    loss: float | None = None
    weight: float = 0.0
    norm: float | None = None
    device: str = ""
    bytes_out: int = 0
    grad_norm: float | None = None
    compute_s: float | None = None
    wait_s: float | None = None
    encode_s: float | None = None
    transfer_s: float | None = None
    utilisation: float | None = None
    mfu: float | None = None
    mfu_note: str = ""
    energy_j: float | None = None
    energy: str = ""


@dataclass(frozen=True)
class Change:
    """What changed from a round on: a site that joins or leaves, an amendment, a site's admission."""

    round: int
    what: str
    reason: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Held-out bits per byte of one data set (lower is better), over `text_bytes` bytes of `documents` documents.

    `smallest_difference`: the least change, in bits per byte, that this test can tell from chance; None: not computed.
    """

    data_set: str
    before: float
    after: float
    unigram: float
    documents: int
    text_bytes: int
    smallest_difference: float | None = None


@dataclass(frozen=True)
class Transfer:
    """All objects of one kind that left one site."""

    site: str
    destination: str
    object_kind: str
    objects: int
    bytes_out: int


@dataclass(frozen=True)
class LineageStep:
    """A count of one step: `runs` runs of a job that made `outputs` different nodes; `failed` did not end well."""

    job: str
    runs: int
    outputs: int
    failed: int = 0


@dataclass(frozen=True)
class LineageNode:
    """A node on the walk from the model back to the sources, `depth` steps from the model."""

    depth: int
    node: str
    kind: str


@dataclass(frozen=True)
class PolicyCheck:
    """What the checker found when it re-read every store and table."""

    violations: int
    objects_checked: int
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChainCheck:
    """Whether the commit chain replays from the plan: every signature, sha and merged byte."""

    verified: bool
    commits: int
    head: str
    detail: str = ""


@dataclass(frozen=True)
class Command:
    """One command that repeats a part of the run, and what it does."""

    command: str
    purpose: str


@dataclass(frozen=True)
class RunFacts:
    """All that the report of one run shows.

    `policy` and `chain` are None when nobody checked; the report then says "not checked", never zero. Data sets and
    sites are shown in the order given; spans, losses and walk in any order.
    """

    run: str
    model: str
    started_at: str
    finished_at: str
    parameters: int
    rounds: int
    shards: int
    data_sets: tuple[DataSet, ...]
    sites: tuple[Site, ...]
    placements: tuple[Placement, ...] = ()
    losses: tuple[Loss, ...] = ()
    spans: tuple[Span, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    lineage_steps: tuple[LineageStep, ...] = ()
    lineage_walk: tuple[LineageNode, ...] = ()
    policy: PolicyCheck | None = None
    chain: ChainCheck | None = None
    commands: tuple[Command, ...] = ()
    round_sites: tuple[RoundSite, ...] = ()
    changes: tuple[Change, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    format: int = 1

    @property
    def rows_in(self) -> int:
        """Rows that came in."""
        return sum(d.rows_in for d in self.data_sets)

    @property
    def rows_accepted(self) -> int:
        """Rows that passed every rule of their contract."""
        return sum(d.rows_accepted for d in self.data_sets)

    @property
    def rows_quarantined(self) -> int:
        """Rows set aside by their contract."""
        return sum(d.rows_quarantined for d in self.data_sets)

    @property
    def rows_removed(self) -> int:
        """Accepted rows that curation kept out of training."""
        return sum(d.rows_removed for d in self.data_sets)

    @property
    def tokens_trained(self) -> int:
        """Tokens that commits applied, over all sites."""
        return sum(s.tokens_trained for s in self.sites)

    @property
    def bytes_out(self) -> int:
        """Bytes that left their site, over all sites."""
        return sum(t.bytes_out for t in self.transfers)

    def bits_per_byte(self, which: Literal["before", "after", "unigram"]) -> float | None:
        """Return held-out bits per byte over all data sets (total bits over total bytes); None without evaluation."""
        total = sum(e.text_bytes for e in self.evaluations)
        if total == 0:
            return None
        return float(sum(getattr(e, which) * e.text_bytes for e in self.evaluations) / total)


def to_document(facts: RunFacts) -> dict[str, Any]:
    """Return the facts as a JSON-able document."""
    return asdict(facts)


def from_document(document: Mapping[str, Any]) -> RunFacts:
    """Return the facts of a document that `to_document` made.

    Raises:
        CausewayError: a field is missing or of the wrong type; names each.
    """
    from pydantic import TypeAdapter, ValidationError

    from data_contracts.errors import CausewayError

    try:
        return TypeAdapter(RunFacts).validate_python(dict(document))
    except ValidationError as error:
        lines = [f"run facts: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise CausewayError("\n".join(lines)) from error
