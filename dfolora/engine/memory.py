"""How many tokens one forward may hold: what is fastest, or what fits."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import nn

# Fastest: on a CPU what stays in cache (0.5k to 2k tokens, measured on 2 cores), on a GPU what fills it.
CHUNK_TOKENS = {"cpu": 2048, "cuda": 32768}
SHARE_OF_FREE = 0.6


def chunk_tokens(model: nn.Module, device: torch.device) -> int:
    """Padded tokens per forward for a model on a device.

    Returns:
        The fastest number for the kind of device, or what 0.6 of its free memory holds where that is less.
    """
    fastest = CHUNK_TOKENS.get(device.type, CHUNK_TOKENS["cuda"])
    return max(1, min(fastest, int(SHARE_OF_FREE * free_bytes(device)) // bytes_per_token(model)))


def generated_tokens(model: nn.Module, device: torch.device, blocks: int) -> int:
    """Tokens, prompts and answers together, that 0.6 of a device's free memory holds with their keys and values."""
    hidden = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    itemsize = next(p for p in model.parameters() if p.dtype.is_floating_point).element_size()
    cached = 2 * hidden * blocks * itemsize  # of every block: an upper estimate, grouped heads keep less
    return max(1, int(SHARE_OF_FREE * free_bytes(device)) // (bytes_per_token(model) + cached))


def bytes_per_token(model: nn.Module) -> int:
    """An upper estimate of what one token holds at once in a forward without gradients, in bytes.

    Two outputs of the widest linear map within the blocks (before and after the activation) and eight hidden states:
    residual, normalised input, query, key, value, attention and the caches of a few.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    widest = max((max(_features(module)) for module in model.modules() if module is not head), default=1)
    hidden = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    itemsize = next(p for p in model.parameters() if p.dtype.is_floating_point).element_size()
    return int(itemsize * (2 * widest + 8 * hidden))


def _features(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear map, packed weights or not; (1, 1) of anything else."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":  # GPT-2's
        weight: Any = module.weight
        return int(weight.shape[0]), int(weight.shape[1])
    return 1, 1


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device, in bytes: what is free, and caches that are given up for whoever needs it."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return int(psutil.virtual_memory().available)


def is_used_up(error: Exception) -> bool:
    """Whether an error says that a tensor found no room, on a GPU or in main memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def give_back(device: torch.device) -> None:
    """Let go of what a GPU holds for later tensors; nothing elsewhere."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
