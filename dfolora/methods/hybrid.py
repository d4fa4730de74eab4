"""First-order steps on the layers that matter most, zeroth-order ones on the rest: a reconstruction of Hi-ZFO.

Hi-ZFO (Jin and Tan, arXiv 2601.05501) profiles the importance of layers, gives gradients to a set of them that dynamic
programming chooses under a compute budget, and moves the others by zeroth-order estimates, for their "beneficial
stochasticity". No code of it is public and its formulas were not available here: the paper's names rho and alpha are
used, but **their meaning, their values and all defaults below are ours, not the paper's**.

- Importance of a layer: the sum of |gradient| over its factors at the start, where B = 0. In units of the learning rate
  it is what AdamW's first step, which moves every coordinate that far, takes off the loss to first order; |gradient x
  weight| is 0 for every layer there. It costs one forward and backward, counted in the first line of the log.
- Cost of a layer: see ``layer_choice``; in multiplications by weights times tokens, which no clock disturbs.
- A step: the zeroth-order estimator probes the other layers' A and B with the first-order ones held, a forward and a
  backward cut at the deepest first-order layer give the gradient there, then both move. With P probes it counts as
  P + 1 evaluations, and logs P + 1 losses, the first-order one first.
- alpha: the estimator's learning rate is alpha times AdamW's; at 0 the other layers are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.log import Line
from dfolora.methods.first_order import FirstOrder
from dfolora.methods.layer_choice import Costs, choose
from dfolora.models.adapter import Adapter, Factors
from dfolora.optimizers import Optimizer
from dfolora.problems.problem import Problem
from dfolora.subspaces.lora import Lora

MakeEstimator = Callable[[int, float], Optimizer]
"""(d, learning rate) -> the zeroth-order estimator."""


class Hybrid(FirstOrder):
    """One step of AdamW on the chosen layers and of a zeroth-order estimator on the others.

    Attributes:
        layers: indices of the first-order layers.
        others: subspaces of the zeroth-order layers' factors, by index; none where alpha is 0.
        importance: by layer.
    """

    def __init__(
        self,
        problem: Problem[Adapter],
        make_estimator: MakeEstimator,
        population: int,
        rank: int,
        budget: int,
        dev_every: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        rho: float = 0.5,
        alpha: float = 0.1,
        rule: str = "importance",
    ) -> None:
        """Choose the first-order layers.

        Args:
            problem, rank, budget, dev_every, lr, weight_decay: as for ``FirstOrder``.
            make_estimator: builds the zeroth-order estimator.
            population: probes of a step.
            rho: share of a whole backward pass that the first-order layers may cost.
            alpha: the estimator's rate as a share of ``lr``; 0: leave the other layers as they are.
            rule: ``importance``, ``last`` or ``random``, see ``layer_choice``.

        Raises:
            UserError: the base model's own loss is not a number; not one layer fits into rho.
        """
        super().__init__(problem, rank, budget, dev_every, lr, weight_decay)
        self.rank, self.alpha, self.population = rank, alpha, population
        self.make_estimator = make_estimator
        self.importance = self._profile()
        self._split(choose(rule, self.importance, self.costs(), rho, problem.seed))

    def costs(self) -> Costs:
        """Cost of back-propagation to each layer: tokens times the weights that gradients pass or are taken of."""
        gradient, layers = self.gradient, self.adapter.layers
        tokens = [sum(counts) for counts in zip(*(gradient.tokens(part.rows) for part in gradient.parts), strict=True)]
        weights = [sum(p.numel() for p in block.module.parameters()) for block in gradient.order.blocks]
        passed = [count * size for count, size in zip(tokens, weights, strict=True)]
        places = [gradient.block_of(index) for index in range(len(layers))]
        sizes = [sum(f.numel() for module in layer.modules.values() for f in module.factors()) for layer in layers]
        return Costs(
            [sum(passed[place:]) for place in places],
            [tokens[place] * size for place, size in zip(places, sizes, strict=True)],
        )

    def origin(self) -> dict[str, Any]:
        return {"layers": self.layers}

    def check_origin(self, note: dict[str, Any] | None) -> None:
        """Take the layers that the run began with: on another machine, rounding may have chosen others."""
        layers = (note or {}).get("layers")
        every = range(len(self.adapter.layers))
        if not isinstance(layers, list) or not layers or not all(layer in every for layer in layers):
            raise UserError(f"resume: the log's first line names {layers!r} as the first-order layers")
        for factor in self.factors:
            factor.requires_grad_(False)
        self._split(layers)
        for factor in self.factors:
            factor.requires_grad_(True)

    def repeat(self, before: Line, line: Line) -> None:
        if self.estimator is None:
            return
        losses = line.loss_tensor()[1:]
        if len(losses) != len(self.estimator.ask()):
            raise UserError(f"resume: generation {line.generation} has not as many losses as candidates")
        self.estimator.tell(losses)

    def restore(self, tensors: dict[str, Tensor], after: Line | None) -> None:
        super().restore(tensors, after)
        if self.estimator is None or not tensors:
            return
        saved = self._checksum()
        self._write()
        if self._checksum() != saved:  # what the estimator was told again must lead to where it was saved
            raise UserError("resume: the saved state is not the one that was logged")

    def _split(self, layers: list[int]) -> None:
        """Assign gradients to these layers, and estimates to the others."""
        self._tune(layers)
        self.gradient.deepest = min(self.gradient.block_of(layer) for layer in layers)
        self.estimator: Optimizer | None = None
        self.others: dict[int, Lora] = {}
        if self.alpha:
            rest = [index for index in range(len(self.adapter.layers)) if index not in layers]
            self.others = {index: self._subspace(index) for index in rest}
        if self.others:
            dim = sum(part.dim for part in self.others.values())
            self.estimator = self.make_estimator(dim, self.alpha * self.lr)
        self.size = 1 + (self.population if self.others else 0)

    def _step(self) -> Tensor:
        if self.estimator is None:
            return super()._step()
        z = self.estimator.ask()
        probed = self.problem.evaluate(self._factors(z)).losses
        losses = torch.cat([super()._step(), probed])
        self.estimator.tell(probed)
        self._write()
        return losses

    def _profile(self) -> list[float]:
        """Importance of each layer: the sum of |gradient| over its factors."""
        for factor in self.factors:
            factor.requires_grad_(True)
        self._backward()
        sums = []
        for layer in self.adapter.layers:
            factors = [factor for module in layer.modules.values() for factor in module.factors()]
            sums.append(sum(float(f.grad.abs().sum()) for f in factors if f.grad is not None))
        for factor in self.factors:
            factor.requires_grad_(False).grad = None
        return sums

    def _subspace(self, index: int) -> Lora:
        """z to A and B of a layer in their own units: with scale 1/2 the subspace's factor of 2 is gone."""
        layer = self.adapter.layers[index]
        one = torch.ones(())  # ``Lora`` has no use for the scales of the data
        measured = {"hidden_std": one, **{f"{name}/out_std": one for name in layer.modules}}
        measured |= {f"{name}/a": module.factors()[0].detach().clone() for name, module in layer.modules.items()}
        return Lora(layer, measured, self.rank, 0, self.problem.seed, 0.5, self.problem.device)

    def _factors(self, z: Tensor) -> Factors:
        """z (P, d), the layers' numbers side by side, to the zeroth-order layers' factors."""
        parts = z.split([subspace.dim for subspace in self.others.values()], dim=1)
        factors: Factors = {}
        for subspace, part in zip(self.others.values(), parts, strict=True):
            factors.update(subspace.factors(part))
        return factors

    def _write(self) -> None:
        assert self.estimator is not None
        factors = self._factors(self.estimator.incumbent()[None])
        for index in self.others:
            self.adapter.write(index, {name: factors[name] for name in self.adapter.layers[index].modules})
