"""Losses against numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from dfolora.errors import UserError
from dfolora.problems.objectives import (
    REGISTRY,
    Objective,
    check_result,
    cross_entropy,
    hinge,
    likelihood,
    make_objective,
    metric,
)
from dfolora.task import Example, Prompt, Task

LABELS = torch.tensor([0, 2])
# Two candidates, two examples, three classes.
SCORES = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 5.0]], [[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])
EXAMPLES = [Example({}, int(label)) for label in LABELS]


def task(measure: Callable[[Sequence[int]], float], new_tokens: int = 0) -> Task:
    """A task whose metric is a function of the predicted classes."""
    return Task(
        "toy", ("a", "b", "c"), {"causal": Prompt("{mask}", ("a", "b", "c"))}, load=list,
        measure=lambda examples, predicted: {"metric": measure(predicted)}, new_tokens=new_tokens,
    )  # fmt: skip


def mean(losses: torch.Tensor) -> torch.Tensor:
    """Losses (P, N) or (P,) to (P,)."""
    return losses.mean(-1) if losses.dim() == 2 else losses


def test_cross_entropy() -> None:
    e = math.exp
    expected = [
        [-math.log(e(1) / (e(1) + 1 + e(2))), -math.log(e(5) / (1 + e(1) + e(5)))],
        [-math.log(e(3) / (e(3) + 2)), -math.log(1 / 3)],
    ]
    losses = cross_entropy(SCORES, LABELS)
    assert losses.dtype == torch.float32
    for found, wanted in zip(losses.tolist(), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_hinge() -> None:
    # Margin 2: max(0, wrong - right + 2). First: (0-1+2) + (2-1+2) = 4 and 0; second: 0 and 2 + 2.
    assert hinge(SCORES, LABELS).tolist() == [[4.0, 0.0], [0.0, 4.0]]
    assert hinge(SCORES, LABELS, margin=0.5).tolist() == [[1.5, 0.0], [0.0, 1.0]]


def test_likelihood() -> None:
    # The right scores are 1 and 5, then 3 and 1; the others may be anything.
    assert likelihood(-SCORES, LABELS).tolist() == [[1.0, 5.0], [3.0, 1.0]]
    wrong = torch.tensor([[False, True, True], [True, True, False]])
    assert torch.equal(likelihood(SCORES.masked_fill(wrong, -50.0), LABELS), likelihood(SCORES, LABELS))


@pytest.mark.parametrize("objective", [cross_entropy, hinge, likelihood])
def test_absent_classes_do_not_count(objective: torch.nn.Module) -> None:
    absent = torch.cat([SCORES, torch.full((2, 2, 1), -torch.inf)], -1)
    assert torch.allclose(objective(absent, LABELS), objective(SCORES, LABELS))


@pytest.mark.parametrize("name", REGISTRY.names())
def test_nan_stays_with_its_candidate(name: str) -> None:
    objective = make_objective(name, task(lambda predicted: float(sum(predicted))))(EXAMPLES)
    scores = SCORES.clone()
    scores[1, 0, 1] = torch.nan
    losses = mean(objective(scores, LABELS))
    assert losses.shape == (2,)
    assert losses[1].isnan()
    assert losses[0] == mean(objective(SCORES, LABELS))[0]


@pytest.mark.parametrize("name", REGISTRY.names())
def test_the_right_answer_costs_less(name: str) -> None:
    good = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
    right = task(lambda predicted: float(sum(p == label for p, label in zip(predicted, (0, 1), strict=True))))
    objective = make_objective(name, right)([Example({}, 0), Example({}, 1)])
    labels = torch.tensor([0, 1])
    assert mean(objective(good, labels)) < mean(objective(-good, labels))


def test_metric() -> None:
    seen: list[list[int]] = []

    def measure(predicted: Sequence[int]) -> float:
        seen.append(list(predicted))
        return 10.0 * predicted[0] + predicted[1]

    losses = metric(task(measure), EXAMPLES)(SCORES, LABELS)
    assert seen == [[2, 2], [0, 0]]
    assert losses.tolist() == [-22.0, 0.0]
    assert losses.dtype == torch.float32


def test_names_and_functions() -> None:
    def own(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return scores.sum((1, 2))

    toy = task(lambda predicted: 0.0)
    assert make_objective("hinge", toy)(EXAMPLES) is hinge
    assert make_objective(own, toy)(EXAMPLES) is own
    with pytest.raises(UserError, match=r"^objective: unknown 'hing'; did you mean 'hinge'"):
        make_objective("hing", toy)
    with pytest.raises(UserError, match=r"^objective: 7 is neither a name nor a function"):
        make_objective(7, toy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "own",
    [
        lambda scores, labels: scores.mean(),
        lambda scores, labels: scores,
        lambda scores, labels: scores[0, :, 0],
        lambda scores, labels: 0.5,
    ],
)
def test_a_function_of_ones_own_gives_losses(own: Objective) -> None:
    """(P,) or (P, N) and nothing else: here P = 2, N = 3."""
    scores = torch.zeros(2, 3, 4)
    for losses in (torch.zeros(2), torch.zeros(2, 3)):
        assert check_result(losses, scores) is losses
    with pytest.raises(UserError, match=r"^objective: for scores of shape \(2, 3, 4\) it gave .*\(2,\), \(2, 3\)"):
        check_result(own(scores, torch.zeros(3, dtype=torch.long)), scores)
