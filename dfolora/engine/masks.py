"""Which tokens see which, as a model has it for plain padded rows: what tells a window or a bias in its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.attention import attending, is_causal, whole_attention
from dfolora.engine.patch import Forward, patched
from dfolora.engine.trials import attempt


class Sight:
    """What one plain forward of some rows shows.

    Attributes:
        plain_masks: whether every mask that a block is given lets a token see itself and those before it, all of them,
            and adds nothing else. True, too, where no block is given one.
        plain_attention: whether every attention goes through transformers' registry, and lets each real token see all
            real ones (or, where it is causal, those up to itself) with nothing added to any score.
    """

    def __init__(self, real: Tensor, blocks: Iterable[nn.Module], run: Callable[[], Any]) -> None:
        """Watch it.

        Args:
            real: (R, T) bool: which tokens of the rows are not padding.
            blocks: all blocks of the model that attention may stand in.
            run: the forward of these rows.
        """
        masks: list[Tensor] = []
        calls: list[bool] = []
        noting = [(block, _noting_masks(block, masks)) for block in blocks]
        with attending(_noting_attention(real, calls)), patched(noting):
            run()
        self.plain_masks = bool(attempt(lambda: all(_is_causal(mask, real) for mask in masks)))
        self.plain_attention = bool(calls) and all(calls)


def _noting_masks(block: nn.Module, masks: list[Tensor]) -> Forward:
    """The block's forward, which notes whatever may be an attention mask."""
    forward = block.forward

    def look(*args: Any, **kwargs: Any) -> Any:
        tensors = (part for part in (*args, *kwargs.values()) if isinstance(part, Tensor))
        masks.extend(part for part in tensors if part.dim() == 4 and part.shape[-1] == part.shape[-2])
        return forward(*args, **kwargs)

    return look


def _noting_attention(real: Tensor, calls: list[bool]) -> Forward:
    """The attention that runs now, which notes for every call whether it is that of plain sequences."""
    whole = whole_attention()

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> Any:
        bias = any(isinstance(option, Tensor) and option.is_floating_point() for option in options.values())
        square = query.shape[2] == key.shape[2] == real.shape[1]
        plain = lambda: _is_plain(attention_mask, real, is_causal(module, options))  # noqa: E731
        calls.append(square and not bias and bool(attempt(plain)))
        return whole(module, query, key, value, attention_mask, **options)

    return attend


def _is_causal(mask: Tensor, real: Tensor) -> bool:
    """Whether (B or 1, heads or 1, T, T) lets each real token see all real ones up to itself, and adds nothing else."""
    if mask.shape[-1] != real.shape[1]:
        return False
    seen = mask if mask.dtype == torch.bool else mask == 0
    expected = (real[:, None, :] & torch.ones_like(seen[0, 0], dtype=torch.bool).tril())[:, None]
    return bool(((seen == expected) | ~real[:, None, :, None]).all())


def _is_plain(mask: Tensor | None, real: Tensor, causal: bool) -> bool:
    """Whether each real token sees all real ones, or those up to itself, and nothing is added to any score."""
    everything = torch.ones_like(real[:, None, :, None] & real[:, None, None, :])  # (B, 1, T, T)
    expected = everything & real[:, None, None, :]
    expected = expected.tril() if causal else expected
    if mask is None:
        seen = everything.tril() if causal else everything
    else:
        seen = mask if mask.dtype == torch.bool else mask == 0
        if mask.dtype != torch.bool and bool((mask[~seen] > torch.finfo(mask.dtype).min / 2).any()):
            return False
    if seen.shape[-1] != real.shape[1]:
        return False
    return bool(((seen == expected) | ~real[:, None, :, None]).all())
