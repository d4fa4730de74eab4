"""Estimates against the true gradient, and steps that descend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from toy_valley import Valley, causal, direction, flat

from dfolora.methods.full_parameter import FullParameter

# d times the squared cosine of the estimate with the gradient, to first order: for q-SPSA q, for MeZO-GV with a pool of
# M and half of them best (E[mean of best - mean of rest])^2 / (4 / M) + 1 - what sorting takes of the variance: by
# simulation 1.00, 2.11, 4.55 for M = 2, 4, 8; for MeZO-Greedy E[min^2]: 1.00, 1.55, 2.40.
ALIGNMENT = [
    ("spsa", 2, 1.0), ("spsa", 8, 4.0), ("guided", 2, 1.0), ("guided", 4, 2.11), ("guided", 8, 4.55),
    ("greedy", 2, 1.0), ("greedy", 8, 2.40),
]  # fmt: skip


@pytest.mark.parametrize(("estimator", "population", "expected"), ALIGNMENT)
def test_the_estimate_is_as_close_to_the_gradient_as_theory_says(
    estimator: str, population: int, expected: float
) -> None:
    model = Valley()
    gradient = model.gradient()
    squares = []
    for seed in range(100):
        estimate = FullParameter(model, model, estimator, population, eps=1e-5, seed=seed).estimate()
        v = direction(model, seed, 0, estimate.weights)
        squares.append(len(v) * float(nn.functional.cosine_similarity(v, gradient, 0)) ** 2)
        # What a rate means: the step has d times the gradient's part along v, whatever the method and its pool. The z
        # are of unit mean square and orthogonal up to 1 / sqrt(d) = 0.03.
        assert float(v @ gradient / (gradient @ gradient)) == pytest.approx(squares[-1], rel=0.3)
    mean = sum(squares) / len(squares)
    deviation = math.sqrt(sum((square - mean) ** 2 for square in squares) / len(squares))
    assert abs(mean - expected) < 3.5 * deviation / math.sqrt(len(squares))


@pytest.mark.parametrize(
    ("estimator", "population", "ratio"), [("spsa", 2, 1.0), ("spsa", 8, 1 / 4), ("guided", 2, 2.0), ("guided", 4, 1.0)]
)
def test_the_papers_scale_is_theirs(estimator: str, population: int, ratio: float) -> None:
    """MeZO takes the mean over its directions; the square of MeZO-GV's v is d (1 / best + 1 / rest)."""
    model = Valley()
    own, paper = (
        FullParameter(model, model, estimator, population, 1e-5, paper_scale=scale).estimate().weights
        for scale in (False, True)
    )
    assert paper == pytest.approx({k: ratio * weight for k, weight in own.items()}, rel=1e-4)


def test_a_pool_of_two_in_the_papers_scale_is_spsa_at_twice_the_rate() -> None:
    """Along (z_0 - z_1) / sqrt(2) with a probe sqrt(2) as long: sorting two decides the sign, which does not matter."""
    model, eps, root = Valley(), 1e-2, math.sqrt(2)
    guided = FullParameter(model, model, "guided", 2, eps, paper_scale=True)
    weights = guided.estimate().weights
    losses = []
    for sign in (1, -1):
        guided.point.displace(0, {0: sign / root, 1: -sign / root}, eps * root)
        losses.append(float(model()))
    guided.point.restore()
    slope = (losses[0] - losses[1]) / (2 * eps * root)
    assert weights == pytest.approx({0: 2 * slope / root, 1: -2 * slope / root}, rel=1e-9)


@pytest.mark.parametrize(
    ("estimator", "dtype"),
    [("spsa", torch.float32), ("guided", torch.float32), ("greedy", torch.float32), ("spsa", torch.bfloat16)],
)
def test_the_loss_of_a_causal_model_falls(estimator: str, dtype: torch.dtype) -> None:
    language_model, loss = causal(dtype)
    first = float(loss())
    tuner = FullParameter(language_model.model, loss, estimator, population=4, eps=1e-3, lr=5e-4, seed=1)
    for _ in range(12):
        tuner.step()
    assert float(loss()) < first - 0.1


def test_steps_far_below_the_gaps_of_bfloat16_add_up() -> None:
    """Weights of 1 are 0.004 to 0.008 apart. 400 steps of 1e-5 make 0.004; to nearest they would make nothing."""
    model = nn.Linear(100, 100, bias=False).to(torch.bfloat16).eval()
    nn.init.ones_(model.weight)
    tuner = FullParameter(model, lambda: 0.0, seed=2)
    total = torch.zeros(10_000, dtype=torch.float64)
    for step in range(400):
        tuner.point.move(step, {0: 1.0}, 1e-3)
        total += 1e-3 * direction(model, 2, step, {0: 1.0})
    moved = flat(model).double() - 1
    assert float(moved @ total / (total @ total)) == pytest.approx(1, abs=0.03)
