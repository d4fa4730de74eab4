"""The steps are torch's own, and the learning rate means what its definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dfolora.errors import UserError
from dfolora.optimizers import make_optimizer
from dfolora.optimizers.zeroth_order.update import UPDATE_NAMES, Update

RULES: dict[str, Any] = {
    "sgd": lambda x: torch.optim.SGD([x], lr=0.3),
    "momentum": lambda x: torch.optim.SGD([x], lr=0.3, momentum=0.9),
    "adam": lambda x: torch.optim.Adam([x], lr=0.3),
}
ESTIMATORS = ["spsa", "subzero", "guided", "greedy", "es"]


@pytest.mark.parametrize("name", UPDATE_NAMES)
def test_every_step_is_torchs(name: str) -> None:
    ours, theirs = Update(name, 5, 0.3), torch.zeros(5, dtype=torch.float64)
    rule = RULES[name](theirs)
    for gradient in np.random.RandomState(0).standard_normal((20, 5)):
        ours.step(gradient, limit=1e9)
        theirs.grad = torch.from_numpy(gradient)
        rule.step()
        assert np.array_equal(ours.x, theirs.numpy())


def test_by_hand() -> None:
    """Against the formulas, in case both are the same mistake."""
    gradients = np.random.RandomState(1).standard_normal((6, 3))
    x, buffer = np.zeros(3), np.zeros(3)
    momentum = Update("momentum", 3, 0.3)
    for gradient in gradients:
        buffer = 0.9 * buffer + gradient
        x = x - 0.3 * buffer
        momentum.step(gradient, limit=1e9)
    assert momentum.x == pytest.approx(x, rel=1e-12)
    x, first, second = np.zeros((3, 3))
    adam = Update("adam", 3, 0.3)
    for t, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        x = x - 0.3 * first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        adam.step(gradient, limit=1e9)
    assert adam.x == pytest.approx(x, rel=1e-9)


def test_the_limit_and_the_callers_copies() -> None:
    update, gradient = Update("sgd", 2, 1.0), np.array([3.0, -1.0])
    update.step(gradient, limit=2.0)
    assert update.x.tolist() == [-2.0, 1.0]
    assert gradient.tolist() == [3.0, -1.0]
    update.x[:] = 7.0
    assert update.x.tolist() == [-2.0, 1.0]


@pytest.mark.parametrize(
    ("name", "lr", "named"),
    [("amad", 0.1, "update: unknown 'amad'.*adam"), ("sgd", 0.0, "lr: 0.0"), ("sgd", float("nan"), "lr: nan")],
)
def test_what_cannot_work_is_refused(name: str, lr: float, named: str) -> None:
    with pytest.raises(UserError, match=named):
        Update(name, 3, lr)


def first_step(name: str, loss: Any, dim: int, **settings: Any) -> np.ndarray:
    search = make_optimizer(name, dim, **{"seed": 4, "update": "sgd", **settings})
    while not search._incumbent().any():
        search.tell(loss(search.ask().double().numpy()))
    return search._incumbent()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("population", [2, 6, 40])
@pytest.mark.parametrize("sigma", [1e-3, 0.5])
def test_a_rate_of_one_is_the_gradient_on_the_probed_line(name: str, population: int, sigma: float) -> None:
    """On a linear loss the first step is d lr times the gradient's projection on its direction, whatever was probed."""
    gradient = np.random.RandomState(0).standard_normal(50)
    step = first_step(name, lambda z: z @ gradient, 50, population=population, sigma=sigma, lr=1 / 50)
    # ES knows the slopes up to their mean, which 2 of 2 slopes is much of
    rough = 0.1 if name == "es" and population == 40 else 0.7 if name == "es" else 1e-3
    assert -step @ gradient == pytest.approx(step @ step, rel=rough)
    assert step @ step <= gradient @ gradient * (1.1 if name == "es" else 1)


@pytest.mark.parametrize("name", ["spsa", "subzero", "guided", "greedy"])
@pytest.mark.parametrize("population", [2, 20])
def test_one_over_the_curvature_is_the_minimum_on_the_line(name: str, population: int) -> None:
    dim, curvature, optimum = 30, 8.0, np.random.RandomState(0).standard_normal(30)

    def loss(z: np.ndarray) -> np.ndarray:
        return curvature / 2 * np.square(z - optimum).sum(1)

    # along a direction of unit mean square, whose length is sqrt(d)
    step = first_step(name, loss, dim, population=population, lr=1 / (dim * curvature))
    here, less, more = loss(step * np.array([[1.0], [0.97], [1.03]]))
    assert here < min(less, more)


@pytest.mark.parametrize("paper_scale", [False, True])
def test_a_step_of_ours_moves_as_far_in_any_dimension(paper_scale: bool) -> None:
    """Where t = 1 along a direction of unit mean square is the same change whatever d is, as in the subspaces."""
    lengths = []
    for dim in (100, 10_000):
        gradient = np.full(dim, 1 / dim)
        settings = {"population": 40, "lr": 1.0, "paper_scale": paper_scale}
        steps = [first_step("spsa", lambda z, g=gradient: z @ g, dim, seed=seed, **settings) for seed in range(10)]
        lengths.append(np.mean([np.square(step).mean() for step in steps]))
    # The gradient's mean square is 1 / d^2. Of a unit one the papers' estimate has E|v|^2 = 1 + (d + 1) / q, and the
    # projection keeps q / (q + d - 1), here times d^2.
    expected = [(1 + (dim + 1) / 20) / dim**2 if paper_scale else 20 / (19 + dim) for dim in (100, 10_000)]
    assert lengths == pytest.approx(expected, rel=0.3)
