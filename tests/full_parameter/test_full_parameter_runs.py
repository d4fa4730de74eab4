"""Runs, the notes that a log holds of them, and what goes wrong."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_valley import DTYPES, METHODS, Valley, memory, same

from dfolora.errors import UserError
from dfolora.methods.full_parameter import FullParameter, Step


def logged(steps: list[Step]) -> list[Step]:
    """Steps as a log gives them back: losses and notes through JSON."""
    lines = json.loads(json.dumps([{"losses": step.losses, "note": step.note()} for step in steps], allow_nan=False))
    return [Step.from_note(number, line["losses"], line["note"]) for number, line in enumerate(lines)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", METHODS)
def test_a_run_is_repeated_from_its_notes_to_the_bit_and_goes_on(estimator: str, dtype: torch.dtype) -> None:
    def fresh(loss: Callable[[Valley], float] = lambda model: float(model())) -> tuple[Valley, FullParameter]:
        model = Valley(dtype)
        return model, FullParameter(model, lambda: loss(model), estimator, 4, lr=1e-2, seed=4)

    model, tuner = fresh()
    origin = json.loads(json.dumps(tuner.origin()))
    for number in range(6):
        tuner.lr = 1e-2 / (1 + number)
        tuner.step()
    steps = logged(tuner.steps)
    assert steps == tuner.steps

    def never(model: Valley) -> float:
        raise AssertionError("a replay needs no forward")

    again, repeated = fresh(never)
    assert not same(memory(again), memory(model))
    repeated.check_origin(origin)
    for step in steps:
        repeated.repeat(step)
    assert same(memory(again), memory(model))
    assert repeated.steps == tuner.steps
    assert repeated.evaluations == tuner.evaluations

    on, resumed = fresh()
    for step in steps[:4]:
        resumed.repeat(step)
    for number in (4, 5):
        resumed.lr = 1e-2 / (1 + number)
        resumed.step()
    assert same(memory(on), memory(model))
    assert resumed.steps == tuner.steps


def test_a_seed_makes_a_run_and_the_chunks_do_not() -> None:
    def run(seed: int, chunk: int, dtype: torch.dtype) -> list[Tensor]:
        model = Valley(dtype)
        tuner = FullParameter(model, model, "guided", 4, lr=0.1, seed=seed, chunk=chunk)
        torch.manual_seed(chunk)  # no global generator is read, and none is touched
        state = torch.get_rng_state()
        for _ in range(3):
            tuner.step()
        assert torch.equal(torch.get_rng_state(), state)
        return memory(model)

    for dtype in (torch.float32, torch.bfloat16):
        first = run(1, 0, dtype)
        for chunk in (1000, 100, 7):
            assert same(run(1, chunk, dtype), first)
        assert not same(run(2, 0, dtype), first)


def test_steps_are_not_repeated_on_anything_else() -> None:
    model = Valley()
    tuner = FullParameter(model, model, lr=0.1)
    origin = tuner.origin()
    tuner.step()
    with pytest.raises(UserError, match="^model: the steps are of another base"):
        FullParameter(Valley(torch.float32), model).check_origin(origin)
    with pytest.raises(UserError, match="another base"):
        FullParameter(model, model).check_origin(origin)  # it has moved on
    with pytest.raises(UserError, match="another seed"):
        FullParameter(Valley(), model, seed=1).check_origin(origin)
    for other in (None, {}, {**origin, "noise": "another"}):
        with pytest.raises(UserError, match="^model: the steps are of another"):
            FullParameter(Valley(), model).check_origin(other)
    FullParameter(Valley(), model).check_origin(origin)
    with pytest.raises(UserError, match="^steps: 1 comes next, not 0"):
        tuner.repeat(tuner.steps[0])
    assert len(tuner.steps) == 1


@pytest.mark.parametrize(
    "note",
    [
        None, {}, {"lr": 0.1, "weights": {"0": 1.0}}, {"lr": "x", "weights": {}, "slopes": []},
        {"lr": math.nan, "weights": {}, "slopes": []}, {"lr": 0.1, "weights": {"-1": 1.0}, "slopes": []},
        {"lr": 0.1, "weights": {str(2**32): 1.0}, "slopes": []}, {"lr": 0.1, "weights": [], "slopes": []},
        {"lr": 0.1, "weights": {"0": math.inf}, "slopes": []}, {"lr": 0.1, "weights": {}, "slopes": 1},
    ],
)  # fmt: skip
def test_notes_that_no_step_gives(note: Any) -> None:
    with pytest.raises(UserError, match="^resume: the note of generation 4 is not that of a step"):
        Step.from_note(3, [0.5, 0.5], note)


def losing(model: Valley, bad: set[int], value: float = math.nan) -> Callable[[], float]:
    """The model's loss, but for some calls."""
    calls = itertools.count()
    return lambda: value if next(calls) in bad else float(model())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_probes_without_a_loss_are_dropped(value: float) -> None:
    model = Valley()
    spsa = FullParameter(model, losing(model, {0, 3}, value), population=6).step()
    alone = FullParameter(model, model, population=6).estimate()
    assert list(spsa.weights) == [2]
    assert spsa.losses.count(None) == 2
    assert len(alone.slopes) == 3
    guided = FullParameter(model, losing(model, {1}, value), "guided", 4).step()
    assert sorted(guided.weights) == [0, 2, 3]
    greedy = FullParameter(model, losing(model, {0, 1, 2}, value), "greedy", 4).step()
    assert list(greedy.weights) == [3]


@pytest.mark.parametrize(
    ("estimator", "bad"),
    [
        ("spsa", {0, 2}), ("spsa", {0, 1, 2, 3}), ("guided", {0, 1, 2}), ("guided", {4}), ("greedy", {0, 1, 2, 3}),
        ("greedy", {5}),
    ],
)  # fmt: skip
def test_a_step_with_too_few_losses_changes_nothing_and_the_next_one_is_another(estimator: str, bad: set[int]) -> None:
    model = Valley(torch.float32)
    before = memory(model)
    tuner = FullParameter(model, losing(model, bad), estimator, 4, lr=0.1)
    assert tuner.step().weights == {}
    assert same(memory(model), before)
    assert tuner.step().step == 1
    assert not same(memory(model), before)


def test_losses_too_large_for_a_slope_change_nothing() -> None:
    model = Valley()
    before = memory(model)
    huge = itertools.cycle([1e308, -1e308])
    assert FullParameter(model, lambda: next(huge)).step().weights == {}
    assert same(memory(model), before)


def test_a_loss_that_raises_leaves_the_weights_as_they_were() -> None:
    model = Valley(torch.float32)
    before = memory(model)
    calls = itertools.count()

    def loss() -> Tensor:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return model()

    tuner = FullParameter(model, loss, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        tuner.step()
    assert same(memory(model), before)
    assert tuner.steps == []
    tuner.step()
    other = Valley(torch.float32)
    FullParameter(other, other, lr=0.1).step()
    assert same(memory(model), memory(other))


class Sharing(nn.Module):
    def __init__(self, start: int) -> None:
        super().__init__()
        whole = torch.randn(20)
        self.left, self.right = nn.Parameter(whole[:10]), nn.Parameter(whole[start : start + 10])
        self.eval()


def test_parameters_in_one_piece_of_memory_are_two_unless_they_overlap() -> None:
    FullParameter(Sharing(10), lambda: 0.0)
    with pytest.raises(UserError, match=r"left.*right|right.*left"):
        FullParameter(Sharing(9), lambda: 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "spas"}, "did you mean 'spsa'"), ({"population": 1}, "population"), ({"eps": 0.0}, "eps"),
        ({"lr": math.nan}, "^lr: nan"), ({"best_share": 1.0}, "^best_share: 1.0"), ({"seed": -1}, "seed"),
        ({"chunk": -1}, "chunk"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FullParameter(Valley(), lambda: 0.0, **options)


def test_quantised_weights_are_refused() -> None:
    model = nn.Linear(3, 3).eval()
    model.config = SimpleNamespace(quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(UserError, match="quantised"):
        FullParameter(model, lambda: 0.0)


def test_models_that_cannot_be_moved_are_refused() -> None:
    for model, message in (
        (Valley().train(), "training"),
        (nn.Linear(3, 3, device="meta").eval(), "meta"),
        (nn.Identity().eval(), "no floating-point"),
    ):
        with pytest.raises(UserError, match=message):
            FullParameter(model, lambda: 0.0)
    turned = nn.Linear(3, 4).eval()
    turned.weight = nn.Parameter(torch.randn(3, 4).T)
    with pytest.raises(UserError, match="weight"):
        FullParameter(turned, lambda: 0.0)
