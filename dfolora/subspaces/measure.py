"""One pass over the few-shot batch with the base model: what enters every adapted module, for the subspaces' scales."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine import Engine
from dfolora.engine.read_along import read_along
from dfolora.engine.shifts import ShiftEngine
from dfolora.models.adapter import Adapter
from dfolora.subspaces.base import Measured, Subspace

STEP = 0.2  # of a difference of scores, as a share of the length of the last hidden state
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

    where_read, directions = _where_read(adapter, engine) if subspace.reads_scores else ({}, None)
    embeddings = adapter.model.get_input_embeddings().weight
    measured = []
    with torch.inference_mode():
        for index, layer in enumerate(adapter.layers):
            std = embeddings.float().std() if index == 0 else clipped_std(_some(hidden[layer.name]))
            x = {name: where_read.get(name, _some(inputs[name])) for name in layer.modules}
            measured.append(subspace.measure(layer, x, float(std), rank, seed))
            if directions is not None:
                measured[-1]["read_along"] = directions
    # Clones, because tensors made under inference mode could not be used outside it.
    return [{name: tensor.clone() for name, tensor in layer.items()} for layer in measured]


def _where_read(adapter: Adapter, engine: Engine) -> tuple[dict[str, Tensor], Tensor | None]:
    """What enters modules where answers are read, (R, in) by name, and the directions that scores are read along.

    Of a model with two stacks the encoder's modules are not among them; None: the model does not tell directions.
    """
    names = [name for layer in adapter.layers for name in layer.modules]
    if "decoder_input_ids" in engine.single_rows.inputs:
        names = [name for name in names if ".decoder." in f".{name}"]
    shifts = ShiftEngine(adapter, engine.single_rows, engine.chunk_tokens)
    look = shifts.look(names)
    slopes = shifts.end_slopes(STEP)
    inputs = {name: x.to(engine.device) for name, x in look.inputs.items()}
    return inputs, None if slopes is None else read_along(slopes, look.scores, differences=True)


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
