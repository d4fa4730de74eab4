"""Attention of the answer position alone, for the last block, whose other positions nobody reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dfolora.engine.patch import Forward

_KIND = "sdpa"  # what transformers picks by itself; other kinds run as they are


def answer_attention(block: nn.Module, positions: Tensor, tokens: int) -> Forward:
    """A forward for ``block`` in which attention has one query per sequence.

    A row of attention depends on its own query and on all keys and values, so the answer's row is exact. The other rows
    of the result repeat it; they are for shapes only.

    Args:
        block: a transformer block whose attention goes through transformers' registry of attention functions.
        positions: (B,) int64, the answer position of each sequence.
        tokens: T; attention with another number of queries runs as it is.
    """
    run = block.forward
    whole: Any = ALL_ATTENTION_FUNCTIONS[_KIND]

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Any]:
        if query.shape[2] != tokens or len(query) != len(positions):
            return whole(module, query, key, value, attention_mask, **options)
        row = torch.arange(len(positions), device=positions.device)
        causal = options.pop("is_causal", None)
        causal = getattr(module, "is_causal", False) if causal is None else causal
        if attention_mask is not None and attention_mask.shape[2] == 1:  # one for all queries
            mask = attention_mask
        elif attention_mask is not None:  # (B or 1, heads or 1, T, T')
            mask = attention_mask.expand(len(row), -1, -1, -1)[row, :, positions][:, :, None]
        elif causal:
            mask = (torch.arange(key.shape[2], device=row.device) <= positions[:, None])[:, None, None]
        else:
            mask = None
        one = query[row, :, positions][:, :, None]  # (B, heads, 1, width)
        output, weights = whole(module, one, key, value, mask, is_causal=False, **options)
        return output.expand(-1, tokens, -1, -1), weights

    def forward(*args: Any, **kwargs: Any) -> Any:
        ALL_ATTENTION_FUNCTIONS[_KIND] = attend
        try:
            return run(*args, **kwargs)
        finally:
            del ALL_ATTENTION_FUNCTIONS[_KIND]  # what is set here lies over transformers' own
            if ALL_ATTENTION_FUNCTIONS[_KIND] is not whole:
                ALL_ATTENTION_FUNCTIONS[_KIND] = whole  # and may lie over a user's

    return forward
