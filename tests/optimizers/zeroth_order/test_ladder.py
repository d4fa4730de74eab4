"""The ladder of rates: which rung wins on losses of known curvature, what never wins, and that a log is enough."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dfolora.errors import UserError
from dfolora.optimizers import check_optimizer, make_optimizer
from dfolora.optimizers.zeroth_order.ladder import LENGTHS, SHARE, Ladder

DIM = 40
NAMES = ["spsa", "subzero", "guided", "greedy", "es", "fzoo"]


def make(name: str, population: int = 8, **changes: Any) -> Any:
    return make_optimizer(name, DIM, population=population, seed=3, **changes)


def told(search: Any, loss: Any, steps: int = 1) -> list[dict[str, Any]]:
    """Notes of the generations up to the end of so many steps."""
    notes = []
    while search._step < steps:
        z = search.ask().double().numpy()
        search.tell(loss(z))
        notes.append({"count": len(z), "note": search.note(), "losses": loss(z)})
    return notes


def bowl(centre: float) -> Any:
    return lambda z: np.square(z - centre).mean(1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
def test_the_first_step_is_a_share_of_the_best_rung(name: str, update: str) -> None:
    """In a bowl far away nearly all of a longer step is gain, but the direction is random and only partly downhill."""
    search = make(name, update=update)
    loss = bowl(3.0)
    last = told(search, loss)[-1]
    assert last["count"] == 8
    length = math.sqrt(np.square(search._incumbent()).mean()) * (10 if update == "momentum" else 1)
    gains = last["losses"][0] - last["losses"][1:]
    best = LENGTHS[int(gains.argmax())]  # a bowl has one lowest point along a line
    assert gains.max() > 0
    assert length == pytest.approx(SHARE * best, rel=0.02)  # adam's epsilon
    assert search._update.lr == last["note"]["lr"]
    assert loss(search._incumbent()[None])[0] < loss(np.zeros((1, DIM)))[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_ladder_comes_once_and_a_number_has_none(name: str) -> None:
    search, fixed = make(name), make(name, lr=0.02)
    told(fixed, bowl(3.0), steps=4)
    notes = told(search, bowl(3.0), steps=4)
    assert [note["note"] is not None for note in notes].count(True) == 1
    assert fixed.note() is None
    assert search._update.lr != fixed._update.lr == 0.02


@pytest.mark.parametrize("population", [2, 4, 20])
def test_a_small_population_climbs_in_several_generations(population: int) -> None:
    notes = told(make("spsa", population), bowl(3.0))
    counts = [note["count"] for note in notes[1:]]
    gains = [gain for note in notes[1:] for gain in note["losses"][0] - note["losses"][1:]]
    assert max(counts) == min(population, 8)
    assert counts == {2: [2] * len(gains), 4: [4] * (len(gains) // 3), 20: [8]}[population]
    assert len(gains) == 7 or gains[-1] < max(gains)  # it ends where the loss has risen again
    whole = told(make("spsa", 20), bowl(3.0))[-1]
    assert whole["note"]["lr"] > 0


def test_rungs_that_break_the_model_never_win() -> None:
    search = make("spsa")
    while search._ladder is None:
        search.tell(bowl(3.0)(search.ask().double().numpy()))
    z = search.ask().double().numpy()
    losses = -np.arange(8.0)  # the longer the better ...
    losses[3:5] = math.nan
    losses[6] = -math.inf
    search.tell(losses)  # ... but between them and x lie broken models, behind which low losses are luck
    assert search._update.lr == pytest.approx(SHARE * 0.032, rel=1e-3)  # the second rung, Adam's first step being 1
    assert np.sqrt(np.square(z[2]).mean()) == pytest.approx(0.032, rel=1e-3)
    assert np.isfinite(search._incumbent()).all()


@pytest.mark.parametrize("losses", [[1.0] + [2.0] * 7, [1.0] * 8, [1.0] + [math.nan] * 7, [math.nan] * 8])
def test_standing_still_wins_and_the_next_estimate_has_a_ladder(losses: list[float]) -> None:
    search = make("spsa")
    search.tell(bowl(3.0)(search.ask().double().numpy()))
    search.ask()
    search.tell(losses)
    assert search.note() == {"lr": None}
    assert not search.incumbent().any()
    assert told(search, bowl(3.0), steps=2)[-1]["note"]["lr"] > 0
    assert search.incumbent().any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("population", [3, 8])
def test_told_again_from_a_log_it_is_the_same_to_the_bit(name: str, population: int) -> None:
    first, again = make(name, population), make(name, population)
    begins = []
    for _ in range(14):
        z = first.ask()
        losses = bowl(3.0)(z.double().numpy()).astype(np.float32)
        losses[len(losses) - 1] = math.nan if len(begins) % 5 == 4 else losses[-1]
        first.tell(torch.from_numpy(losses))
        assert torch.equal(again.ask(), z)
        again.retell(torch.from_numpy(losses), first.note())
        begins.append(first.begins)
        assert first.begins == again.begins
    assert torch.equal(first.ask(), again.ask())
    assert first._update.lr == again._update.lr
    assert False in begins  # rungs keep the examples of the estimate


def test_the_rate_is_that_of_the_log() -> None:
    search = make("spsa")
    search.tell(bowl(3.0)(search.ask().double().numpy()))
    search.ask()
    search.retell(np.arange(8.0)[::-1], {"lr": 0.125})
    assert search._update.lr == 0.125


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_steps_whose_square_no_float_holds(size: float) -> None:
    ladder = Ladder(np.ones(4), np.array([size, -size, size, size]), 8)
    found = ladder.candidates(np.zeros(4))
    assert np.sqrt(np.square(found).mean(1)) == pytest.approx([0.0, *LENGTHS])
    assert ladder.rate([1.0, 2.0, 3.0, 2.0]) == pytest.approx(SHARE * 0.1 / size, rel=1e-9)


def test_a_word_that_is_no_rate() -> None:
    check_optimizer("spsa", options={"lr": "auto"})
    for word in ("atuo", ""):
        with pytest.raises(UserError, match=f"lr: '{word}' is neither a number nor auto"):
            check_optimizer("fzoo", options={"lr": word})
