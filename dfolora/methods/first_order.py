"""LoRA tuned the usual way, by AdamW on A and B of all layers at once: the reference for the search.

Everything around it is what gradient-free search has: the same reading of the model, objective, few-shot set as one
batch, looks at the dev set, run folder and adapter. A step is one evaluation of the objective on the whole few-shot
set, with one backward pass for each forward; see ``Gradient`` for what these count as.

PEFT's initialisation: A uniform in +-1/sqrt(in), PyTorch's Kaiming default, and B zero, so that it starts exactly at
the base model. alpha / r is 1. No dropout, no schedule, no warm-up: a run depends on its seed by A alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.log import Line, Step, checksum, finite
from dfolora.methods.gradient import Gradient
from dfolora.methods.method import Method
from dfolora.models.adapter import Adapter
from dfolora.problems.objectives import mean_of
from dfolora.problems.problem import Problem
from dfolora.subspaces.lora import Lora


class FirstOrder(Method[Problem[Adapter]]):
    """Tunes the adapter's factors by AdamW, one update a step.

    A loss that is not a number ends the run: there is no gradient, and every step after it would be the same.

    Attributes:
        layers: indices of the layers that gradients are taken of: all of them.
    """

    keeps_state = True

    def __init__(
        self,
        problem: Problem[Adapter],
        rank: int,
        budget: int,
        dev_every: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        """Initialise the factors.

        Args:
            problem: its engine is a ``Gradient``.
            rank: of the adapter.
            budget, dev_every: as for ``Method``.
            lr, weight_decay: of AdamW.

        Raises:
            UserError: the base model's own loss is not a number.
        """
        super().__init__(problem, budget, dev_every)
        assert isinstance(problem.engine, Gradient), "the problem was made with another engine"
        self.gradient = problem.engine
        self.adapter = problem.adapter
        self.lr, self.weight_decay = lr, weight_decay
        self.modules = {name: module for layer in self.adapter.layers for name, module in layer.modules.items()}
        problem.check_base()
        for index, layer in enumerate(self.adapter.layers):
            start = {}
            for name, module in layer.modules.items():
                a, b = module.factors()
                # The draw of the subspace ``lora``, so that zeroth-order runs of the same seed start from the same A.
                drawn = Lora.a_side(module, a, rank, problem.seed)
                start[name] = (drawn[None], torch.zeros_like(b)[None])
            self.adapter.write(index, start)
        self.gradient.reset_counts()
        self._tune(range(len(self.adapter.layers)))

    def step(self, before: Line) -> Step:
        here = self._checksum()
        return Step(here, finite(self._step()))

    def repeat(self, before: Line, line: Line) -> None:
        """Do nothing: ``restore`` loads the factors and AdamW's moments."""

    def is_stuck(self, line: Line) -> bool:
        return bool(line.losses) and line.losses[0] is None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for factor in self.factors:
            factor.requires_grad_(True)
        try:
            yield
        finally:
            for factor in self.factors:
                factor.requires_grad_(False)

    def _tune(self, layers: Sequence[int]) -> None:
        """Choose the layers that AdamW tunes."""
        self.layers = list(layers)
        modules = [module for index in layers for module in self.adapter.layers[index].modules.values()]
        self.factors = [factor for module in modules for factor in module.factors()]
        self.optimizer = torch.optim.AdamW(self.factors, lr=self.lr, weight_decay=self.weight_decay)

    def _step(self) -> Tensor:
        """Take one step; returns the losses that it measured, that of the factors before the step first."""
        losses = self._backward()
        if bool(losses.isfinite()):
            self.optimizer.step()
            for index in self.layers:
                self.adapter.moved(index)
        self.optimizer.zero_grad()
        return losses.cpu()

    def _backward(self) -> Tensor:
        """Compute the loss (1,) and leave its gradient in the factors."""
        function, _ = self.problem.objective()
        losses = self.gradient(lambda scores, labels: mean_of(function(scores, labels)))
        for module in self.modules.values():
            grad = module.factors()[1].grad
            if module.rows is not None and grad is not None:  # value rows of a fused projection are not adapted
                searched = torch.zeros_like(grad)
                searched[module.rows] = grad[module.rows]
                grad.copy_(searched)
        return losses

    def _checksum(self) -> str:
        factors = [factor for module in self.modules.values() for factor in module.factors()]
        return checksum(torch.cat([factor.detach().float().flatten().cpu() for factor in factors])[None])

    # -- interruption -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The factors, the best ones so far, and AdamW's moments."""
        tensors: dict[str, Tensor] = {}
        for what, factors in (("now", self.adapter.state()), ("best", self.problem.selection.state)):
            for layer in factors:
                for name, (a, b) in layer.items():
                    tensors[f"{what}/{name}/a"], tensors[f"{what}/{name}/b"] = a[0], b[0]
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors.update({f"adamw/{number}/{name}": tensor for name, tensor in moments.items()})
        return tensors

    def restore(self, tensors: dict[str, Tensor], after: Line | None) -> None:
        if not tensors:
            return
        try:
            for index, layer in enumerate(self.adapter.layers):
                self.adapter.write(index, {name: _factors(tensors, "now", name) for name in layer.modules})
            moments: dict[int, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                if key.startswith("adamw/"):
                    _, number, name = key.split("/")
                    moments.setdefault(int(number), {})[name] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self.problem.selection.state = [
                {name: _factors(tensors, "best", name) for name in layer.modules} for layer in self.adapter.layers
            ]
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"resume: the saved state belongs to another model ({error})") from error
        if after is not None and after.checksum != self._checksum():
            raise UserError("resume: the saved state is not the one that was logged")


def _factors(tensors: dict[str, Tensor], what: str, name: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{what}/{name}/a"][None], tensors[f"{what}/{name}/b"][None]
