"""The engine gives what setting the weights one candidate at a time gives, for every architecture and reading."""

from __future__ import annotations

import pytest
import torch
from models_zoo import READINGS, ZOO, attached, candidates, cases, sentence_rows, word_rows
from plain_reading import farthest, one_by_one, plain_scores, spread

from dfolora.engine import Engine, Rows, Savings
from dfolora.models.adapter import Adapter

TOLERANCE = 1e-4
FEW = ["roberta", "gpt2", "t5", "bert-encoder"]


def rows_of(name: str) -> Rows:
    return sentence_rows(True) if ZOO[name][0] == "encoder" else word_rows(ZOO[name][0])


def agrees(adapter: Adapter, engine: Engine, rows: Rows, layer: int | None, population: int, seed: int = 0) -> None:
    factors = candidates(adapter, layer, population, seed)
    expected = one_by_one(adapter, rows, factors)
    scores = engine.scores(factors)
    assert scores.dtype == torch.float32
    error, scale = farthest(scores, expected), float(expected[expected.isfinite()].abs().max())
    assert error < TOLERANCE * scale, f"layer {layer}"
    if population > 1:  # the adapters matter, by far more than what is left as error
        assert spread(expected) > 100 * error, f"layer {layer}"


@pytest.mark.parametrize("padding_free", [True, False])
@pytest.mark.parametrize(("name", "reading"), cases())
def test_every_layer_and_all_at_once(name: str, reading: str, padding_free: bool) -> None:
    """Several length buckets, padded or not, chunks that do not divide the population, adapters in all other layers."""
    adapter = attached(name)
    rows = READINGS[reading](ZOO[name][0])
    engine = Engine(adapter, rows, chunk_tokens=70, savings=Savings(padding_free=padding_free))
    assert len(engine._buckets) > 1
    for layer in (*range(len(adapter.layers)), None, 0):
        agrees(adapter, engine, rows, layer, population=3, seed=layer or 0)
    assert farthest(engine.incumbent_scores(), plain_scores(adapter, rows)) < 1e-4 * 20


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("population", [1, 7])
@pytest.mark.parametrize("chunk_tokens", [1, 100, 0])
def test_population_and_chunk_sizes(name: str, population: int, chunk_tokens: int) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows, chunk_tokens=chunk_tokens)
    for layer in (1, None):
        agrees(adapter, engine, rows, layer, population)


@pytest.mark.parametrize("name", ["roberta", "gpt2", "t5", "bart", "gemma3"])
@pytest.mark.parametrize("length", [1, 9])
def test_one_example(name: str, length: int) -> None:
    adapter, rows = attached(name), word_rows(ZOO[name][0], lengths=(length,))
    engine = Engine(adapter, rows)
    for layer in (0, 1, None):
        factors = candidates(adapter, layer, 3)
        assert farthest(engine.scores(factors), one_by_one(adapter, rows, factors)) < 1e-4


@pytest.mark.parametrize("name", ["gpt2", "roberta", "llama", "gpt_neox"])
def test_first_rows_of_one_token(name: str) -> None:
    """One token attends to itself whatever query and key are: the rows that follow must not be taken for such."""
    adapter, rows = attached(name), word_rows(ZOO[name][0], lengths=(1, 1, 1, 12, 9, 1))
    engine = Engine(adapter, rows)
    for layer in (0, 1, 2):
        agrees(adapter, engine, rows, layer, population=3)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling(pooling: str) -> None:
    adapter, rows = attached("bert-encoder"), sentence_rows(True, pooling)
    agrees(adapter, Engine(adapter, rows), rows, 1, population=3)


def test_both_poolings_differ() -> None:
    adapter = attached("bert-encoder")
    mean, cls = (Engine(adapter, sentence_rows(True, p)).incumbent_scores() for p in ("mean", "cls"))
    assert farthest(mean, cls) > 0.1


@pytest.mark.parametrize("name", ["roberta", "gpt2", "t5"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_factors_expanded_over_the_population(name: str, side: str) -> None:
    """Subspaces hand over one A for all candidates as an expanded view."""
    adapter, rows = attached(name), rows_of(name)
    for layer in (0, 1, None):
        factors = {
            key: (a[:1].expand_as(a), b) if side == "a" else (a, b[:1].expand_as(b))
            for key, (a, b) in candidates(adapter, layer, 4).items()
        }
        expected = one_by_one(adapter, rows, factors)
        scores = Engine(adapter, rows).scores(factors)
        assert farthest(scores, expected) < TOLERANCE * float(expected.abs().max())
        assert spread(expected) > 1e-3


def test_targets_beyond_query_and_key() -> None:
    """Adapted value, output and feed-forward modules have inputs of their own per candidate."""
    adapter = attached("bert", targets=("query", "value", "dense"))
    assert len(adapter.layers[0].modules) == 5
    rows = word_rows("masked")
    engine = Engine(adapter, rows, chunk_tokens=100)
    for layer in (0, 2, None):
        agrees(adapter, engine, rows, layer, population=3)


# -- controls: what must differ does --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("layer", [1, None])
def test_candidates_are_not_interchangeable(name: str, layer: int | None) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows, chunk_tokens=100)
    factors = candidates(adapter, layer, 5)
    scores, expected = engine.scores(factors), one_by_one(adapter, rows, factors)
    tolerance = TOLERANCE * float(expected.abs().max())
    order = [1, 2, 3, 4, 0]
    permuted = engine.scores({key: (a[order], b[order]) for key, (a, b) in factors.items()})
    assert all(farthest(permuted[p], expected[p]) > 10 * tolerance for p in range(5))
    assert farthest(permuted, expected[order]) < tolerance
    zeroed = engine.scores({key: (a, torch.zeros_like(b)) for key, (a, b) in factors.items()})
    assert all(farthest(zeroed[p], scores[p]) > 10 * tolerance for p in range(5))
    assert farthest(zeroed[0].expand_as(zeroed), zeroed) < tolerance


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("layer", [1, None])
def test_a_nudge_stays_with_its_candidate(name: str, layer: int | None) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows, chunk_tokens=100)
    factors = candidates(adapter, layer, 5)
    before = engine.scores(factors)
    noise = candidates(adapter, layer, 1, seed=9, size=0.05)
    for key, (a, b) in factors.items():
        a[3] += noise[key][0][0]
        b[3] += noise[key][1][0]
    after = engine.scores(factors)
    assert farthest(after[3], before[3]) > 1e-3 * float(before.abs().max())
    others = [0, 1, 2, 4]
    assert farthest(after[others], before[others]) < 1e-6 * float(before.abs().max())


@pytest.mark.parametrize("name", FEW)
def test_a_wrong_mask_is_noticed(name: str) -> None:
    adapter, rows = attached(name), rows_of(name)
    factors = candidates(adapter, 1, 2)
    scores = Engine(adapter, rows).scores(factors)
    mask = rows.inputs["attention_mask"]
    wrong = mask.clone()
    wrong[:, 1] = 0
    unmasked = one_by_one(adapter, rows, factors, attention_mask=wrong)
    assert farthest(scores, unmasked) > 100 * TOLERANCE


# -- lower precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2, None])
def test_bfloat16_keeps_the_order(layer: int | None) -> None:
    """Against the float32 model with the same (bfloat16) weights: scores close, candidates in the same order."""
    adapter = attached("llama", incumbents=False)
    adapter.model.bfloat16()
    rows = word_rows("causal")
    factors = {key: (a.bfloat16(), b.bfloat16()) for key, (a, b) in candidates(adapter, layer, 8, size=0.5).items()}
    scores = Engine(adapter, rows).scores(factors)
    assert scores.dtype == torch.float32
    adapter.model.float()
    expected = one_by_one(adapter, rows, {key: (a.float(), b.float()) for key, (a, b) in factors.items()})
    assert farthest(scores, expected) < 0.05 * float(expected.abs().max())
    gaps = expected[:, :, 0] - expected[:, :, 1]  # the margin between two label words, per candidate and example
    ranks, expected_ranks = (
        (g.mean(1).argsort().argsort()).double() for g in (scores[:, :, 0] - scores[:, :, 1], gaps)
    )
    assert torch.corrcoef(torch.stack([ranks, expected_ranks]))[0, 1] > 0.9
