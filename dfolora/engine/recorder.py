"""What a forward of the incumbents shows on its way: inputs and outputs of modules, hidden states behind blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.blocks import Output
from dfolora.engine.patch import Forward
from dfolora.errors import UserError


class Recorder:
    """Notes what enters some modules, and how long their outputs are, where rows are read.

    Args:
        where: (R, T) float32 shares, see ``shifts``.
        names: of the modules.
    """

    def __init__(self, where: Tensor, names: Sequence[str]) -> None:
        self._where = where
        self._names = names
        self._inputs: dict[str, list[Tensor]] = {name: [] for name in names}
        self._lengths: dict[str, list[float]] = {name: [] for name in names}
        self._spreads: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
        self._several = bool((where > 0).sum(1).max() > 1)
        self._of: dict[nn.Module, str] = {}

    def watch(self, model: Any, module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
        """The module and its forward, which notes what it is given if it is one of those that are named."""
        if not self._of:
            self._of = {model.get_submodule(name): name for name in self._names}
        name = self._of.get(module)
        if name is None:
            return module, forward

        def noting(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = forward(x, *args, **kwargs)
            self._inputs[name].append(self._mean(x.float()))
            self._spreads[name] = self._spreads[name] + self._spread(x.float(), self._inputs[name][-1])
            self._lengths[name].append(float(self._mean(y.float().norm(dim=-1, keepdim=True)).mean()))
            return y

        return module, noting

    def inputs(self, name: str) -> Tensor:
        """(R, in) float32; the mean over calls where the module runs several times."""
        return torch.stack(self._inputs[name]).mean(0)

    def length(self, name: str) -> float:
        """Mean length of the output."""
        return sum(self._lengths[name]) / len(self._lengths[name])

    def spread(self, name: str) -> Tensor | None:
        """(in, in) sum over rows of the covariance of what enters within a row, mean of calls; None: one place."""
        spread = self._spreads[name]
        return spread / len(self._inputs[name]) if isinstance(spread, Tensor) else None

    def _spread(self, x: Tensor, mean: Tensor) -> Tensor | float:
        if not self._several:
            return 0.0
        centred = (x.reshape(*self._where.shape, -1) - mean[:, None]) * self._where.sqrt()[..., None]
        return centred.flatten(0, 1).T @ centred.flatten(0, 1)

    def _mean(self, x: Tensor) -> Tensor:
        if x.numel() != self._where.numel() * x.shape[-1]:
            raise elsewhere()
        return torch.einsum("rtd,rt->rd", x.reshape(*self._where.shape, -1), self._where)


def elsewhere() -> UserError:
    """The error for a module that answers do not pass through token by token, such as one of an encoder."""
    return UserError(
        "target: an adapted module does not run over the tokens that answers are read at; choose other modules, or the "
        "method search"
    )


def keeping_outputs(modules: Iterable[nn.Module], outputs: dict[nn.Module, Output]) -> list[tuple[nn.Module, Forward]]:
    """Replacements that put what each module gives into ``outputs``, too."""

    def watch(module: nn.Module) -> tuple[nn.Module, Forward]:
        forward = module.forward

        def note(*args: Any, **kwargs: Any) -> Any:
            outputs[module] = forward(*args, **kwargs)
            return outputs[module]

        return module, note

    return [watch(module) for module in modules]
