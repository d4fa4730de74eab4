"""What a model allows is found with its first engine: a later one, on whatever batch, runs the model not once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from models_zoo import READINGS, ZOO, attached, candidates, cases, choice_rows, sentence_rows, word_rows
from plain_reading import farthest, one_by_one
from test_packing import story_rows

from dfolora.engine import Engine, Rows, Savings
from dfolora.models.adapter import Adapter


@contextmanager
def forwards(adapter: Adapter) -> Iterator[list[int]]:
    """Counts calls of the model."""
    calls: list[int] = []
    handle = adapter.model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        yield calls
    finally:
        handle.remove()


def right(adapter: Adapter, rows: Rows, engine: Engine, layer: int | None) -> bool:
    factors = candidates(adapter, layer, 3)
    expected = one_by_one(adapter, rows, factors)
    return farthest(engine.scores(factors), expected) < 1e-4 * float(expected[expected.isfinite()].abs().max())


@pytest.mark.parametrize(("name", "reading"), cases())
def test_a_second_batch_costs_no_trial(name: str, reading: str) -> None:
    """Fewer rows, other lengths, other texts, answers of one token: nothing of it is tried again."""
    adapter, rows = attached(name), READINGS[reading](ZOO[name][0])
    Engine(adapter, rows)
    other = rows.of(torch.tensor([1, 0]))[1]
    other = other.take(torch.arange(other.count))
    with forwards(adapter) as calls:
        engine = Engine(adapter, other)
    assert calls == []
    assert right(adapter, other, engine, len(adapter.layers) - 1)


@pytest.mark.parametrize("name", ["roberta", "gpt2", "llama"])
@pytest.mark.parametrize("lengths", [(9, 9, 9), (12,), (3, 14, 5, 2), (1, 1, 16)])
def test_any_mix_of_lengths(name: str, lengths: tuple[int, ...]) -> None:
    adapter = attached(name)
    Engine(adapter, word_rows(ZOO[name][0]))
    with forwards(adapter) as calls:
        engine = Engine(adapter, word_rows(ZOO[name][0], lengths))
    assert calls == []
    for layer in (1, None):
        assert right(adapter, word_rows(ZOO[name][0], lengths), engine, layer)


def test_answers_of_several_tokens_after_answers_of_one() -> None:
    """The first batch shows neither a shared prompt nor an answer of two tokens; both are tried all the same."""
    adapter = attached("gpt2")
    Engine(adapter, story_rows((6, 5), ([1, 1], [1, 1]), ((0, 1), (0, 1))))
    rows = story_rows((6, 5), ([3, 2], [2, 4]), ((0, 1), (0, 1)))
    with forwards(adapter) as calls:
        engine = Engine(adapter, rows)
    assert calls == []
    assert engine.rows.count == 2
    for layer in (0, 2, None):
        assert right(adapter, rows, engine, layer)


def test_longer_texts_cost_one_forward() -> None:
    """A window of attention may set in: one row is looked at, of twice the length, so that the next batch is known."""
    adapter = attached("llama")
    Engine(adapter, word_rows("causal", (5, 7)))
    with forwards(adapter) as calls:
        Engine(adapter, word_rows("causal", (5, 17)))
        Engine(adapter, word_rows("causal", (5, 32)))
    assert len(calls) == 1


def test_what_is_found_again() -> None:
    """Another way of reading, other savings and another dtype are other questions."""
    adapter, rows = attached("llama", incumbents=False), word_rows("causal")
    Engine(adapter, rows)
    for engine in (
        lambda: Engine(adapter, choice_rows("causal")),
        lambda: Engine(adapter, rows, savings=Savings(label_columns=False)),
        lambda: Engine(adapter.model.bfloat16() and adapter, rows),
    ):
        with forwards(adapter) as calls:
            engine()
        assert calls
        with forwards(adapter) as calls:
            engine()
        assert calls == []


def test_label_sentences_of_a_second_batch() -> None:
    adapter = attached("bert-encoder")
    Engine(adapter, sentence_rows(True))
    with forwards(adapter) as calls:
        engine = Engine(adapter, sentence_rows(False))
    assert calls == []
    assert right(adapter, sentence_rows(False), engine, 1)


def test_several_layers_resume_at_the_lowest() -> None:
    adapter, rows = attached("roberta"), word_rows("masked", (9, 9, 9))
    engine = Engine(adapter, rows)
    factors = {**candidates(adapter, 1, 4), **candidates(adapter, 2, 4, seed=3)}
    expected = one_by_one(adapter, rows, factors)
    assert farthest(engine.scores(factors), expected) < 1e-4 * float(expected.abs().max())
    assert engine.token_layers == 27 * (1 + 4 * 2)  # the block below once
