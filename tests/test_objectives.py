"""Losses against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dfolora.errors import UserError
from dfolora.problems.objectives import (
    OBJECTIVE_NAMES,
    cross_entropy,
    hinge,
    likelihood,
    make_objective,
    metric_objective,
)

LABELS = torch.tensor([0, 2])
# Two candidates, two examples, three classes.
SCORES = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 5.0]], [[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])


def test_cross_entropy() -> None:
    e = math.exp
    expected = [
        -(math.log(e(1) / (e(1) + 1 + e(2))) + math.log(e(5) / (1 + e(1) + e(5)))) / 2,
        -(math.log(e(3) / (e(3) + 2)) + math.log(1 / 3)) / 2,
    ]
    losses = cross_entropy(SCORES, LABELS)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_hinge() -> None:
    # Margin 2: max(0, wrong - right + 2). First: (0-1+2) + (2-1+2) = 4 and 0; second: 0 and 2 + 2.
    assert hinge(SCORES, LABELS).tolist() == pytest.approx([2.0, 2.0])
    assert hinge(SCORES, LABELS, margin=0.5).tolist() == pytest.approx([0.75, 0.5])


def test_likelihood() -> None:
    # The right scores are 1 and 5, then 3 and 1; the others may be anything.
    assert likelihood(-SCORES, LABELS).tolist() == pytest.approx([3.0, 2.0])
    wrong = torch.tensor([[False, True, True], [True, True, False]])
    assert torch.equal(likelihood(SCORES.masked_fill(wrong, -50.0), LABELS), likelihood(SCORES, LABELS))


@pytest.mark.parametrize("objective", [cross_entropy, hinge, likelihood])
def test_absent_classes_do_not_count(objective: torch.nn.Module) -> None:
    absent = torch.cat([SCORES, torch.full((2, 2, 1), -torch.inf)], -1)
    assert torch.allclose(objective(absent, LABELS), objective(SCORES, LABELS))


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_nan_stays_with_its_candidate(name: str) -> None:
    scores = SCORES.clone()
    scores[1, 0, 1] = torch.nan
    losses = make_objective(name, lambda predicted: sum(predicted))(scores, LABELS)
    assert losses.shape == (2,)
    assert losses[1].isnan()
    assert losses[0] == make_objective(name, lambda predicted: sum(predicted))(SCORES, LABELS)[0]


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_the_right_answer_costs_less(name: str) -> None:
    good = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
    objective = make_objective(
        name, lambda predicted: sum(p == label for p, label in zip(predicted, (0, 1), strict=True))
    )
    assert objective(good, torch.tensor([0, 1])) < objective(-good, torch.tensor([0, 1]))


def test_metric() -> None:
    seen: list[list[int]] = []

    def measure(predicted: list[int]) -> float:
        seen.append(predicted)
        return 10.0 * predicted[0] + predicted[1]

    losses = metric_objective(measure)(SCORES, LABELS)
    assert seen == [[2, 2], [0, 0]]
    assert losses.tolist() == [-22.0, 0.0]
    assert losses.dtype == torch.float32


def test_names() -> None:
    assert make_objective("hinge", lambda _: 0.0) is hinge
    with pytest.raises(UserError, match="--objective: unknown 'hing'; did you mean 'hinge'"):
        make_objective("hing", lambda _: 0.0)
