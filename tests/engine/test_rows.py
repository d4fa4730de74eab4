"""Length buckets against every possible cut; readings put together into class scores by hand."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from models_zoo import choice_rows, inputs_of, sequences, word_rows

from dfolora.engine import Rows
from dfolora.engine.rows import buckets

INFINITY = torch.inf


def cost(cut: list[list[int]], overhead: int) -> int:
    """Padded tokens plus what the launches cost; ``cut`` holds lengths."""
    return sum(len(bucket) * max(bucket) + overhead for bucket in cut)


def cheapest(lengths: list[int], row_limit: int, overhead: int) -> int:
    """The least cost over all 2^(n-1) contiguous cuts of the sorted lengths that keep the limit."""
    ordered, best = sorted(lengths), 10**9
    for bars in itertools.product((False, True), repeat=len(lengths) - 1):
        cut, bucket = [], [ordered[0]]
        for bar, length in zip(bars, ordered[1:], strict=True):
            if bar:
                cut.append(bucket)
                bucket = []
            bucket.append(length)
        cut.append(bucket)
        if all(len(bucket) == 1 or len(bucket) * max(bucket) <= row_limit for bucket in cut):
            best = min(best, cost(cut, overhead))
    return best


@pytest.mark.parametrize("overhead", [0, 1, 16, 1000])
@pytest.mark.parametrize("row_limit", [1, 30, 64, 10_000])
def test_buckets_cost_least(row_limit: int, overhead: int) -> None:
    draw = random.Random(row_limit + overhead)
    for _ in range(20):
        lengths = [draw.randint(1, 40) for _ in range(draw.randint(1, 9))]
        cut = buckets(lengths, row_limit, overhead)
        assert sorted(itertools.chain(*cut)) == list(range(len(lengths)))
        by_length = [[lengths[row] for row in bucket] for bucket in cut]
        assert list(itertools.chain(*by_length)) == sorted(lengths)
        assert all(len(bucket) == 1 or len(bucket) * max(bucket) <= row_limit for bucket in by_length)
        assert cost(by_length, overhead) == cheapest(lengths, row_limit, overhead)


def test_buckets_by_hand() -> None:
    assert buckets([5, 50, 6, 50], 10_000, 16) == [[0, 2], [1, 3]]
    assert buckets([5, 50, 6, 50], 10_000, 10_000) == [[0, 2, 1, 3]]
    assert buckets([5, 50, 6, 50], 60, 16) == [[0, 2], [1], [3]]  # a single row may exceed the limit or fill it
    assert buckets([9], 1, 16) == [[0]]


def test_take_cuts_to_the_longest_and_keeps_decoders_whole() -> None:
    rows = choice_rows("seq2seq")
    few = rows.take(torch.tensor([3, 1]))
    assert few.count == 2
    assert few.inputs["input_ids"].tolist() == [
        [*rows.inputs["input_ids"][3, :5].tolist(), 1],
        rows.inputs["input_ids"][1, :6].tolist(),
    ]
    assert few.inputs["attention_mask"].sum(1).tolist() == [5, 6]
    assert torch.equal(few.inputs["decoder_input_ids"], rows.inputs["decoder_input_ids"][[3, 1]])
    assert torch.equal(few.positions, rows.positions[[3, 1]])
    assert few.targets is not None
    assert rows.targets is not None
    assert torch.equal(few.targets, rows.targets[[3, 1]])
    assert rows.lengths.tolist() == [n + 4 for n in (11, 6, 9, 5, 11, 8, 12, 9)]


def test_assemble_label_words_puts_examples_in_order() -> None:
    rows = word_rows("masked")
    order = rows.owner[:, 0].tolist()
    assert order != sorted(order)
    readings = torch.arange(2 * 6 * 3.0).view(2, 6, 3)
    scores = rows.assemble(readings)
    for row, example in enumerate(order):
        assert torch.equal(scores[:, example], readings[:, row])


def test_assemble_choices_takes_the_best_and_leaves_absent_classes_out() -> None:
    rows = choice_rows("causal")  # owners (1,2) (0,0) (2,0) (0,1) (1,0) (2,1) (1,1) (2,0)
    readings = torch.tensor([[-1.0, -2, -3, -4, -5, -6, -7, -2.5], [-8.0, -7, -1, -5, -4, -3, -2, -9]])
    expected = [
        [[-2, -4, -INFINITY], [-5, -7, -1], [-2.5, -6, -INFINITY]],
        [[-7, -5, -INFINITY], [-4, -2, -8], [-1, -3, -INFINITY]],
    ]
    assert rows.assemble(readings).tolist() == expected


def vectors(*angles: float) -> torch.Tensor:
    """(1, R, 2) vectors of different lengths that point at the angles."""
    angle = torch.tensor(angles)
    return (torch.stack([angle.cos(), angle.sin()], -1) * torch.arange(1, len(angles) + 1)[:, None])[None]


def sentence(owner: list[tuple[int, int]], classes: list[int]) -> Rows:
    size = len(owner)
    inputs = inputs_of(sequences([3] * size))
    positions = torch.zeros(size, 1, dtype=torch.long)
    return Rows(inputs, positions, torch.tensor(owner), torch.tensor(classes), sentences=True)


def test_assemble_shared_label_sentences() -> None:
    rows = sentence([(-1, 1), (1, -1), (0, -1), (-1, 0)], [2, 2])
    scores = rows.assemble(vectors(0.9, 0.2, 0.5, 0.1))
    expected = 20 * torch.tensor([[0.4, 0.4], [0.1, 0.7]]).cos()
    assert torch.allclose(scores[0], expected, atol=1e-5)


def test_assemble_choice_sentences() -> None:
    rows = sentence([(1, -1), (1, 2), (0, 1), (0, -1), (1, 0), (0, 0), (1, 1), (1, 0)], [2, 3])
    scores = rows.assemble(vectors(0.2, 0.4, 1.5, 0.7, 1.0, 0.8, 0.3, 0.9))
    assert scores[0, 0, 2] == -INFINITY
    assert torch.allclose(scores[0, 0, :2], 20 * torch.tensor([0.1, 0.8]).cos(), atol=1e-5)
    # Class 0 of example 1 has two choices, at distances 0.8 and 0.7: the nearer one counts.
    assert torch.allclose(scores[0, 1], 20 * torch.tensor([0.7, 0.1, 0.2]).cos(), atol=1e-5)
