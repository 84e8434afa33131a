"""Held-out bits per byte: of a model, of a unigram baseline, and of the difference that a test can see.

Bits per byte = sum of nats / (ln 2 x sum of UTF-8 bytes): it compares models with different tokenizers. Only the
text's own tokens count; `<|endoftext|>` is given as context and never scored.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_contracts.errors import CausewayError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Document:
    """One held-out record: its token ids without special tokens, and the UTF-8 bytes that they spell."""

    record_id: str
    tokens: NDArray[Any]
    text_bytes: int


@dataclass(frozen=True)
class DocumentScore:
    """What one document cost: `nats` is the sum of -ln p over its tokens."""

    record_id: str
    nats: float
    tokens: int
    text_bytes: int


@dataclass(frozen=True)
class Summary:
    """A data set's figure; `standard_error` is in bits per byte, None below two documents."""

    bits_per_byte: float
    standard_error: float | None
    documents: int
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Difference:
    """Model minus baseline on the same documents, in bits per byte; below zero the model is better."""

    bits_per_byte: float
    standard_error: float | None
    minimum_detectable: float | None
    documents: int


def score_documents(
    model: torch.nn.Module,
    documents: Sequence[Document],
    window: int,
    end_id: int,
    batch_windows: int = 16,
) -> list[DocumentScore]:
    """Score every token of every document once, in the order given, on the device the model is on.

    A document is cut into windows of `window` tokens without overlap. The first token of a document is predicted
    from `end_id`; the first of a later window from the one token before it, as in training, where windows start
    anywhere in a record. Windows of like length share a batch; padding stands on the right, where a causal model's
    earlier positions cannot see it, and is masked.
    """
    import torch
    from torch.nn import functional

    cuts = [
        (index, start, min(start + window, len(document.tokens)))
        for index, document in enumerate(documents)
        for start in range(0, len(document.tokens), window)
    ]
    cuts.sort(key=lambda cut: (cut[1] - cut[2], cut[0], cut[1]))
    nats: list[list[float]] = [[] for _ in documents]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(cuts), batch_windows):
                chunk = cuts[first : first + batch_windows]
                inputs, targets = _batch(documents, chunk, end_id)
                logits = model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False).logits.float()
                wanted = torch.from_numpy(targets).to(device)
                losses = functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=-100, reduction="none")
                sums = losses.cpu().numpy().astype(np.float64).sum(axis=1)
                for (index, _, _), value in zip(chunk, sums, strict=True):
                    nats[index].append(float(value))
    finally:
        model.train(was_training)
    return [
        DocumentScore(document.record_id, math.fsum(parts), len(document.tokens), document.text_bytes)
        for document, parts in zip(documents, nats, strict=True)
    ]


def _batch(
    documents: Sequence[Document], chunk: Sequence[tuple[int, int, int]], end_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs [B, L] padded with `end_id` and targets [B, L] padded with -100; the longest cut comes first."""
    length = chunk[0][2] - chunk[0][1]
    inputs = np.full((len(chunk), length), end_id, dtype=np.int64)
    targets = np.full((len(chunk), length), -100, dtype=np.int64)
    for row, (index, start, stop) in enumerate(chunk):
        tokens = documents[index].tokens
        inputs[row, 0] = end_id if start == 0 else tokens[start - 1]
        inputs[row, 1 : stop - start] = tokens[start : stop - 1]
        targets[row, : stop - start] = tokens[start:stop]
    return inputs, targets


def fit_unigram(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return -ln p of each token, with one added to every count of the TRAINING shards; shape [vocabulary]."""
    smoothed = counts.astype(np.float64) + 1.0
    nats: NDArray[np.float64] = np.log(smoothed.sum()) - np.log(smoothed)
    return nats


def score_unigram(nats_per_token: NDArray[np.float64], documents: Sequence[Document]) -> list[DocumentScore]:
    """Score documents by token frequency alone: the baseline that a model has to beat."""
    return [
        DocumentScore(d.record_id, math.fsum(nats_per_token[d.tokens.astype(np.int64)]), len(d.tokens), d.text_bytes)
        for d in documents
    ]


def summarise(scores: Sequence[DocumentScore]) -> Summary:
    """Return bits per byte over documents with the standard error of that ratio (Cochran 1977, 6.4: linearised).

    Documents are taken as independent; where several share a source (`splitGroup`), the true error is larger.

    Raises:
        CausewayError: there is no byte to divide by.
    """
    size = sum(score.text_bytes for score in scores)
    if size == 0:
        raise CausewayError(f"{len(scores)} held-out documents hold no text; there is nothing to evaluate on")
    ratio, error = _ratio([score.nats for score in scores], [score.text_bytes for score in scores])
    return Summary(ratio, error, len(scores), sum(score.tokens for score in scores), size)


def compare(scores: Sequence[DocumentScore], baseline: Sequence[DocumentScore]) -> Difference:
    """Return model minus baseline, paired by record, with the smallest difference that the documents can show.

    Raises:
        CausewayError: the two did not score the same records and bytes, or these hold no text.
    """
    ours = {score.record_id: score for score in scores}
    theirs = {score.record_id: score for score in baseline}
    sizes = {name: score.text_bytes for name, score in ours.items()}
    if len(ours) != len(scores) or sizes != {name: score.text_bytes for name, score in theirs.items()}:
        raise CausewayError(
            f"{len(scores)} and {len(baseline)} scored documents are not the same records with the same bytes; "
            "score both models on one held-out set"
        )
    if sum(sizes.values()) == 0:
        raise CausewayError(f"{len(scores)} held-out documents hold no text; there is nothing to compare on")
    nats = [score.nats - theirs[name].nats for name, score in ours.items()]
    difference, error = _ratio(nats, list(sizes.values()))
    return Difference(difference, error, None if error is None else minimum_detectable(error), len(ours))


def minimum_detectable(standard_error: float, significance: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided test finds with this power: 2.80 standard errors."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - significance / 2) + normal.inv_cdf(power)) * standard_error


def _ratio(nats: Sequence[float], sizes: Sequence[int]) -> tuple[float, float | None]:
    """Sum of nats over sum of bytes, in bits, and its standard error."""
    total, size, count = math.fsum(nats), sum(sizes), len(nats)
    ratio = total / size
    error = None
    if count >= 2:
        squares = math.fsum((n - ratio * b) ** 2 for n, b in zip(nats, sizes, strict=True))
        error = math.sqrt(squares * count / (count - 1)) / size / math.log(2)
    return ratio / math.log(2), error


def to_parquet(scores: Sequence[DocumentScore]) -> bytes:
    """Return per-document results as a Parquet file sorted by record_id; figures only, no text."""
    ordered = sorted(scores, key=lambda score: score.record_id)
    table = pa.table(
        {
            "record_id": pa.array([score.record_id for score in ordered], pa.string()),
            "nats": pa.array([score.nats for score in ordered], pa.float64()),
            "tokens": pa.array([score.tokens for score in ordered], pa.int64()),
            "text_bytes": pa.array([score.text_bytes for score in ordered], pa.int64()),
        },
        metadata={"causeway.format": "1"},
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
