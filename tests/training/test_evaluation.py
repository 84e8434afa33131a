from __future__ import annotations

import io
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import CausewayError
from training.evaluation import (
    Document,
    DocumentScore,
    compare,
    fit_unigram,
    minimum_detectable,
    score_documents,
    score_unigram,
    summarise,
    to_parquet,
)
from training.model import ModelSpec, build

torch.set_num_threads(1)
SPEC = ModelSpec(vocab_size=300, hidden_size=32, layers=1, heads=2, intermediate_size=48, window=16)
MODEL = build(SPEC, 0)
with torch.no_grad():  # untrained weights give nearly the same answer everywhere; make them disagree
    for _tensor in MODEL.parameters():
        if _tensor.ndim == 2:
            _tensor.mul_(8)


def documents(*lengths: int) -> list[Document]:
    generator = np.random.default_rng(1)
    return [Document(f"r{i}", generator.integers(1, 300, n).astype(np.uint16), 2 * n) for i, n in enumerate(lengths)]


def nats_one_window_at_a_time(document: Document, window: int) -> float:
    ids = [0, *document.tokens.tolist()]
    total = 0.0
    for start in range(0, len(document.tokens), window):
        given_ids = torch.tensor([ids[start : start + window]])
        logits = MODEL(input_ids=given_ids).logits[0].detach().double().log_softmax(-1)
        wanted = ids[start + 1 : start + 1 + window]
        total -= sum(float(logits[i, token]) for i, token in enumerate(wanted))
    return total


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 5))
def test_every_token_is_scored_once_whatever_the_batches(lengths: list[int], batch_windows: int) -> None:
    held_out = documents(*lengths)
    scores = score_documents(MODEL, held_out, 16, 0, batch_windows)
    assert [(s.record_id, s.tokens, s.text_bytes) for s in scores] == [
        (d.record_id, len(d.tokens), d.text_bytes) for d in held_out
    ]
    for document, score in zip(held_out, scores, strict=True):
        assert score.nats == pytest.approx(nats_one_window_at_a_time(document, 16), rel=1e-5, abs=1e-9)


def test_a_documents_score_does_not_depend_on_the_other_documents() -> None:
    alone = [score_documents(MODEL, [d], 16, 0)[0].nats for d in documents(3, 40, 16, 17)]
    together = [score.nats for score in score_documents(MODEL, documents(3, 40, 16, 17), 16, 0)]
    assert together == pytest.approx(alone, rel=1e-6)


def test_scoring_twice_gives_the_same_figures_and_leaves_the_model_as_it_was() -> None:
    MODEL.train()
    first = score_documents(MODEL, documents(30, 5), 16, 0)
    assert MODEL.training
    MODEL.eval()
    assert score_documents(MODEL, documents(30, 5), 16, 0) == first
    assert not MODEL.training
    assert all(tensor.grad is None and tensor.requires_grad for tensor in MODEL.parameters())


def test_a_model_that_knows_nothing_needs_the_logarithm_of_the_vocabulary() -> None:
    model = build(SPEC, 0)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").zero_()
    scores = score_documents(model, documents(20, 33), 16, 0)
    assert [score.nats for score in scores] == pytest.approx([20 * math.log(300), 33 * math.log(300)], rel=1e-6)


def test_the_unigram_is_a_distribution_with_one_added_to_every_count() -> None:
    nats = fit_unigram(np.array([0, 3, 1], dtype=np.int64))
    assert np.exp(-nats) == pytest.approx([1 / 7, 4 / 7, 2 / 7])
    (score,) = score_unigram(nats, [Document("a", np.array([1, 1, 0], dtype=np.uint16), 5)])
    assert score.nats == pytest.approx(2 * math.log(7 / 4) + math.log(7))
    assert (score.record_id, score.tokens, score.text_bytes) == ("a", 3, 5)


def test_bits_per_byte_is_all_nats_over_all_bytes() -> None:
    summary = summarise([DocumentScore("a", 8 * math.log(2), 3, 4), DocumentScore("b", 2 * math.log(2), 2, 6)])
    assert summary.bits_per_byte == pytest.approx(1.0)
    assert (summary.documents, summary.tokens, summary.bytes) == (2, 5, 10)


def test_the_standard_error_is_the_spread_of_repeated_samples() -> None:
    generator = np.random.default_rng(3)

    def sample() -> list[DocumentScore]:
        sizes = generator.integers(50, 500, 200)
        rates = generator.normal(1.5, 0.4, 200)
        pairs = zip(sizes, rates, strict=True)
        return [DocumentScore(str(i), float(n * r), 1, int(n)) for i, (n, r) in enumerate(pairs)]

    summaries = [summarise(sample()) for _ in range(300)]
    spread = float(np.std([summary.bits_per_byte for summary in summaries]))
    told = float(np.mean([summary.standard_error or 0.0 for summary in summaries]))
    assert told == pytest.approx(spread, rel=0.15)


def test_one_document_has_no_standard_error_and_no_text_has_no_figure() -> None:
    assert summarise([DocumentScore("a", 1.0, 1, 1)]).standard_error is None
    with pytest.raises(CausewayError, match="no text"):
        summarise([DocumentScore("a", 0.0, 0, 0)])


def test_a_paired_comparison_sees_what_unpaired_errors_hide() -> None:
    generator = np.random.default_rng(4)
    base = [DocumentScore(str(i), float(n), 1, 100) for i, n in enumerate(generator.normal(200, 60, 50))]
    better = [DocumentScore(s.record_id, s.nats - 2.0 + float(generator.normal(0, 1)), 1, 100) for s in base]
    difference = compare(better, list(reversed(base)))
    assert difference.bits_per_byte == pytest.approx(-0.02 / math.log(2), rel=0.2)
    assert difference.minimum_detectable is not None
    assert difference.minimum_detectable < abs(difference.bits_per_byte) < (summarise(base).standard_error or 0)


def test_the_minimum_detectable_difference_is_found_with_the_power_it_promises() -> None:
    smallest = minimum_detectable(1.0)
    draws = np.random.default_rng(5).normal(smallest, 1.0, 20_000)
    assert smallest == pytest.approx(2.80, abs=0.005)
    assert float((np.abs(draws) > 1.96).mean()) == pytest.approx(0.8, abs=0.02)


def test_different_documents_are_not_compared() -> None:
    one = [DocumentScore("a", 1.0, 1, 5)]
    for other in ([], [DocumentScore("b", 1.0, 1, 5)], [DocumentScore("a", 1.0, 1, 6)]):
        with pytest.raises(CausewayError, match="not the same records"):
            compare(one, other)


def test_the_results_are_a_parquet_file_sorted_by_record_with_the_same_bytes_each_time() -> None:
    scores = score_documents(MODEL, documents(3, 9, 4), 16, 0)
    data = to_parquet(list(reversed(scores)))
    assert data == to_parquet(scores)
    assert [DocumentScore(**row) for row in pq.read_table(io.BytesIO(data)).to_pylist()] == scores
