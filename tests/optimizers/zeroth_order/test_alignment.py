"""How much of the gradient an estimate keeps, on a linear loss: d E[cos^2(step, gradient)] against what theory says.

For spsa, es and fzoo the squared cosine is Beta(k / 2, (d - 1) / 2) with Gaussian probes, k the number of independent
slopes: the part of the step across the gradient is, given the slopes, a Gaussian of the length of the part along it.
For guided and greedy, m = w . y with y the M slopes: E[m^2] / |w|^2 is a number of order statistics alone, computed
here to three digits from its definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfolora.optimizers import make_optimizer

DIM, SIGMA = 400, 0.1


def squared_cosines(name: str, population: int, steps: int, **options: Any) -> np.ndarray:
    """(steps,): of each step with the gradient, through ask and tell."""
    gradient = np.random.RandomState(0).standard_normal(DIM)
    search = make_optimizer(name, DIM, population, SIGMA, seed=1, update="sgd", lr=1e-3, **options)
    out, x = [], np.zeros(DIM)
    while len(out) < steps:
        search.tell(search.ask().double().numpy() @ gradient)
        before, x = x, search._incumbent()
        step = x - before
        if step.any():
            out.append((step @ gradient) ** 2 / (step @ step) / (gradient @ gradient))
    return np.array(out)


def assert_mean(sample: np.ndarray, expected: float) -> None:
    error = sample.std() / np.sqrt(len(sample))
    assert error < 0.08 * expected  # sharp enough to tell neighbours apart
    assert abs(sample.mean() - expected) < 4 * error


# name, population, options, independent slopes
BETA: list[tuple[str, int, dict[str, Any], int]] = [
    ("spsa", 2, {}, 1),
    ("spsa", 4, {}, 2),
    ("spsa", 16, {}, 8),
    ("spsa", 16, {"paper_scale": True}, 8),
    ("es", 4, {}, 3),
    ("es", 8, {}, 7),
    ("es", 16, {}, 15),
    ("es", 16, {"antithetic": True}, 8),
    ("fzoo", 9, {"noise": "gaussian"}, 8),
    ("fzoo", 9, {"noise": "gaussian", "paper_scale": True}, 8),
]


@pytest.mark.parametrize(("name", "population", "options", "slopes"), BETA)
def test_as_many_slopes_so_much_of_the_gradient(name: str, population: int, options: Any, slopes: int) -> None:
    sample = squared_cosines(name, population, steps=600 if slopes < 3 else 400, **options)
    assert_mean(DIM * sample, DIM * slopes / (slopes + DIM - 1))


@pytest.mark.parametrize("noise", ["rademacher", "plane"])
def test_other_noise_keeps_as_much(noise: str) -> None:
    # a plane is drawn anew in every step, so that steps are independent
    options = {"noise": noise, **({"plane_steps": 1} if noise == "plane" else {})}
    assert_mean(DIM * squared_cosines("spsa", 8, 500, **options), 4.0)


# d E[cos^2] of table 1 for M = 2, 4, 8, 16 and d large
TABLE = {"guided": (1.00, 2.11, 4.55, 9.60), "greedy": (1.00, 1.55, 2.40, 3.42)}
POOLS = [(name, 2 ** (i + 1), share) for name, shares in TABLE.items() for i, share in enumerate(shares)]


def order_statistics(name: str, population: int) -> float:
    """E[m^2] / |w|^2."""
    y = np.sort(np.random.RandomState(2).standard_normal((100_000, population)))
    if name == "greedy":
        return float(np.square(y[:, 0]).mean())
    half = population // 2
    return float(np.square(y[:, :half].mean(1) - y[:, half:].mean(1)).mean() * half / 2)


@pytest.mark.parametrize(("name", "population", "share"), POOLS)
def test_a_pool_keeps_what_its_order_statistics_say(name: str, population: int, share: float) -> None:
    assert order_statistics(name, population) == pytest.approx(share, rel=0.02)
    sample = squared_cosines(name, population, steps=600 if population < 8 else 400)
    assert_mean(DIM * sample, DIM * share / (share + DIM - 1))


@pytest.mark.parametrize("weights", ["centred", "ranks"])
def test_es_keeps_more_than_the_pools_that_cost_more(weights: str) -> None:
    assert squared_cosines("es", 8, 300, weights=weights).mean() > 1.3 * squared_cosines("guided", 8, 300).mean()


def test_guiding_within_a_plane() -> None:
    """SubZero-GV: what is guided is any noise; every step stays in the plane, and keeps as much of the gradient."""
    sample = squared_cosines("guided", 8, 400, noise="plane", plane_steps=1)
    assert DIM * sample.mean() == pytest.approx(4.55, rel=0.15)
    search = make_optimizer("guided", DIM, 8, SIGMA, update="sgd", lr=1e-3, noise="plane", plane_dim=5, plane_steps=3)
    moved = []
    for _ in range(6):
        search.tell(search.ask().double().numpy().sum(1))
        moved.append(search._incumbent())
    basis = search._noise.basis(0)  # type: ignore[attr-defined]
    for x in moved:
        assert np.allclose(basis @ (basis.T @ x), x, atol=1e-6 * np.abs(x).max())
    assert np.linalg.matrix_rank(np.array(moved), tol=1e-6) == 3
