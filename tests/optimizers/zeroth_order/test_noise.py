"""Noise is a pure function of (seed, step, index), and has the moments that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from dfolora.errors import UserError
from dfolora.optimizers.zeroth_order.noise import NOISE_NAMES, Plane, make_noise

DIM = 100
every_noise = pytest.mark.parametrize("name", NOISE_NAMES)


@every_noise
def test_drawn_again_in_any_order_it_is_the_same(name: str) -> None:
    noise = make_noise(name, DIM, 3)
    addresses = [(step, index) for step in (0, 1, 9, 10, 25) for index in (0, 1, 7)]
    first = {address: noise.direction(*address) for address in addresses}
    other = make_noise(name, DIM, 3)
    for address in reversed(addresses):
        assert np.array_equal(other.direction(*address), first[address])
        other.draw(4, 2)
        assert np.array_equal(noise.direction(*address), first[address])
    assert np.array_equal(make_noise(name, DIM, 3).draw(9, 8)[[0, 1, 7]], [first[9, index] for index in (0, 1, 7)])


@every_noise
def test_every_address_has_its_own_direction(name: str) -> None:
    drawn = [make_noise(name, DIM, seed).draw(step, 5) for seed in (0, 1, 2**32 - 1) for step in (0, 1, 2)]
    z = np.concatenate(drawn)
    cosines = z @ z.T / np.outer(*[np.linalg.norm(z, axis=1)] * 2)
    within = 32 if name == "plane" else DIM  # directions of one plane have less room
    assert np.abs(cosines - np.eye(len(z))).max() < 5 / np.sqrt(within)


@every_noise
def test_mean_zero_variance_one(name: str) -> None:
    noise = make_noise(name, DIM, 5)
    z = np.concatenate([noise.draw(step, 20) for step in range(0, 1000, 5)])  # 4000 directions, of 100 planes
    assert abs(z.mean()) < 0.02
    assert np.square(z).mean() == pytest.approx(1, rel=0.02)
    correlations = z.T @ z / len(z)  # as wide as the draws that are independent allow: planes are few
    assert np.abs(correlations - np.eye(DIM)).max() < (0.6 if name == "plane" else 0.13)
    if name == "rademacher":
        assert set(np.unique(z)) == {-1.0, 1.0}


def test_a_plane_is_kept_for_its_steps() -> None:
    noise = Plane(DIM, 7, plane_dim=6, plane_steps=4)
    spans = [np.linalg.matrix_rank(noise.draw(step, 20)) for step in range(3)]
    assert spans == [6, 6, 6]
    same, beyond = (np.concatenate([noise.draw(step, 20) for step in steps]) for steps in ((0, 1, 2, 3), (0, 4)))
    assert np.linalg.matrix_rank(same) == 6
    assert np.linalg.matrix_rank(beyond) == 12
    basis = noise.basis(5)
    assert np.allclose(basis.T @ basis, np.eye(6), atol=1e-12)
    assert np.allclose(noise.direction(5, 2) @ basis @ basis.T, noise.direction(5, 2))
    assert Plane(4, 7, plane_dim=6).draw(0, 9).shape == (9, 4)


GAUSSIAN = [0.2719002392161729, 0.89780418862516, -0.8892165806509574]
RADEMACHER = [-1, 1, -1, -1, -1, 1, -1, 1]


def test_frozen() -> None:
    """Runs are replayed from their logs, so the streams may never change."""
    assert make_noise("gaussian", 3, 1).direction(2, 4) == pytest.approx(GAUSSIAN, rel=1e-12)
    assert make_noise("rademacher", 8, 1).direction(2, 4).tolist() == RADEMACHER


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("guassian", 3, 0), "noise: unknown 'guassian'.*'gaussian'"),
        (("plane", 3, 0, 0), "plane_dim: 0"),
        (("plane", 3, 0, 5, 0), "plane_steps: 0"),
        (("gaussian", 3, 0, 5), "plane_dim: it is for noise plane"),
        (("rademacher", 3, 0, None, 5), "plane_steps: it is for noise plane"),
    ],
)
def test_what_cannot_work_is_refused(arguments: tuple[object, ...], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make_noise(*arguments)  # type: ignore[arg-type]
