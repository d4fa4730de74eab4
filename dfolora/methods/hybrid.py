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

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.methods.first_order import LR, FirstOrder
from dfolora.methods.layer_choice import Costs, choose
from dfolora.models.adapter import Factors
from dfolora.optimizers import Optimizer, make_optimizer
from dfolora.runs.folder import Run
from dfolora.subspaces.lora import Lora


class Hybrid(FirstOrder):
    """Tunes an adapter by both.

    Attributes:
        chosen: indices of the first-order layers.
        others: the factors' subspaces of the zeroth-order layers, by index; none where alpha is 0.
        importance: by layer.
    """

    def prepare(self, resume: Run | None = None) -> None:
        """As ``FirstOrder.prepare``; then choose the first-order layers.

        Raises:
            UserError: as there; not one layer fits into rho; an option that the estimator cannot work with.
        """
        config = self.config
        self.others: dict[int, Lora] = {}
        self.estimator: Optimizer | None = None
        super().prepare()
        self.importance = self._profile()
        chosen = choose(config.first_order_layers, self.importance, self.costs(), config.rho, config.seed)
        if resume is not None and "chosen" in (kept := resume.load_state()[0]):
            chosen = kept["chosen"].tolist()  # on a GPU rounding may make another choice of a tie
        self._choose(chosen)
        self.engine.deepest = min(self.engine.block_of(layer) for layer in self.chosen)
        if config.alpha:
            rest = [index for index in range(len(self.adapter.layers)) if index not in self.chosen]
            self.others = {index: self._subspace(index) for index in rest}
        if self.others:
            options = {**config.optimizer_options, "lr": config.alpha * (config.lr or LR)}
            self.estimator = make_optimizer(
                config.optimizer, sum(part.dim for part in self.others.values()), population=config.population,
                sigma=config.sigma, seed=config.seed, **options,
            )  # fmt: skip
            self.size += config.population
        if resume is not None and resume.replay:
            self._go_on(resume)

    def costs(self) -> Costs:
        """What back-propagation to each layer costs: tokens times the weights that gradients pass or are taken of."""
        engine, layers = self.engine, self.adapter.layers
        tokens = [sum(counts) for counts in zip(*(engine.tokens(part.rows) for part in engine.parts), strict=True)]
        weights = [sum(p.numel() for p in block.module.parameters()) for block in engine.order.blocks]
        passed = [count * size for count, size in zip(tokens, weights, strict=True)]
        places = [engine.block_of(index) for index in range(len(layers))]
        sizes = [sum(f.numel() for module in layer.modules.values() for f in module.factors()) for layer in layers]
        return Costs(
            [sum(passed[place:]) for place in places],
            [tokens[place] * size for place, size in zip(places, sizes, strict=True)],
        )

    # -- parts of the loop ------------------------------------------------------------------------------------------

    def _generation(self) -> Tensor:
        if self.estimator is None:
            return super()._generation()
        z = self.estimator.ask()
        probed = self.objective(self.engine.scores(self._factors(z)), self.labels).cpu()
        losses = torch.cat([super()._generation(), probed])
        self.estimator.tell(probed)
        self._write()
        return losses

    def _profile(self) -> list[float]:
        """By layer, the sum of |gradient| over its factors."""
        for factor in self.factors:
            factor.requires_grad_(True)
        self._gradient()
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
        return Lora(layer, measured, self.config.rank, 0, self.config.seed, 0.5, self.engine.rows.owner.device)

    def _factors(self, z: Tensor) -> Factors:
        """z (P, d), the layers' numbers side by side, to the zeroth-order layers' factors."""
        parts = z.split([subspace.dim for subspace in self.others.values()], dim=1)
        found: Factors = {}
        for subspace, part in zip(self.others.values(), parts, strict=True):
            found.update(subspace.factors(part))
        return found

    def _write(self) -> None:
        assert self.estimator is not None
        factors = self._factors(self.estimator.incumbent()[None])
        for index in self.others:
            self.adapter.write(index, {name: factors[name] for name in self.adapter.layers[index].modules})

    def _go_on(self, run: Run) -> None:
        """As ``FirstOrder``; the estimator is told the logged losses again, which must lead to where it was kept."""
        super()._go_on(run)
        if len(run.replay) > 1:
            self.engine.reset_counts()  # the profile is in the log already
        if self.estimator is None:
            return
        kept = self._checksum()
        for line in run.replay[1:]:
            losses = line.loss_tensor()[1:]
            if len(losses) != len(self.estimator.ask()):
                raise UserError(f"--resume: {str(run.folder)!r}: generation {line.generation} has not as many losses")
            self.estimator.tell(losses)
        if len(run.replay) > 1:
            self._write()
        if self._checksum() != kept:
            raise UserError(f"--resume: {str(run.folder)!r} cannot go on: its state is not the one that was logged")
