"""Folders of deep prompts: PEFT's ``PREFIX_TUNING``, and beside it what our own way of running it needs.

PEFT puts keys and values into the model's cache, where they have been through norms and rotations; a file of ours,
``deep_prompt.safetensors``, has them as the linear maps give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PrefixTuningConfig
from safetensors.torch import save_file
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dfolora.errors import UserError
from dfolora.models.adapter_folder import WEIGHTS
from dfolora.models.load import LanguageModel
from dfolora.models.prompt_folder import TASK_TYPES, read_tensors

OUR_PREFIX = "deep_prompt.safetensors"


def write_prefix(
    folder: Path, language_model: LanguageModel, ids: Tensor, tuned: Sequence[Mapping[str, Tensor]]
) -> None:
    """Write a deep prompt as a folder that is there already.

    Args:
        language_model: whose it is, with the prompt on it.
        ids: (1, m), the soft tokens.
        tuned: per layer ``k`` and ``v``, (m, width) each.
    """
    ours = {f"{layer}/{part}": each.cpu().contiguous() for layer, state in enumerate(tuned)
            for part, each in state.items()}  # fmt: skip
    save_file(ours, folder / OUR_PREFIX, {"format": "pt"})
    pairs = _cached(language_model, ids, tuned)
    count, heads, width = pairs[0][0].shape
    config: Any = PrefixTuningConfig(
        task_type=TASK_TYPES[language_model.kind],
        num_virtual_tokens=count, token_dim=heads * width, num_transformer_submodules=1, num_layers=len(pairs),
        num_attention_heads=heads, inference_mode=True, base_model_name_or_path=language_model.name,
    )  # fmt: skip
    config.save_pretrained(str(folder))
    weight = torch.stack([part for pair in pairs for part in pair], 1).reshape(count, -1)  # (m, 2 L heads width)
    save_file({"prompt_embeddings": weight.float().cpu().contiguous()}, folder / WEIGHTS, {"format": "pt"})


def read_prefix(folder: str) -> dict[str, Tensor]:
    """``<layer>/k`` and ``<layer>/v`` of a deep prompt, (m, width) float32.

    Raises:
        UserError: the file is not there, spoiled, or holds numbers that are not finite.
    """
    file = Path(folder).expanduser() / OUR_PREFIX
    if not file.is_file():
        raise UserError(
            f"adapter: {folder!r} holds no {OUR_PREFIX}; a prefix that PEFT trained can be read by PEFT alone"
        )
    tensors = read_tensors(file)
    if not tensors or any(part.dim() != 2 for part in tensors.values()):
        raise UserError(f"adapter: {str(file)!r} holds no keys and values")
    return tensors


@torch.inference_mode()
def _cached(
    language_model: LanguageModel, ids: Tensor, tuned: Sequence[Mapping[str, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Per layer keys and values as attention gets them, (m, heads, width) each."""
    model: Any = language_model.model
    if language_model.kind == "causal":
        cache = DynamicCache(config=model.config.get_text_config())
        model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
        kept: list[Any] = cache.layers
        return [(layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)) for layer in kept]
    heads = int(model.config.num_attention_heads)
    return [(state["k"].unflatten(1, (heads, -1)), state["v"].unflatten(1, (heads, -1))) for state in tuned]
