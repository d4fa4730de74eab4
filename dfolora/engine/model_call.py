"""A call of the unmodified model, as the engine makes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dfolora.engine.packing import model_inputs


class ModelCall:
    """Calls a model on the arguments of some rows.

    Attributes:
        model: the unwrapped model.
        dtype, device: of its floating-point weights.
    """

    def __init__(self, model: Any, sentences: bool = False) -> None:
        """Look at the model's weights and configuration.

        Args:
            model: the unwrapped model.
            sentences: whether hidden states are read, of a model without a head.
        """
        self.model = model
        parameter = next(part for part in model.parameters() if part.dtype.is_floating_point)
        self.dtype: torch.dtype = parameter.dtype
        self.device: torch.device = parameter.device
        # Keys and values of past tokens are of no use to a single pass; a model without a head may have no such option.
        keeps_them = not sentences and getattr(model.config, "use_cache", None) is not None
        self._options: dict[str, Any] = {"use_cache": False} if keeps_them else {}

    def __call__(self, inputs: dict[str, Tensor]) -> Any:
        """What the model returns: logits, or hidden states where it has no head."""
        return self.model(**model_inputs(inputs, self.dtype), **self._options, return_dict=True)
