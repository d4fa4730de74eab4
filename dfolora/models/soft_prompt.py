"""The look-up of embeddings with a soft prompt, gated or not, for one candidate or many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfolora.models.instances import Instances
from dfolora.models.soft_tokens import SoftTokens


class Gate(NamedTuple):
    """w_i(x) = 2 sigmoid(b_i . phi(x) + c_i), how much of soft token i a text gets; 1 where all numbers are 0.

    Attributes:
        b: (P, m, k).
        c: (P, m).
    """

    b: Tensor
    c: Tensor

    def weights(self, features: Tensor, candidate: Tensor, token: Tensor) -> Tensor:
        """(n,): w of n pairs of a text and a soft token.

        Args:
            features: (n, k) phi of each text.
            candidate, token: (n,) int64: whose gate, and of which soft token.
        """
        b, c = self.b[candidate, token], self.c[candidate, token]
        return 2 * torch.sigmoid((b * features).sum(-1) + c)

    def each(self, change: Callable[[Tensor], Tensor]) -> Gate:
        return Gate(change(self.b), change(self.c))


def prompt_forward(
    module: nn.Module, tokens: SoftTokens, prompt: Tensor | None, gate: Gate | None, instances: Instances | None
) -> Callable[..., Tensor]:
    """A forward of an embedding that knows soft tokens.

    Args:
        module: looks up words.
        tokens: how ids are to be read.
        prompt: (P, m, d), what the soft tokens are; None: there are none.
        gate: of the P candidates; None: every text gets the prompt as it is.
        instances: the texts' features, where there is a gate.

    Returns:
        forward(ids (P * R, T)) -> (P * R, T, d), candidate-major.
    """

    def forward(ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        token, number = tokens.split(ids)
        soft = token >= tokens.vocabulary
        y: Tensor = type(module).forward(module, token.masked_fill(soft, 0), *args, **kwargs)
        if prompt is None or not bool(soft.any()):
            return y
        row, column = soft.nonzero(as_tuple=True)
        candidate = row // (len(ids) // len(prompt))
        which = token[row, column] - tokens.vocabulary
        values = prompt[candidate, which].to(y.dtype)  # (n, d)
        if gate is not None and instances is not None:
            features = instances.features(ids.device)[number[row, column]]
            values = values * gate.weights(features, candidate, which)[:, None].to(y.dtype)
        return y.index_put((row, column), values)

    return forward
