"""Gauss-Newton on class scores: the step against an independent solution, replay, and scores that are no numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.optimizers import Evaluation, make_optimizer
from dfolora.optimizers.linear_scores import LinearScores
from dfolora.problems.objectives import cross_entropy, hinge

EXAMPLES, CLASSES, DIM, SIGMA = 12, 3, 6, 0.2
GENERATOR = torch.Generator().manual_seed(4)
BASE = torch.randn(EXAMPLES, CLASSES, generator=GENERATOR, dtype=torch.float64)
SLOPES = torch.randn(DIM, EXAMPLES, CLASSES, generator=GENERATOR, dtype=torch.float64)
LABELS = (BASE + torch.einsum("d,dnc->nc", torch.linspace(-1, 1, DIM, dtype=torch.float64), SLOPES)).argmax(-1)
ABSENT = torch.zeros(EXAMPLES, CLASSES, dtype=torch.bool)
ABSENT[[1, 4], (LABELS[[1, 4]] + 1) % CLASSES] = True  # two examples have two classes only

Scores = Callable[[Tensor], Tensor]


def linear(z: Tensor) -> Tensor:
    return BASE + torch.einsum("pd,dnc->pnc", z.double(), SLOPES)


def bent(z: Tensor) -> Tensor:
    return 3 * torch.tanh(linear(z) / 3)


def with_two_classes(z: Tensor) -> Tensor:
    return linear(z).masked_fill(ABSENT, -torch.inf)


def mean_loss(objective: Any) -> Callable[[Tensor], Tensor]:
    return lambda scores: objective(scores, LABELS).mean(-1)


def evaluation(z: Tensor, scores: Scores = linear, objective: Any = cross_entropy) -> Evaluation:
    found = scores(z).float()
    return Evaluation(mean_loss(objective)(found), found, None, mean_loss(objective))


def make(**changes: Any) -> Any:
    return make_optimizer("gauss-newton", **{"dim": DIM, "population": 20, "sigma": SIGMA, "seed": 3, **changes})


def damped(z: Tensor, scores: Scores, objective: Any, damping: float) -> Tensor:
    """(K,): what the first step minimises, in z itself: |a|^2 is |z|^2 over the square of a probe's length."""
    return mean_loss(objective)(scores(z)) + damping / 2 * z.double().square().sum(1) / (SIGMA**2 * DIM)


def minimum(scores: Scores, damping: float) -> Tensor:
    """(d,): where the damped cross-entropy is lowest, by Newton's method on its own derivatives."""
    z = torch.zeros(DIM, dtype=torch.float64)

    def loss(point: Tensor) -> Tensor:
        return damped(point[None], scores, cross_entropy, damping)[0]

    for _ in range(50):
        gradient = torch.func.grad(loss)(z)
        z = z - torch.linalg.solve(torch.func.hessian(loss)(z), gradient)
    assert gradient.norm() < 1e-12
    return z


@pytest.mark.parametrize("damping", [0.02, 0.1, 2.0])
@pytest.mark.parametrize("scores", [linear, with_two_classes])
def test_the_first_step_is_the_optimum_where_scores_are_linear(scores: Scores, damping: float) -> None:
    search = make(damping=damping, steps=1)
    for size in (1 + DIM, 1):
        z = search.ask()
        assert len(z) == size
        search.tell(evaluation(z, scores))
    expected = minimum(scores, damping)
    assert expected.norm() > 0.02
    assert (search.incumbent() - expected).norm() < 1e-5


def test_fewer_probes_than_dimensions_find_the_optimum_of_their_span() -> None:
    search = make(population=4, steps=1)
    z = search.ask()
    probes = (z[1:] - z[0]).double()
    assert probes @ probes.T == pytest.approx(SIGMA**2 * DIM * torch.eye(3), abs=1e-6)
    search.tell(evaluation(z))
    search.tell(evaluation(search.ask()))
    x = search.incumbent().double()
    basis = torch.linalg.qr(probes.T)[0]
    assert (x - basis @ (basis.T @ x)).norm() < 1e-6
    here = x.clone().requires_grad_()
    gradient = torch.autograd.grad(damped(here[None], linear, cross_entropy, 0.1)[0], here)[0]
    assert (basis.T @ gradient).norm() < 1e-5
    assert gradient.norm() > 1e-2  # there was more to gain elsewhere, which is for the next probes
    assert not torch.allclose(search.ask()[1:], z[1:])


def test_hinge_has_corners_and_is_minimised_all_the_same() -> None:
    search = make(steps=1, damping=0.05)
    for _ in range(2):
        search.tell(evaluation(search.ask(), linear, hinge))
    x = search.incumbent().double()
    assert x.norm() > 0.1
    around = x + 0.01 * torch.randn(500, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = damped(x[None], linear, hinge, 0.05)
    assert (damped(around, linear, hinge, 0.05) > value - 1e-4).all()
    assert value < 0.8 * damped(0 * x[None], linear, hinge, 0.05)


def test_a_few_steps_fit_scores_that_are_bent() -> None:
    search, classical = make(), make_optimizer("cma", DIM, 20, SIGMA, 3)
    evaluations = 0
    while evaluations < 45:
        z = search.ask()
        evaluations += len(z)
        search.tell(evaluation(z, bent))
    for _ in range(3):
        classical.tell(evaluation(classical.ask(), bent))
    start, reached, other = (
        float(evaluation(point[None], bent).losses)
        for point in (torch.zeros(DIM), search.incumbent(), classical.incumbent())
    )
    assert reached < 0.7 * start
    assert reached < other - 0.1


def test_a_step_is_told_on_the_examples_of_its_probes_and_never_makes_x_worse() -> None:
    search = make()
    for _ in range(6):
        before, x = float(evaluation(search.incumbent()[None], bent).losses), search.incumbent()
        assert search.begins
        z = search.ask()
        assert torch.equal(z[0], x)
        search.tell(evaluation(z, bent))
        assert not search.begins
        assert torch.equal(search.incumbent(), x)
        lengths = (search.ask() - x) @ search._step / np.square(search._step).sum()
        assert lengths == pytest.approx(torch.tensor([1, 0.5, 2, 0.25]), abs=1e-5)
        search.tell(evaluation(x + lengths[:, None] * search._step, bent))
        assert float(evaluation(search.incumbent()[None], bent).losses) <= before


def test_damping_follows_what_was_gained() -> None:
    exact, deceived, still = make(), make(), make(adapt=False)
    for search in (exact, deceived, still):
        search.tell(evaluation(search.ask()))
        z = search.ask()
        worse = Evaluation(torch.full((len(z),), 9.0), linear(z).float(), None, mean_loss(cross_entropy))
        search.tell(evaluation(z) if search is exact else worse)
    assert exact.damping == pytest.approx(0.1 / 3)
    assert deceived.damping == pytest.approx(0.4)
    assert still.damping == 0.1
    assert not deceived.incumbent().any()
    shorter = [search.tell(evaluation(search.ask())) or search._step for search in (deceived, still)]
    assert np.linalg.norm(shorter[0]) < np.linalg.norm(shorter[1])


def test_told_again_from_json_it_is_the_same_to_the_last_bit() -> None:
    search, twin = make(population=5), make(population=5)
    for generation in range(10):
        z = search.ask()
        told = evaluation(z, bent)
        if generation == 4:
            told.scores[1] = torch.nan
            told.losses[1] = torch.nan
        search.tell(told)
        line = json.loads(json.dumps({"losses": told.losses.tolist(), "note": search.note()}))
        assert (line["note"] is None) == (generation % 2 == 1)
        assert torch.equal(twin.ask(), z)
        twin.retell(line["losses"], line["note"])
        assert torch.equal(search.incumbent(), twin.incumbent())
        assert (search.begins, search.damping) == (twin.begins, twin.damping)
    assert torch.equal(search.ask(), twin.ask())
    with pytest.raises(UserError, match="the log has 0 coefficients for 4 probes of gauss-newton"):
        twin.retell([0.0] * 5, None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_probe_with_a_bad_score_is_left_out(bad: float) -> None:
    search, without = make(steps=1), make(steps=1)
    z = search.ask()
    told = evaluation(z)
    told.scores[2, 3, 1] = bad
    told.losses[2] = bad
    search.tell(told)
    coefficients = search.note()["coefficients"]
    assert coefficients[1] == 0.0
    assert all(coefficients[:1] + coefficients[2:])
    clean = linear(z)
    fewer = LinearScores(clean[[0, 1, *range(3, 1 + DIM)]], mean_loss(cross_entropy))
    assert fewer.optimum(0.1) == pytest.approx(np.delete(coefficients, 1), abs=1e-5)
    before = without.ask()
    spoilt = evaluation(before)
    spoilt.scores[0] = bad  # nothing can be compared with x
    spoilt.losses[0] = bad
    without.tell(spoilt)
    assert not without.ask().any()  # x once more, and nothing else
    without.tell(evaluation(torch.zeros(1, DIM)))
    assert not without.incumbent().any()
    assert without.damping == 0.1
    assert len(without.ask()) == 1 + DIM


def test_lengths_that_broke_the_model_are_not_taken() -> None:
    search = make()
    search.tell(evaluation(search.ask()))
    z = search.ask()
    told = evaluation(z)
    told.losses[[0, 2]] = torch.nan
    search.tell(told)
    assert torch.equal(search.incumbent(), z[[1, 3]][told.losses[[1, 3]].argmin()])
    assert search.damping == pytest.approx(0.4)


def test_without_scores_it_says_what_it_needs() -> None:
    search = make()
    z = search.ask()
    for told in (torch.zeros(len(z)), Evaluation(torch.zeros(len(z)))):
        with pytest.raises(UserError, match=r"optimizer: GaussNewton needs the class scores .* such as cma") as caught:
            search.tell(told)
        assert "\n" not in str(caught.value)

    def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
        return -(scores.argmax(-1) == labels).double()

    with pytest.raises(UserError, match="objective: its loss has no slope in the scores"):
        search.tell(evaluation(z, linear, accuracy))


@pytest.mark.parametrize("options", [{"damping": 0.0}, {"damping": math.nan}, {"steps": 0}, {"steps": 7}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))}: .* cannot work; it takes"):
        make(**options)
