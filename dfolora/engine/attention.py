"""Attention as the engine wants it for the length of a call, in place of the one that transformers would run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dfolora.engine.patch import Forward

_KIND = "sdpa"  # what transformers picks by itself; other kinds run as they are


@contextlib.contextmanager
def attending(attend: Forward) -> Iterator[None]:
    """Within it, models that take their attention from transformers' registry run ``attend``."""
    whole = whole_attention()
    ALL_ATTENTION_FUNCTIONS[_KIND] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[_KIND]  # what is set here lies over transformers' own
        if whole_attention() is not whole:
            ALL_ATTENTION_FUNCTIONS[_KIND] = whole  # and may lie over a user's


def whole_attention() -> Any:
    """The attention that runs now: (module, query (B, heads, T, width), key, value, mask, **options)."""
    return ALL_ATTENTION_FUNCTIONS[_KIND]


def is_causal(module: nn.Module, options: dict[str, Any]) -> bool:
    """Whether a call without a mask means that a token sees itself and those before it."""
    said = options.get("is_causal")
    return bool(getattr(module, "is_causal", False) if said is None else said)


def answer_attention(block: nn.Module, positions: Tensor, tokens: int) -> Forward:
    """A forward for ``block``, the last one, in which attention has one query per sequence: nobody reads the others.

    A row of attention depends on its own query and on all keys and values, so the answer's row is exact. The other rows
    of the result repeat it; they are for shapes only.

    Args:
        block: a transformer block whose attention goes through transformers' registry of attention functions.
        positions: (B,) int64, the answer position of each sequence.
        tokens: T; attention with another number of queries runs as it is.
    """
    run = block.forward
    whole = whole_attention()

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Any]:
        if query.shape[2] != tokens or len(query) != len(positions):
            return whole(module, query, key, value, attention_mask, **options)
        row = torch.arange(len(positions), device=positions.device)
        causal = is_causal(module, options)
        options.pop("is_causal", None)
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
        with attending(attend):
            return run(*args, **kwargs)

    return forward
