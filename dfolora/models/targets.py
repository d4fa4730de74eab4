"""Which linear maps of a model are adapted, by the names and layouts that transformers' architectures use."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.errors import UserError

# Query and key projections by the names that transformers' architectures use. A fused projection holds query, key and
# value in one matrix; the second entry says how its output rows are laid out.
_QUERY_KEY = ("query", "key", "q_proj", "k_proj", "q_lin", "k_lin", "q", "k", "query_proj", "key_proj")
_FUSED = {"c_attn": "blocks", "qkv_proj": "blocks", "Wqkv": "blocks", "query_key_value": "heads"}
_CROSS_ATTENTION = ("crossattention", "EncDecAttention", "encoder_attn", "cross_attn")


def features(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear map."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight: Any = module.weight  # Conv1D keeps (in, out)
    return int(weight.shape[0]), int(weight.shape[1])


def _linear_names(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head
    ]


def target_names(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Dotted paths of the linear maps that ``targets`` name by their ends; empty: query and key of self-attention.

    Raises:
        UserError: none is found.
    """
    linear = _linear_names(model)
    if not targets:
        default = [
            n for n in linear if _suffix(n) in (*_QUERY_KEY, *_FUSED) and not _is_cross(n) and block_of(model, n)
        ]
        if default:
            return default
        raise UserError(f"--target: no query or key projection found; name modules yourself, such as {_some(linear)}")
    chosen = [n for n in linear if any(n == t or n.endswith("." + t) for t in targets) and block_of(model, n)]
    for target in targets:
        if not any(n == target or n.endswith("." + target) for n in chosen):
            near = difflib.get_close_matches(target, sorted({_suffix(n) for n in linear}), n=3, cutoff=0.4)
            hint = " or ".join(map(repr, near)) if near else _some(linear)
            raise UserError(f"--target: the model has no linear module {target!r} in its layers; try {hint}")
    return chosen


def _some(names: list[str]) -> str:
    return ", ".join(sorted({_suffix(name) for name in names}))


def _suffix(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _is_cross(name: str) -> bool:
    return any(part in _CROSS_ATTENTION for part in name.split("."))


def block_names(model: nn.Module) -> list[str]:
    """Transformer blocks: those with self-attention by the names above, or else all that hold linear maps."""
    try:
        inside = target_names(model, ())
    except UserError:
        inside = _linear_names(model)
    return [name for name in dict.fromkeys(block_of(model, inner) for inner in inside) if name is not None]


def block_of(model: nn.Module, name: str) -> str | None:
    """The transformer block that a module belongs to: the first element of a ModuleList on its path."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit() and isinstance(model.get_submodule(".".join(parts[:index])), nn.ModuleList):
            return ".".join(parts[: index + 1])
    return None


def searched_rows(model: Any, name: str, module: Any) -> Tensor | None:
    """Query and key rows of a fused projection; None where there is nothing to leave out."""
    layout = _FUSED.get(_suffix(name))
    if layout is None or _is_cross(name):
        return None
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    rows = torch.arange(int(module.out_features))
    if layout == "blocks":  # [query | key | value], with fewer key and value heads under grouped-query attention
        kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        return rows[: len(rows) * (heads + kv_heads) // (heads + 2 * kv_heads)]
    if len(rows) != 3 * int(module.in_features):
        return None  # Falcon's grouped layouts: search all rows rather than guess
    return rows.view(heads, 3, -1)[:, :2].reshape(-1)  # per head [query, key, value]
