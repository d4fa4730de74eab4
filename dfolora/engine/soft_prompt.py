"""A population of soft prompts: what the look-up of embeddings gives for the tokens that are no words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfolora.engine.patch import Forward, patched
from dfolora.models.instances import Instances
from dfolora.models.soft_prompt import Gate, prompt_forward
from dfolora.models.soft_tokens import SoftTokens


class SoftPrompt(NamedTuple):
    """Candidates for the soft tokens before every text, each with a gate of its own where there is one.

    Attributes:
        prompt: (P, m, d).
        gate: of P candidates, or None.
        tokens: how token ids are to be read.
        instances: the texts' features, where there is a gate.
    """

    prompt: Tensor
    gate: Gate | None
    tokens: SoftTokens
    instances: Instances | None = None

    @property
    def population(self) -> int:
        return int(self.prompt.shape[0])

    def cut(self, start: int, stop: int) -> SoftPrompt:
        gate = None if self.gate is None else self.gate.each(lambda part: part[start:stop])
        return self._replace(prompt=self.prompt[start:stop], gate=gate)

    def to(self, dtype: torch.dtype, device: torch.device) -> SoftPrompt:
        """The prompt in the model's dtype; gates stay in float32."""
        gate = None if self.gate is None else self.gate.each(lambda part: part.to(device))
        return self._replace(prompt=self.prompt.to(device, dtype), gate=gate)

    def forward(self, module: nn.Module, shared_input: bool) -> Forward:
        return prompt_forward(module, self.tokens, self.prompt, self.gate, self.instances)

    @contextlib.contextmanager
    def written(self, module: nn.Module) -> Iterator[None]:
        one = self.to(next(module.parameters()).dtype, next(module.parameters()).device)
        with patched([(module, one.forward(module, False))]):
            yield
