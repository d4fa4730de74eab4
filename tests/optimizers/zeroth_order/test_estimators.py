"""Each estimator against its paper, by hand; what was probed is what is applied; losses that are no numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dfolora.errors import UserError
from dfolora.optimizers import make_optimizer
from dfolora.optimizers.zeroth_order.weights import centred, greedy, guiding, ranks

DIM, SIGMA = 12, 0.1
NAMES = ["spsa", "subzero", "guided", "greedy", "es", "fzoo"]
PAPER: dict[str, Any] = {"update": "sgd", "lr": 0.02, "paper_scale": True}
every_name = pytest.mark.parametrize("name", NAMES)


def make(name: str, population: int = 6, **changes: Any) -> Any:
    return make_optimizer(name, **{"dim": DIM, "population": population, "sigma": SIGMA, "seed": 9, **changes})


def curved(z: np.ndarray) -> np.ndarray:
    """A loss with slopes, curvature and more."""
    return np.cos(z @ np.linspace(0.3, 1.5, DIM)) + np.square(z - 0.4).sum(-1) * np.exp(z[..., 0])


def generation(search: Any, loss: Any = curved) -> tuple[np.ndarray, np.ndarray]:
    """What was asked and told."""
    z = search.ask().double().numpy()
    losses = loss(z)
    search.tell(losses)
    return z, losses


def exactly(expected: np.ndarray) -> Any:
    return pytest.approx(expected, rel=1e-4, abs=1e-9)  # candidates are rounded to float32


# -- the papers, by hand ---------------------------------------------------------------------------------------------


def test_spsa_is_mezo() -> None:
    search = make("spsa", population=7, **PAPER)
    x = np.zeros(DIM)
    for step in range(4):
        _, losses = generation(search)
        assert len(losses) == 6
        z = search._noise.draw(step, 3)
        plus, minus = curved(x + SIGMA * z), curved(x - SIGMA * z)
        x = x - 0.02 * np.mean([(a - b) / (2 * SIGMA) * v for a, b, v in zip(plus, minus, z, strict=True)], axis=0)
        assert search._incumbent() == exactly(x)


@pytest.mark.parametrize(("name", "share"), [("guided", 0.5), ("guided", 0.25), ("greedy", None)])
def test_guided_and_greedy_are_the_papers(name: str, share: float | None) -> None:
    search = make(name, population=5, **PAPER, **({"best_share": share} if share else {}))
    x = np.zeros(DIM)
    for step in range(4):
        generation(search)
        assert np.array_equal(search._incumbent(), x) or search._incumbent() == exactly(x)
        z = search._noise.draw(step, 5)
        order = np.argsort(curved(x + SIGMA * z))
        few = {0.5: 2, 0.25: 1, None: 0}[share]
        v = z[order[:few]].mean(0) - z[order[few:]].mean(0) if few else z[order[0]]
        asked, _ = generation(search)
        assert asked == pytest.approx(np.array([x + SIGMA * v, x - SIGMA * v]), abs=1e-6)
        x = x - 0.02 * (curved(x + SIGMA * v) - curved(x - SIGMA * v)) / (2 * SIGMA) * v
        assert search._incumbent() == exactly(x)


def test_a_pool_of_two_is_spsa_at_twice_the_rate() -> None:
    """MeZO-GV with M = 2 is MeZO along (z1 - z2) / sqrt(2) with sqrt(2) epsilon and 2 eta: the losses of the pool
    decide a sign, which an estimate that is even in v does not see."""
    guided = make("guided", population=2, **PAPER)
    spsa = make("spsa", population=2, **{**PAPER, "sigma": SIGMA * 2**0.5, "lr": 0.04})

    class Difference:
        def draw(self, step: int, count: int) -> np.ndarray:
            z = guided._noise.draw(step, 2)
            return (z[:1] - z[1:]) / 2**0.5

    spsa._noise = Difference()
    for _ in range(6):
        generation(guided)
        central, _ = generation(guided)
        pair, _ = generation(spsa)
        assert sorted(central.tolist()) == pytest.approx(np.array(sorted(pair.tolist())), abs=1e-6)
        assert guided._incumbent() == exactly(spsa._incumbent())


def test_es_is_the_weighted_sum() -> None:
    for weights, antithetic in (("centred", False), ("ranks", False), ("ranks", True), ("centred", True)):
        search = make("es", weights=weights, antithetic=antithetic, **PAPER)
        z, losses = generation(search)
        shaped = losses - losses.mean() if weights == "centred" else losses.argsort().argsort() / 5 - 0.5
        expected = -0.02 * (shaped[:, None] * z / SIGMA).sum(0) / (6 * SIGMA)
        assert search._incumbent() == exactly(expected)
        assert len(np.unique(np.abs(z).round(6), axis=0)) == (3 if antithetic else 6)
    spsa = make("spsa", **PAPER)
    generation(spsa)
    assert spsa._incumbent() == exactly(expected)  # antithetic and centred


def test_fzoo_is_normalised_by_the_spread_of_its_losses() -> None:
    paper, ours = make("fzoo", **PAPER), make("fzoo", lr=0.02)
    x = np.zeros(DIM)
    for step in range(4):
        z, losses = generation(paper)
        assert z[0] == exactly(x)
        u = np.sign(z[1:] - z[0])
        assert np.array_equal(u, paper._noise.draw(step, 5))
        spread = np.sqrt(np.square(losses[1:] - losses[1:].mean()).sum() / 4)
        x = x - 0.02 * ((losses[1:] - losses[0])[:, None] * u).mean(0) / spread
        assert paper._incumbent() == exactly(x)
    z, losses = generation(ours)
    u, rise = z[1:] / SIGMA, losses[1:] - losses[0]
    direction = (rise[:, None] * u).sum(0)
    slope = rise @ (losses[1:] - losses[1:].mean()) / SIGMA
    unit = losses[1:].std(ddof=1) / SIGMA
    assert ours._incumbent() == exactly(-0.02 * slope / np.square(direction).mean() * direction / unit)


@pytest.mark.parametrize("options", [{}, PAPER])
def test_fzoo_sees_no_scale_of_the_loss(options: dict[str, Any]) -> None:
    runs = []
    for scale in (1.0, 1e-6, 1e6):
        search = make("fzoo", **options)
        for _ in range(5):
            generation(search, lambda z, scale=scale: scale * curved(z) + scale)
        runs.append(search._incumbent())
    assert runs[1] == exactly(runs[0])
    assert runs[2] == exactly(runs[0])


def test_weights() -> None:
    losses = np.array([3.0, 1.0, 2.0, 1.0, 7.0])
    assert guiding(losses, 0.5).tolist() == pytest.approx([-1 / 3, 1 / 2, -1 / 3, 1 / 2, -1 / 3])
    assert guiding(losses, 0.01).tolist() == [-0.25, 1, -0.25, -0.25, -0.25]
    assert guiding(losses, 0.99).tolist() == [0.25, 0.25, 0.25, 0.25, -1]
    assert greedy(losses).tolist() == [0, 1, 0, 0, 0]
    assert ranks(losses).tolist() == [0.25, -0.375, 0, -0.375, 0.5]
    assert centred(losses).tolist() == pytest.approx([0.2, -1.8, -0.8, -1.8, 4.2])
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(UserError, match="best_share"):
            make("guided", best_share=share)
    with pytest.raises(UserError, match=r"weights: unknown 'rank'.*'ranks'"):
        make("es", weights="rank")
    for name, least in [*[(name, 2) for name in NAMES[:-1]], ("fzoo", 3)]:
        with pytest.raises(UserError, match=f"population: {least - 1} .* at least {least}"):
            make(name, population=least - 1)


# -- one direction: drawn, probed, evaluated, applied ----------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != "subzero"])  # which has its own noise
@pytest.mark.parametrize("noise", ["gaussian", "rademacher", "plane"])
def test_the_step_is_made_of_what_was_evaluated(name: str, noise: str) -> None:
    """Every candidate is x plus sigma times its own noise, and every step is a sum of the step's evaluated offsets."""
    search = make(name, population=6, noise=noise, update="sgd", lr=0.01)
    for step in range(5):
        x, offsets = search._incumbent(), []
        while np.array_equal(search._incumbent(), x):
            z, _ = generation(search)
            offsets.append((z - x) / SIGMA)
        drawn = search._noise.draw(step, 6)
        first = offsets[0][1:] if name == "fzoo" else offsets[0][::2] if name == "spsa" else offsets[0]
        assert first == pytest.approx(drawn[: len(first)], abs=1e-4)
        moved = search._incumbent() - x
        last = offsets[-1]
        rest = moved - last.T @ np.linalg.lstsq(last.T, moved, rcond=1e-4)[0]
        assert np.linalg.norm(rest) < 1e-4 * np.linalg.norm(moved)
        if name in ("guided", "greedy"):  # and v itself is one of the pool's sums
            rest = last[0] - offsets[0].T @ np.linalg.lstsq(offsets[0].T, last[0], rcond=1e-4)[0]
            assert np.linalg.norm(rest) < 1e-4 * np.linalg.norm(last[0])


def test_a_run_is_its_seed_and_a_number_per_probe() -> None:
    """The noise holds no state: x after any number of steps is a sum of directions drawn again afterwards."""
    search = make("spsa", population=4, **PAPER)
    slopes = []
    for _ in range(10):
        _, losses = generation(search)
        slopes.append((losses[::2] - losses[1::2]) / (2 * SIGMA))
    noise = make("spsa")._noise
    x = np.zeros(DIM)
    for step in reversed(range(10)):
        x -= 0.02 * (slopes[step][:, None] * noise.draw(step, 2)).mean(0)
    assert search._incumbent() == exactly(x)


@every_name
def test_a_bound_cuts_probes_and_is_seen_in_the_estimate(name: str) -> None:
    search = make(name, bound=0.1, update="sgd", lr=0.003 if name == "fzoo" else 0.004)
    for _ in range(60):
        z, _ = generation(search, lambda z: z @ np.ones(DIM))
        assert np.abs(z).max() <= 0.1
        assert np.abs(search._incumbent()).max() <= 0.1
    assert search._incumbent().mean() < -0.08  # downhill is the corner


# -- losses that are no numbers --------------------------------------------------------------------------------------


@every_name
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_loss_is_the_worst_of_its_generation(name: str, bad: float) -> None:
    one, other = make(name, update="sgd", lr=0.01), make(name, update="sgd", lr=0.01)
    generation(other, lambda z: np.full(len(z), 1e4))  # what was told long ago plays no part
    generation(one, lambda z: np.zeros(len(z)))
    assert not one._incumbent().any()
    for search, spoilt in ((one, False), (other, True)):
        while search._step < 1:  # the second half of a step that told nothing
            generation(search, lambda z: np.zeros(len(z)))
        assert not search._incumbent().any()
        z = search.ask().double().numpy()
        losses = curved(z)
        losses[1] = bad if spoilt else np.delete(losses, 1).max()
        search.tell(losses)
        if name in ("guided", "greedy"):
            generation(search)
    assert one._incumbent().any()
    assert np.array_equal(one._incumbent(), other._incumbent())
    assert np.linalg.norm(other._incumbent()) < 1  # no penalty went into it


@every_name
@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
def test_without_two_finite_losses_nothing_moves(name: str, update: str) -> None:
    search = make(name, update=update)
    for _ in range(4):
        generation(search)
    before = search._incumbent()
    assert before.any()
    step = search._step
    for finite in (0, 1):
        losses = np.full(len(search.ask()), np.nan)
        losses[:finite] = 0.5
        search.tell(losses)
        assert np.array_equal(search._incumbent(), before)  # not even by momentum
    assert search._step == step + 2  # and other directions are tried
    for _ in range(2):
        generation(search)
    assert not np.array_equal(search._incumbent(), before)


@every_name
def test_half_of_a_step_without_losses_is_begun_anew(name: str) -> None:
    search = make(name, lr=0.01 if name == "fzoo" else 0.05)  # without a ladder, which is another half
    first, _ = generation(search)
    second = search.ask()
    search.tell(torch.full((len(second),), torch.nan))
    third = search.ask().double().numpy()
    assert len(third) == len(first)
    search.tell(curved(third))
    assert not np.isclose(first[-1], third[-1]).any()


@every_name
@pytest.mark.parametrize("update", ["sgd", "adam"])
def test_huge_losses_do_not_end_in_nan(name: str, update: str) -> None:
    search = make(name, update=update, lr=1e3)
    for scale in (1e300, 1e200, -1e300, 1e-300, 1e-310, 0.0):
        for _ in range(3):
            generation(search, lambda z, scale=scale: scale * np.tanh(z).sum(1))
    assert np.isfinite(search._incumbent()).all()
    assert search.ask().isfinite().all()
