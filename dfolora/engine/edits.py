"""What a candidate changes: edits of a model's modules, by name. A population is one edit of P candidates a module.

Another kind of edit is a class with the methods of ``Edit``, in a file of its own: the engine asks it for nothing else,
and finds by itself which block is the lowest that is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dfolora.engine.lora import population_forward
from dfolora.engine.patch import Forward


class Edit(Protocol):
    """What a population does to one module."""

    @property
    def population(self) -> int:
        """P, how many candidates there are."""

    def cut(self, start: int, stop: int) -> Edit:
        """The candidates from ``start`` to ``stop``, the last one left out."""

    def to(self, dtype: torch.dtype, device: torch.device) -> Edit:
        """The same in the model's dtype and on its device."""

    def forward(self, module: nn.Module, shared_input: bool) -> Forward:
        """The module's forward on rows in candidate-major order: row p * R + i is row i of candidate p.

        Args:
            module: the one that is named.
            shared_input: whether its inputs are known to be equal for all candidates.
        """

    def written(self, module: nn.Module) -> AbstractContextManager[None]:
        """Within it the module is what the one candidate makes of it: the plain way, to hold the fast one to."""


class LowRank(NamedTuple):
    """An update B A of a linear map that PEFT has put a LoRA adapter on, in place of what the adapter holds.

    Attributes:
        a: (P, r, in); may be a view that is expanded over P, and is then multiplied once.
        b: (P, out, r).
    """

    a: Tensor
    b: Tensor

    @property
    def population(self) -> int:
        return int(self.a.shape[0])

    def cut(self, start: int, stop: int) -> LowRank:
        return LowRank(self.a[start:stop], self.b[start:stop])

    def to(self, dtype: torch.dtype, device: torch.device) -> LowRank:
        return LowRank(_cast(self.a, dtype, device), _cast(self.b, dtype, device))

    def forward(self, module: Any, shared_input: bool) -> Forward:
        return population_forward(module.base_layer, self.a, self.b, shared_input)

    @contextlib.contextmanager
    def written(self, module: Any) -> Iterator[None]:
        weights = module.lora_A["default"].weight, module.lora_B["default"].weight
        before = [weight.detach().clone() for weight in weights]
        try:
            with torch.no_grad():
                for weight, candidates in zip(weights, self, strict=True):
                    weight.copy_(candidates[0])
            yield
        finally:
            with torch.no_grad():
                for weight, old in zip(weights, before, strict=True):
                    weight.copy_(old)


Edits = Mapping[str, Edit]
"""Module name -> what the population does to it. All other modules are at their incumbents."""


def as_edits(edits: Mapping[str, Any]) -> dict[str, Edit]:
    """Edits as the engine takes them: a plain pair (A, B) counts as ``LowRank``."""
    return {name: edit if hasattr(edit, "forward") else LowRank(*edit) for name, edit in edits.items()}


def population_of(edits: Edits) -> int:
    """P of some edits; 1 where there are none: the model as it stands."""
    return next((edit.population for edit in edits.values()), 1)


@contextlib.contextmanager
def written(model: nn.Module, edits: Edits) -> Iterator[None]:
    """Within it a model is what one candidate (P = 1) makes of it."""
    with contextlib.ExitStack() as stack:
        for name, edit in edits.items():
            stack.enter_context(edit.written(model.get_submodule(name)))
        yield


def _cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cast a factor; a view expanded over the population stays one."""
    if tensor.stride(0) == 0 and tensor.shape[0] > 1:
        return tensor[:1].to(device, dtype).expand(tensor.shape)
    return tensor.to(device, dtype)
