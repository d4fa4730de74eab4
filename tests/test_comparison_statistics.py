"""The statistics of a comparison against answers that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from dfolora.comparison.statistics import average, estimate, mean_sd, smallest


def signs(wins: int, losses: int, size: int) -> np.ndarray:
    """Differences of two methods on one test set: 1 where only the first is right, -1 where only the second is."""
    return np.array([1.0] * wins + [-1.0] * losses + [0.0] * (size - wins - losses))


@pytest.mark.parametrize(("wins", "losses", "size"), [(40, 20, 500), (60, 58, 500), (30, 5, 200), (12, 30, 872)])
def test_one_seed_is_the_paired_sign_case(wins: int, losses: int, size: int) -> None:
    """Interval of the normal approximation, and about the p-value of the exact sign test (McNemar)."""
    found = estimate([signs(wins, losses, size)], shared=True)
    value = (wins - losses) / size
    error = math.sqrt(((wins + losses) / size - value**2) / size)
    assert found.value == pytest.approx(value)
    assert found.interval[0] == pytest.approx(value - 1.96 * error, abs=max(0.1 * error, 1 / size))
    assert found.interval[1] == pytest.approx(value + 1.96 * error, abs=max(0.1 * error, 1 / size))
    exact = binomtest(wins, wins + losses).pvalue
    assert found.p == pytest.approx(2 * norm.sf(abs(value) / error), abs=0.05)
    assert (found.p < 0.05) == (exact < 0.05)


def test_two_equal_methods() -> None:
    found = estimate([np.zeros(300)] * 3, shared=True)
    assert (found.value, found.interval, found.p, found.detectable) == (0.0, (0.0, 0.0), 1.0, 0.0)


@pytest.mark.parametrize("shared", [True, False])
def test_a_planted_difference_is_found_and_none_is_not(shared: bool) -> None:
    rng = np.random.default_rng(5)
    first = [rng.random(400) < 0.80 for _ in range(3)]
    better = [rng.random(400) < 0.90 for _ in range(3)]
    alike = [rng.random(400) < 0.80 for _ in range(3)]
    planted = estimate([b.astype(float) - a for a, b in zip(first, better, strict=True)], shared)
    none = estimate([b.astype(float) - a for a, b in zip(first, alike, strict=True)], shared)
    assert planted.interval[0] > 0.03
    assert planted.p < 0.001
    assert none.interval[0] < 0 < none.interval[1]
    assert none.p > 0.05


@pytest.mark.parametrize("shared", [True, False])
def test_intervals_hold_what_they_promise(shared: bool) -> None:
    """In about 95 of 100 repeated studies, whose seeds and examples are drawn anew, the true difference lies inside."""
    rng = np.random.default_rng(0)
    inside, studies = 0, 200
    for study in range(studies):
        hard = rng.normal(0, 1, 150)  # examples that are the same for all seeds
        rows = []
        for _ in range(8):
            if not shared:
                hard = rng.normal(0, 1, 150)
            rows.append(0.5 + rng.normal(0, 0.1) + hard + rng.normal(0, 0.5, 150))
        low, high = estimate(rows, shared, seed=study).interval
        inside += low <= 0.5 <= high
    assert 0.90 <= inside / studies <= 0.985


def test_examples_that_seeds_share_do_not_count_three_times() -> None:
    row = signs(60, 40, 500)
    alone, shared = estimate([row], True), estimate([row] * 3, True)
    separate = estimate([row] * 3, False)
    widths = [found.interval[1] - found.interval[0] for found in (alone, shared, separate)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] < 0.8 * widths[0]


def test_seeds_that_differ_widen_the_interval() -> None:
    """With no example in doubt, the spread of the seeds is all there is: their standard error."""
    rows = [np.full(100, value) for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    error = np.std([row[0] for row in rows], ddof=1) / math.sqrt(8)
    found = estimate(rows, True)
    assert np.std(found.draws) == pytest.approx(error, rel=0.03)


def test_the_smallest_difference_is_found_in_80_of_100_cases() -> None:
    size, share = 500, 0.2
    least = smallest(math.sqrt(share / size))
    assert 100 * least == pytest.approx(5.6, abs=0.05)
    rng = np.random.default_rng(1)
    better = (share + least) / 2
    found = 0
    for _ in range(400):
        wins, losses, _ = rng.multinomial(size, [better, share - better, 1 - share])
        found += abs(wins - losses) / math.sqrt(wins + losses) > 1.96
    assert found / 400 == pytest.approx(0.8, abs=0.06)
    assert estimate([signs(50, 50, 500)], True).detectable == pytest.approx(least)


def test_average_over_tasks() -> None:
    tasks = [estimate([signs(60, 20, 400)], True, seed=1), estimate([signs(30, 30, 400)], True, seed=2)]
    both = average(tasks)
    assert both.value == pytest.approx(0.05)
    spread = math.sqrt(sum(np.var(task.draws) for task in tasks)) / 2
    assert np.std(both.draws) == pytest.approx(spread, rel=0.03)
    assert both.detectable == pytest.approx(math.sqrt(sum(task.detectable**2 for task in tasks)) / 2)


def test_many_different_values_are_resampled_too() -> None:
    """Scores of texts are no signs: more than a few values take another way to the same answer."""
    values = np.random.default_rng(3).normal(0.2, 1, 1000)
    found = estimate([values], True)
    assert np.std(found.draws) == pytest.approx(values.std() / math.sqrt(1000), rel=0.03)


def test_mean_and_spread() -> None:
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_sd([4.0]) == (4.0, None)
