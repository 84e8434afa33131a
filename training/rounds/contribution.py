"""A contribution: one site's update of one round, signed, immutable, named by its content.

runs/<run>/contributions/000042/<site>-<payload sha>.safetensors    the encoded update
runs/<run>/contributions/000042/<site>-<header sha>.json            the signed header, written last
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json, document_sha, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError
from data_contracts.signing import check_signature, sign
from training.rounds.codec import Shapes, Tensors, check_size, decode, encode
from training.rounds.feedback import Feedback
from training.rounds.merge import halving_norm
from training.rounds.plan import Plan

FORMAT = 1
# 2: with positions that could not be read. 3: of a run with error feedback. 4: with any of the fields in _LATER, each
# left out at its default. A header with none of them is of format 1.
SKIPPING_FORMAT = 2
FEEDBACK_FORMAT = 3
LATER_FORMAT = 4
_LATER = {"made_for": 0, "seconds": 0.0}
HEADER_BYTES = 1 << 20  # claims take about 2 KB; the rest is room for ranges that were skipped
_FEEDBACK = ("", "new", "kept", "clean")
_TEXTS = ("run", "plan", "site", "base", "base_state", "terms_head", "codec", "payload", "inner", "device")
Claim = tuple[int, int, int]


@dataclass(frozen=True)
class Header:
    """What a site claims of its update.

    `base` is the SHA-256 of the commit it was trained from (round 1: of the plan), `base_state` that of the outer
    state; `claims` are (lane, from, to) with `to` exclusive; `loss` is the mean in nats per token over `tokens`
    targets; `norm` is the 2-norm of the decoded update by the halving tree; `inner` says where the inner optimizer's
    state came from: `new` (round 1), `kept`, or `clean` (lost, begun again); `skipped` are the parts of the claims,
    (lane, from, to) in order, that could not be read and were not trained on; `feedback` says of the residual of error
    feedback what `inner` says of the optimizer's state, and is empty where the plan has none; `seconds` is what the
    steps took by the site's own monotonic clock, where the plan's pace asks for it (else 0); `made_for` is the round
    that carried work was made for (0: this one).
    """

    run: str
    plan: str
    round: int
    site: str
    base: str
    base_state: str
    terms_head: str
    claims: tuple[Claim, ...]
    tokens: int
    tokens_by_dataset: dict[str, int]
    steps: int
    loss: float
    norm: float
    codec: str
    payload: str
    payload_bytes: int
    inner: str
    device: str
    skipped: tuple[Claim, ...] = ()
    feedback: str = ""
    seconds: float = 0.0
    made_for: int = 0

    @property
    def format(self) -> int:
        """The format of the header."""
        if any(getattr(self, name) != default for name, default in _LATER.items()):
            return LATER_FORMAT
        if self.feedback:
            return FEEDBACK_FORMAT
        return SKIPPING_FORMAT if self.skipped else FORMAT

    def body(self) -> dict[str, Any]:
        """Return the header as its JSON value, unsigned."""
        body = {**asdict(self), "format": self.format, "claims": [list(c) for c in self.claims]}
        if body.pop("skipped"):
            body["skipped"] = [list(c) for c in self.skipped]
        for name, default in {"feedback": "", **_LATER}.items():
            if body[name] == default:
                del body[name]
        return body


@dataclass(frozen=True)
class Contribution:
    """A header as signed, its SHA-256, and the payload's bytes."""

    header: Header
    document: dict[str, Any]
    payload: bytes

    @property
    def sha(self) -> str:
        """SHA-256 of the signed header: how a commit names the contribution."""
        return document_sha(self.document)


def folder(run: str, round_number: int) -> str:
    """The folder of a round's contributions in a site's store."""
    return f"runs/{run}/contributions/{round_number:06d}"


def make(
    header: dict[str, Any],
    update: Tensors,
    codec: str,
    key: Ed25519PrivateKey,
    feedback: Feedback | None = None,
) -> Contribution:
    """Encode an update and sign its header; `header` holds the fields that do not follow from the update.

    With `feedback`, what is owed of earlier updates goes along, and what the codec leaves out is kept there.
    """
    owed = feedback.owed(update) if feedback else update
    payload = encode(codec, owed)
    shapes = {name: tensor.shape for name, tensor in update.items()}
    decoded = decode(codec, payload, shapes, "the update to be sent")
    if feedback:
        feedback.settle(owed, decoded)
    full = Header(
        **header, codec=codec, norm=halving_norm(decoded), payload=sha256(payload), payload_bytes=len(payload)
    )
    return Contribution(full, sign(full.body(), key), payload)


def carried(
    one: Contribution, number: int, base: str, base_state: str, terms_head: str, key: Ed25519PrivateKey
) -> Contribution:
    """Return work that missed its round, signed again for round `number`; the update is the same."""
    made_for = one.header.made_for or one.header.round
    header = replace(
        one.header, round=number, base=base, base_state=base_state, terms_head=terms_head, made_for=made_for
    )
    return Contribution(header, sign(header.body(), key), one.payload)


def publish(store: Store, contribution: Contribution) -> int:
    """Write payload, then header, to the site's own store; return the bytes. Publishing again is harmless."""
    h = contribution.header
    stem = f"{folder(h.run, h.round)}/{h.site}"
    header = canonical_json(contribution.document)
    store.ensure(f"{stem}-{h.payload}.safetensors", contribution.payload)
    store.ensure(f"{stem}-{contribution.sha}.json", header)
    return len(header) + len(contribution.payload)


def find(store: Store, run: str, round_number: int, site: str) -> list[str]:
    """Return the keys of a site's contribution headers for a round."""
    keys = [key for key, _ in store.list(folder(run, round_number))]
    name = re.compile(rf"{re.escape(site)}-[0-9a-f]{{64}}\.json")
    return [k for k in keys if name.fullmatch(k.rsplit("/", 1)[1])]


def read(store: Store, key: str, shapes: Shapes | None = None) -> Contribution:
    """Read a header and its payload; with `shapes` of the update, nothing that is over size is downloaded.

    Raises:
        RoundError: the header is not one, or the payload is missing, over size or not the one it names.
        StoreError: the store cannot be reached; that makes nothing invalid.
    """
    what = f"{store.url}/{key}"
    if shapes is not None and store.size(key) > HEADER_BYTES:
        raise RoundError(f"{what}: over size: {store.size(key)} bytes where a header has at most {HEADER_BYTES}")
    data = store.get(key)
    document = _json(data, what)
    header = parse(document, what)
    stem = f"{folder(header.run, header.round)}/{header.site}"
    if key != f"{stem}-{document_sha(document)}.json":
        raise RoundError(f"{what}: not the header its name says; it was changed or moved")
    try:
        if shapes is not None:
            size = store.size(f"{stem}-{header.payload}.safetensors")
            check_size(header.codec, size, shapes, what)
            if size != header.payload_bytes:
                raise RoundError(f"{what}: names a payload of {header.payload_bytes} bytes, which has {size}")
        payload = store.get(f"{stem}-{header.payload}.safetensors")
    except ObjectMissing as error:
        raise RoundError(f"{what}: its payload is not there") from error
    if sha256(payload) != header.payload:
        raise RoundError(f"{store.url}/{stem}-{header.payload}.safetensors: damaged: not the payload its name says")
    return Contribution(header, document, payload)


def _json(data: bytes, what: str) -> Any:
    try:
        document = json.loads(data)
        canonical_json(document)  # no NaN and no half of a surrogate pair: what cannot be hashed cannot be signed
    except (ValueError, RecursionError) as error:
        raise RoundError(f"{what}: damaged: not JSON ({error})") from error
    return document


def parse(document: Any, what: str) -> Header:
    """Return the header of a signed document, its types checked.

    Raises:
        RoundError: it is not a contribution header of a format known here.
    """
    try:
        if document["format"] not in (FORMAT, SKIPPING_FORMAT, FEEDBACK_FORMAT, LATER_FORMAT):
            raise RoundError(
                f"{what}: contribution format {document['format']!r}; this Causeway reads {FORMAT} to {LATER_FORMAT}"
            )
        body = {name: value for name, value in document.items() if name not in ("signature", "format")}
        header = Header(**{**body, "claims": _claims(body["claims"]), "skipped": _claims(body.get("skipped", []))})
        if header.format != document["format"]:
            raise TypeError(
                f"format {document['format']} does not go with {len(header.skipped)} skipped ranges and feedback"
                f" {header.feedback!r}{''.join(f', {name}' for name in _LATER if name in body)}"
            )
        if header.feedback not in _FEEDBACK:
            raise TypeError(f"feedback is {header.feedback!r}")
        for name in _TEXTS:
            if not isinstance(getattr(header, name), str):
                raise TypeError(f"{name} is no text")
        numbers = (
            header.made_for,
            header.tokens,
            header.steps,
            header.round,
            header.payload_bytes,
            *header.tokens_by_dataset.values(),
        )
        finite = math.isfinite(header.norm) and math.isfinite(header.loss)
        if type(header.seconds) not in (int, float) or not 0 <= header.seconds < math.inf:
            raise TypeError(f"seconds are {header.seconds!r}")
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise RoundError(f"{what}: not a contribution header ({error})") from error
    if not re.fullmatch(r"[0-9a-f]{64}", header.payload):
        raise RoundError(f"{what}: payload {header.payload!r} is no SHA-256")
    if not all(type(n) is int and n >= 0 for n in numbers) or not finite:
        raise RoundError(f"{what}: counts must be whole numbers of 0 or more, loss and norm finite")
    return header


def _claims(given: Any) -> tuple[Claim, ...]:
    return tuple((int(lane), int(start), int(end)) for lane, start, end in given)


def check(contribution: Contribution, public_key: str, shapes: dict[str, tuple[int, ...]], what: str) -> Tensors:
    """Check a contribution by itself and return its decoded update.

    Raises:
        RoundError: wrongly signed, undecodable, or its declared norm or size is not the update's; names `what`.
    """
    header = contribution.header
    check_signature(contribution.document, public_key, what)
    if len(contribution.payload) != header.payload_bytes or sha256(contribution.payload) != header.payload:
        raise RoundError(f"{what}: the payload is not the one its header names")
    update = decode(header.codec, contribution.payload, shapes, what)
    norm = halving_norm(update)
    if norm != header.norm:
        raise RoundError(f"{what}: declares norm {header.norm!r}, its update has {norm!r}")
    return update


def read_input(home: Store, run: str, sha: str, payload: str) -> Contribution:
    """Read a committed input from the home store.

    Raises:
        StoreError: header or payload is missing, or not the bytes its name says: the commit stands, the copy is
            damaged.
        RoundError: the bytes are those its name says, and they are no contribution.
    """
    header, document = _input_header(home, run, sha)
    return Contribution(header, document, home.get(f"runs/{run}/inputs/{payload}.safetensors", payload))


def read_input_header(home: Store, plan: Plan, sha: str) -> Header:
    """Read the header of a committed input from the home store, its signature checked.

    Raises:
        StoreError: it is missing, or not the bytes its name says.
        RoundError: it is no header, or not signed by a site of the plan.
    """
    header, document = _input_header(home, plan.run, sha)
    check_signature(document, plan.site(header.site).public_key, f"{home.url}/{_input_key(plan.run, sha)}")
    return header


def _input_header(home: Store, run: str, sha: str) -> tuple[Header, dict[str, Any]]:
    key = _input_key(run, sha)
    document = _json(home.get(key, sha), f"{home.url}/{key}")
    return parse(document, f"{home.url}/{key}"), document


def _input_key(run: str, sha: str) -> str:
    return f"runs/{run}/inputs/{sha}.json"


def copy_input(home: Store, contribution: Contribution) -> int:
    """Copy a contribution to the home store before a commit names it; return its bytes."""
    run, header = contribution.header.run, canonical_json(contribution.document)
    home.ensure(f"runs/{run}/inputs/{contribution.header.payload}.safetensors", contribution.payload)
    home.ensure(_input_key(run, contribution.sha), header)
    return len(header) + len(contribution.payload)
