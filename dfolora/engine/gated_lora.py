"""A population of low-rank changes whose components are weighted by the text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfolora.engine.patch import Forward, patched
from dfolora.models.gated_adapter import GatedAdapter
from dfolora.models.soft_prompt import Gate


class GatedLowRank(NamedTuple):
    """Candidates for one module: B diag(w(x)) A.

    Attributes:
        a: (P, r, in); b: (P, out, r).
        gate: of P candidates.
        adapter: knows the texts.
    """

    a: Tensor
    b: Tensor
    gate: Gate
    adapter: GatedAdapter

    @property
    def population(self) -> int:
        return int(self.a.shape[0])

    def cut(self, start: int, stop: int) -> GatedLowRank:
        gate = self.gate.each(lambda part: part[start:stop])
        return self._replace(a=self.a[start:stop], b=self.b[start:stop], gate=gate)

    def to(self, dtype: torch.dtype, device: torch.device) -> GatedLowRank:
        """The factors in the model's dtype; gates stay in float32."""
        gate = self.gate.each(lambda part: part.to(device))
        return self._replace(a=self.a.to(device, dtype), b=self.b.to(device, dtype), gate=gate)

    def forward(self, module: Any, shared_input: bool) -> Forward:
        return self.adapter.forward_of(module, self.a, self.b, self.gate)

    @contextlib.contextmanager
    def written(self, module: Any) -> Iterator[None]:
        model = self.adapter.language_model
        with patched([(module, self.to(model.model.dtype, model.device).forward(module, False))]):
            yield
