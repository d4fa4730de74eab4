"""Choose the layers to back-propagate to, within a share of the cost of a whole backward pass.

The cost of a choice, as in GreenTrainer (arXiv 2309.13192): gradients of activations must pass every block from the
head down to the deepest chosen layer, and every chosen layer adds the gradients of its own weights.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dfolora.errors import UserError


@dataclass(frozen=True)
class Costs:
    """Costs of a backward pass, by layer, in any unit.

    Attributes:
        reach: of passing every block from the head down to the layer's, that one included.
        own: of the gradients of the layer's own weights.
    """

    reach: Sequence[float]
    own: Sequence[float]

    @property
    def whole(self) -> float:
        return max(self.reach) + sum(self.own)

    def of(self, layers: Sequence[int]) -> float:
        return max((self.reach[layer] for layer in layers), default=0.0) + sum(self.own[layer] for layer in layers)


def choose(rule: str, importance: Sequence[float], costs: Costs, rho: float, seed: int) -> list[int]:
    """Choose layers whose cost is at most ``rho`` of the whole; ascending indices.

    Args:
        rule: ``importance``: the greatest sum of importances; ``last``: from the head down, as many as fit;
            ``random``: in random order, each that still fits.
        importance: by layer, not negative.
        costs: by layer.
        rho: above 0, at most 1.
        seed: of the random order.

    Raises:
        UserError: not even one layer fits.
    """
    # Rounding must not keep out what rho = 1 or the printed least share allows.
    most = rho * costs.whole * (1 + 1e-9)
    from_the_head = sorted(range(len(costs.own)), key=lambda layer: costs.reach[layer])
    cheapest = min(costs.of([layer]) for layer in from_the_head) / costs.whole
    if cheapest * costs.whole > most:
        raise UserError(f"rho: {rho} holds no layer at all; one takes {cheapest:.3g} of a whole backward pass")
    if rule == "importance":
        return sorted(_most_important(from_the_head, importance, costs, most))
    order = list(from_the_head)
    if rule == "random":
        random.Random(f"{seed}/first-order layers").shuffle(order)
    chosen: list[int] = []
    for layer in order:
        if costs.of([*chosen, layer]) <= most:
            chosen.append(layer)
        elif rule == "last":
            break
    return sorted(chosen)


def _most_important(
    from_the_head: Sequence[int], importance: Sequence[float], costs: Costs, most: float
) -> tuple[int, ...]:
    """Dynamic programming over the layers from the head down.

    What matters of a choice among the layers seen so far is the sum of its own costs and of its importances: only
    choices that no other beats in both go on. The deepest layer of a choice, the last one taken, decides its reach.
    """
    front: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]  # by own cost, importance rising with it
    best: tuple[float, tuple[int, ...]] = (-1.0, ())
    for layer in from_the_head:
        taken = [(own + costs.own[layer], value + importance[layer], (*others, layer)) for own, value, others in front]
        for own, value, layers in taken:
            if own + costs.reach[layer] <= most and value > best[0]:
                best = value, layers
        merged = sorted([*front, *taken], key=lambda choice: (choice[0], -choice[1]))
        front = []
        for choice in merged:
            if choice[0] <= most and (not front or choice[1] > front[-1][1]):
                front.append(choice)
    return best[1]
