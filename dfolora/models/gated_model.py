"""A gated soft prompt on a plain transformers model: for those who only use what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.errors import UserError
from dfolora.models.prompt_folder import OURS, read_prompt


class GatedModel(nn.Module):
    """Puts a gated prompt before every text and calls the model with ``inputs_embeds``.

    Attributes:
        model: the plain model.
    """

    def __init__(self, model: Any, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.to(model.device))

    def weights(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """w (B, m) of texts (B, T): how much of each soft token they get."""
        words = self.model.get_input_embeddings().weight[input_ids].float()
        mask = attention_mask[..., None].float()
        mean = (words * mask).sum(1) / mask.sum(1)
        features = (mean - self.get_buffer("center")) @ self.get_buffer("axes").T
        return 2 * torch.sigmoid(features @ self.get_buffer("b").T + self.get_buffer("c"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **arguments: Any) -> Any:
        """What the model gives for m soft tokens and the texts (B, T) behind them: m + T positions.

        Args:
            input_ids: (B, T) without an answer.
            attention_mask: (B, T), 0 on padding; None: there is none.
            arguments: go to the model.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        words = self.model.get_input_embeddings()(input_ids)
        prompt = self.weights(input_ids, mask)[..., None] * self.get_buffer("prompt")
        states = torch.cat([prompt.to(words.dtype), words], 1)
        mask = torch.cat([mask.new_ones(prompt.shape[:2]), mask], 1)
        return self.model(inputs_embeds=states, attention_mask=mask, **arguments)


def load_gated(model: Any, folder: str | Path) -> GatedModel:
    """Put what ``dfolora tune --tune ipl`` saved before a plain transformers model.

    Raises:
        UserError: the folder holds no gated prompt, or one for embeddings of another width.
    """
    if not (Path(folder).expanduser() / OURS).is_file():
        raise UserError(f"adapter: {str(folder)!r} holds no {OURS}; what PEFT knows is loaded by PEFT")
    tensors = read_prompt(str(folder))
    width = model.get_input_embeddings().weight.shape[1]
    if tensors["prompt"].shape[1] != width:
        raise UserError(f"adapter: the prompt in {str(folder)!r} does not fit embeddings of width {width}")
    return GatedModel(model, tensors)
