"""Which layers get gradients: the best choice there is, by trying all of them."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from dfolora.errors import UserError
from dfolora.methods.layer_choice import Costs, choose


def instance(seed: int, layers: int = 8) -> tuple[list[float], Costs]:
    """Importances and costs; own costs matter beside the reach, and every third instance has equal ones."""
    draw = random.Random(seed)
    blocks = [draw.uniform(0.5, 2) for _ in range(layers)]
    own = [1.0 if seed % 3 == 0 else draw.uniform(0.1, 2) for _ in range(layers)]
    return [draw.random() for _ in range(layers)], Costs([sum(blocks[i:]) for i in range(layers)], own)


@pytest.mark.parametrize("seed", range(30))
def test_the_most_important_choice_that_fits(seed: int) -> None:
    importance, costs = instance(seed)
    rho = 0.15 + 0.85 * random.Random(-seed).random()
    try:
        chosen = choose("importance", importance, costs, rho, seed)
    except UserError:
        assert all(costs.of([layer]) > rho * costs.whole for layer in range(8))
        return
    assert costs.of(chosen) <= rho * costs.whole * (1 + 1e-6)
    everything = [part for size in range(1, 9) for part in combinations(range(8), size)]
    fitting = [part for part in everything if costs.of(part) <= rho * costs.whole]
    assert sum(importance[i] for i in chosen) == pytest.approx(max(sum(importance[i] for i in p) for p in fitting))


def test_what_a_choice_costs() -> None:
    costs = Costs([6.0, 3.0, 1.0], [0.5, 0.25, 0.125])
    assert costs.whole == costs.of([0, 1, 2]) == 6.875
    assert costs.of([1]) == 3.25
    assert costs.of([2, 0]) == 6.625  # what lies between is passed whether it is chosen or not


def test_the_other_rules() -> None:
    costs = Costs([4.0, 3.0, 2.0, 1.0], [0.0] * 4)
    nothing = [0.0] * 4
    assert choose("last", nothing, costs, 0.75, 0) == [1, 2, 3]
    assert choose("last", nothing, costs, 0.74, 0) == [2, 3]
    assert choose("last", nothing, costs, 1.0, 0) == [0, 1, 2, 3]
    own = Costs([4.0, 3.0, 2.0, 1.0], [1.0] * 4)
    drawn = {tuple(choose("random", nothing, own, 0.65, seed)) for seed in range(40)}
    assert drawn == {(0,), (1, 2), (1, 3), (2, 3)}  # each takes as many as fit
    assert choose("random", nothing, own, 0.65, 7) == choose("random", nothing, own, 0.65, 7)
    assert choose("importance", [9.0, 1.0, 1.0, 1.0], costs, 0.75, 0) == [1, 2, 3]  # the important one is out of reach


@pytest.mark.parametrize("rule", ["importance", "last", "random"])
def test_the_least_share_is_named(rule: str) -> None:
    costs = Costs([4.0, 3.0, 2.0, 1.0], [0.0] * 4)
    with pytest.raises(UserError, match=r"^rho: 0.2 holds no layer at all; one takes 0.25 of"):
        choose(rule, [1.0] * 4, costs, 0.2, 0)
    assert choose(rule, [1.0] * 4, costs, 0.25, 0) == [3]
