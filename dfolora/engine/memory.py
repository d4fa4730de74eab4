"""How many tokens one forward may hold: what is fastest, or what fits."""

from __future__ import annotations

import os

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


def bytes_per_token(model: nn.Module) -> int:
    """An upper estimate of what one token holds at once in a forward without gradients, in bytes.

    Two outputs of the widest linear map within the blocks (before and after the activation) and eight hidden states:
    residual, normalised input, query, key, value, attention and the caches of a few.
    """
    widths = [tuple(module.weight.shape) for module in model.modules() if isinstance(module, nn.Linear)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    vocabulary = 0 if head is None else head.weight.shape[0]
    widest = max((max(shape) for shape in widths if vocabulary not in shape), default=1)
    hidden = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    itemsize = next(model.parameters()).element_size()
    return int(itemsize * (2 * widest + 8 * hidden))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells; then nothing is limited
        return 1 << 62
