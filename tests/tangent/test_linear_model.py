"""The linear model of scores: optimum, promise and updates against computations with an explicit Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dfolora.methods.tangent.linear_model import LinearModel, Move, Slopes
from dfolora.problems.objectives import cross_entropy, hinge, likelihood

EXAMPLES, CLASSES, DIRECTIONS = 7, 3, 2
WIDTHS = (12, 10)  # inputs of two modules; more entries of A than scores, so that any loss can be reached
Loss = Callable[[Tensor], Tensor]


def drawn(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SCORES = drawn(EXAMPLES, CLASSES, seed=1).float()
LABELS = drawn(EXAMPLES, CLASSES, seed=2).argmax(-1)
ABSENT = torch.zeros(EXAMPLES, CLASSES, dtype=torch.bool)
ABSENT[[1, 4], (LABELS[[1, 4]] + 1) % CLASSES] = True


def loss_of(objective: Any) -> Loss:
    return lambda scores: objective(scores, LABELS).mean(-1)


def own_rows(rows: int) -> Tensor:
    """Every example read from a row of its own, in some order."""
    return ((torch.arange(EXAMPLES) * 3) % rows)[:, None].expand(EXAMPLES, CLASSES).contiguous()


def choice_rows(rows: int) -> Tensor:
    """Every score read from a row of its own; the last class of two examples from none."""
    each = (torch.arange(EXAMPLES * CLASSES) % rows).view(EXAMPLES, CLASSES)
    return each.masked_fill(ABSENT, -1)


def part(width: int, seed: int, rows_of: Callable[[int], Tensor] = own_rows, scale: float = 1.0) -> Slopes:
    slopes = scale * drawn(DIRECTIONS, EXAMPLES, CLASSES, seed=seed)
    return Slopes(drawn(9, width, seed=seed + 1).float(), rows_of(9), slopes)


def modules(rows_of: Callable[[int], Tensor] = own_rows) -> list[list[Slopes]]:
    """Two modules; the second has texts and labels, of which its A changes both."""
    return [[part(WIDTHS[0], 10, rows_of)], [part(WIDTHS[1], 20, rows_of), part(WIDTHS[1], 30, choice_rows)]]


def jacobian(sets: Sequence[Slopes]) -> Tensor:
    """(N C, K in): the change of each score for each entry of A, one after the other."""
    width = sets[0].inputs.shape[1]
    total = torch.zeros(EXAMPLES, CLASSES, DIRECTIONS, width, dtype=torch.float64)
    for each in sets:
        for i in range(EXAMPLES):
            for c in range(CLASSES):
                if each.rows[i, c] >= 0:
                    total[i, c] += torch.outer(each.slopes[:, i, c], each.inputs[each.rows[i, c]].double())
    return total.view(EXAMPLES * CLASSES, -1)


def share_of(sets: Sequence[Slopes], count: int) -> float:
    """What a module's kernel is divided by: its mean over examples, and the number of modules."""
    return float(jacobian(sets).square().sum()) / EXAMPLES * count


def scores_at(every: Sequence[Sequence[Slopes]], updates: Sequence[Tensor], scores: Tensor = SCORES) -> Tensor:
    change = sum(jacobian(sets) @ a.double().flatten() for sets, a in zip(every, updates, strict=True))
    return scores.double() + change.view(EXAMPLES, CLASSES)  # type: ignore[union-attr]


def minimum(every: Sequence[Sequence[Slopes]], loss: Loss, penalty: float, scores: Tensor = SCORES) -> list[Tensor]:
    """A of every module by Newton's method on all entries: loss + penalty / 2 sum |A|^2 times the module's share."""
    counts = [DIRECTIONS * sets[0].inputs.shape[1] for sets in every]
    jacobians = torch.cat([jacobian(sets) for sets in every], 1)
    shares = torch.cat([torch.full((n,), share_of(sets, len(every))) for n, sets in zip(counts, every, strict=True)])

    def total(a: Tensor) -> Tensor:
        moved = scores.double() + (jacobians @ a).view(EXAMPLES, CLASSES)
        return loss(moved[None])[0] + penalty / 2 * (shares * a.square()).sum()

    a = torch.zeros(sum(counts), dtype=torch.float64)
    for _ in range(60):
        slope = torch.func.grad(total)(a)
        if slope.norm() < 1e-10:
            break
        step = torch.linalg.solve(torch.func.hessian(total)(a), slope)
        while float(total(a - step)) > float(total(a)) and step.norm() > 1e-9:
            step = step / 2
        a = a - step
    assert torch.func.grad(total)(a).norm() < 1e-9
    return [each.view(DIRECTIONS, -1) for each in a.split(counts)]


def fit(every: Sequence[Sequence[Slopes]], loss: Loss, share: float = 0.4, scores: Tensor = SCORES) -> Move:
    return LinearModel(scores, every).fit(loss, share)


def promises_what_the_linear_scores_have(move: Move, every: Any, loss: Loss, scores: Tensor = SCORES) -> None:
    assert move.promised == pytest.approx(float(loss(scores_at(every, move.updates, scores)[None])), abs=1e-5)


@pytest.mark.parametrize("share", [0.9, 0.4, 0.1])
@pytest.mark.parametrize("rows_of", [own_rows, choice_rows])
def test_the_fit_is_the_optimum_of_the_damped_problem(rows_of: Any, share: float) -> None:
    every, loss = modules(rows_of), loss_of(cross_entropy)
    move = fit(every, loss, share)
    expected = minimum(every, loss, move.penalty)
    assert max(float(each.norm()) for each in expected) > 0.01
    for update, right in zip(move.updates, expected, strict=True):
        assert update.dtype == torch.float32
        assert update.shape == right.shape
        assert (update - right).abs().max() < 1e-5
    promises_what_the_linear_scores_have(move, every, loss)
    assert move.promised == pytest.approx(share * float(loss(SCORES[None])), rel=0.02)


def test_classes_that_an_example_lacks() -> None:
    """They stay at -inf, whatever their slopes, and the fit is that of the others."""
    every, loss = modules(), loss_of(cross_entropy)
    scores = SCORES.masked_fill(ABSENT, -torch.inf)
    for sets in every:
        for each in sets:
            each.slopes.masked_fill_(ABSENT, 0.0)
    move = fit(every, loss, scores=scores)
    finite = scores.masked_fill(ABSENT, -1e4)  # -inf has no derivative; e^-10000 is 0 all the same
    for update, right in zip(move.updates, minimum(every, loss, move.penalty, finite), strict=True):
        assert (update - right).abs().max() < 1e-5
    assert move.promised == pytest.approx(0.4 * float(loss(scores[None])), rel=0.02)


def test_likelihood_is_linear_in_the_scores() -> None:
    """Its optimum is known without a solver: A = -gradient / penalty."""
    every, loss = modules(choice_rows), loss_of(likelihood)
    move = fit(every, loss, 0.7)
    at = torch.zeros(EXAMPLES, CLASSES, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(loss(at[None]).sum(), at)[0].flatten()
    for update, sets in zip(move.updates, every, strict=True):
        expected = -(jacobian(sets).T @ slope) / move.penalty / share_of(sets, 2)
        assert (update.flatten() - expected).abs().max() < 1e-5
    promises_what_the_linear_scores_have(move, every, loss)


def test_hinge_has_corners_and_is_minimised_all_the_same() -> None:
    every, loss = modules(), loss_of(hinge)
    move = fit(every, loss)
    now = float(loss(SCORES[None]))
    assert 0.36 * now < move.promised <= 0.4 * now  # corners, at which the solver is not as exact
    promises_what_the_linear_scores_have(move, every, loss)

    def damped(updates: Sequence[Tensor]) -> float:
        size = sum(share_of(sets, 2) * float(a.double().square().sum()) for sets, a in zip(every, updates, strict=True))
        return float(loss(scores_at(every, updates)[None])) + move.penalty / 2 * size

    least = damped(move.updates)
    for seed in range(20):
        around = [a + 0.01 * drawn(*a.shape, seed=seed) for a in move.updates]
        assert damped(around) > least - 1e-4


def test_a_share_that_is_out_of_reach_gives_the_least_penalty_s_best() -> None:
    """Two examples with the same row and slopes, and other labels, cannot both be fitted."""
    one = part(WIDTHS[0], 10)
    rows, slopes = one.rows.clone(), one.slopes.clone()
    rows[:], slopes[:] = rows[0], slopes[:, :1]
    labels = torch.arange(EXAMPLES) % 2
    scores = torch.zeros(EXAMPLES, CLASSES)
    move = LinearModel(scores, [[Slopes(one.inputs, rows, slopes)]]).fit(
        lambda s: cross_entropy(s, labels).mean(-1), 0.05
    )
    assert move.penalty == pytest.approx(1e-8, rel=0.01)
    ones = labels.double().mean()
    entropy = -(ones * ones.log() + (1 - ones) * (1 - ones).log())
    assert float(entropy) - 1e-6 < move.promised < math.log(3)
    assert all(update.isfinite().all() for update in move.updates)


def test_enough_is_all_that_is_asked_for() -> None:
    every, loss = modules(), loss_of(cross_entropy)
    move = LinearModel(SCORES, every).fit(loss, 0.1, least=0.5)
    assert move.promised == pytest.approx(0.5, rel=0.02)


# -- the kernel and what comes of it -----------------------------------------------------------------------------------


def test_the_kernel_is_that_of_the_explicit_jacobian() -> None:
    every = modules(choice_rows)
    model = LinearModel(SCORES, every)
    found = model._vectors * model._roots.square() @ model._vectors.T
    expected = sum(jacobian(sets) @ jacobian(sets).T / share_of(sets, 2) for sets in every)
    assert (found - expected).abs().max() < 1e-9
    assert float(found.diagonal().sum()) / EXAMPLES == pytest.approx(1.0)


def test_a_module_counts_alike_whatever_its_scale() -> None:
    """A hundred times the slopes: a hundredth of the update, and the same scores."""
    small, loss = modules(), loss_of(cross_entropy)
    large = [small[0], [Slopes(each.inputs, each.rows, 100 * each.slopes) for each in small[1]]]
    one, other = fit(small, loss), fit(large, loss)
    assert one.penalty == pytest.approx(other.penalty, rel=1e-6)
    assert (one.updates[0] - other.updates[0]).abs().max() < 1e-5
    assert (one.updates[1] - 100 * other.updates[1]).abs().max() < 1e-5


def dead(each: Slopes, slopes: float = 0.0, inputs: float = 1.0) -> Slopes:
    return Slopes(each.inputs * inputs, each.rows, each.slopes * slopes)


@pytest.mark.parametrize("inputs", [1.0, math.nan])
def test_a_module_that_has_no_say_stays_as_it_is(inputs: float) -> None:
    """Without slopes, or with inputs that are no numbers; the other one is fitted as if it were alone."""
    every, loss = modules(), loss_of(cross_entropy)
    move = fit([every[0], [dead(each, 0.0 if inputs == 1 else 1.0, inputs) for each in every[1]]], loss, 0.8)
    assert not move.updates[1].any()
    assert move.updates[1].shape == (DIRECTIONS, WIDTHS[1])
    alone = fit(every[:1], loss, 0.8)
    assert alone.updates[0].abs().max() > 0.01
    assert (move.updates[0] - alone.updates[0]).abs().max() < 1e-3 * alone.updates[0].abs().max()
    assert alone.penalty == pytest.approx(move.penalty * 2, rel=0.01)  # half of the other kernel is nothing


def test_nothing_has_a_slope() -> None:
    every, loss = modules(), loss_of(cross_entropy)
    move = fit([[dead(each) for each in sets] for sets in every], loss)
    assert not any(update.any() for update in move.updates)
    assert move.promised == pytest.approx(float(loss(SCORES[None])))


def test_scores_that_are_no_numbers_give_no_move() -> None:
    scores = SCORES.clone()
    scores[2, 1] = math.nan
    move = fit(modules(), loss_of(cross_entropy), scores=scores)
    assert not any(update.any() for update in move.updates)
    assert math.isnan(move.promised)
