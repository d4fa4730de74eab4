"""One pass over the few-shot batch with the base model: what enters every adapted module, for the subspaces' scales."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine import Engine
from dfolora.models.adapter import Adapter
from dfolora.subspaces.base import Measured, Subspace

MAX_TOKENS = 4096  # enough for the leading directions of any width, and a bound on memory


def measure(adapter: Adapter, engine: Engine, subspace: type[Subspace], rank: int, seed: int) -> list[Measured]:
    """What the subspace keeps of the data, for every layer.

    Args:
        adapter: LoRA modules, still empty.
        engine: holds the few-shot batch.
        subspace: its class.
        rank, seed: for ``Subspace.measure``.
    """
    inputs: dict[str, list[Tensor]] = {name: [] for layer in adapter.layers for name in layer.modules}
    hidden: dict[str, list[Tensor]] = {layer.name: [] for layer in adapter.layers}
    handles = []

    def keep(store: list[Tensor]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            store.append(_real_tokens(x, mask))

        return hook

    for layer in adapter.layers:
        block = adapter.model.get_submodule(layer.name)
        handles.append(block.register_forward_pre_hook(keep(hidden[layer.name]), with_kwargs=True))
        for name, module in layer.modules.items():
            handles.append(module.lora.base_layer.register_forward_pre_hook(keep(inputs[name]), with_kwargs=True))
    try:
        for rows in engine.batches:
            mask = rows.inputs["attention_mask"]
            engine.run_plain(rows)
    finally:
        for handle in handles:
            handle.remove()

    embeddings = adapter.model.get_input_embeddings().weight
    measured = []
    with torch.inference_mode():
        for index, layer in enumerate(adapter.layers):
            std = embeddings.float().std() if index == 0 else clipped_std(_some(hidden[layer.name]))
            x = {name: _some(inputs[name]) for name in layer.modules}
            measured.append(subspace.measure(layer, x, float(std), rank, seed))
    # Clones, because tensors made under inference mode could not be used outside it.
    return [{name: tensor.clone() for name, tensor in layer.items()} for layer in measured]


def clipped_std(x: Tensor, rounds: int = 5) -> Tensor:
    """Standard deviation after clipping to mean +- 3 std, five times: BBTv2's guard against outlier dimensions."""
    for _ in range(rounds):
        mean, std = x.mean(), x.std()
        x = x.clamp(mean - 3 * std, mean + 3 * std)
    return x.std()


def _real_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """(tokens, in), padding left out where the rows are the attention mask's; a decoder's tokens are taken as real."""
    flat = x.reshape(-1, x.shape[-1])
    return flat[mask.reshape(-1).bool()] if len(flat) == mask.numel() else flat


def _some(parts: list[Tensor]) -> Tensor:
    x = torch.cat(parts).float()
    return x[:: max(1, -(-len(x) // MAX_TOKENS))]
