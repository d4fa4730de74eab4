"""Hidden states of a model as it is: at the answer position, after every block; of a sentence encoder, its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Engine, Rows
from dfolora.engine.patch import patched
from dfolora.models.bare import Bare
from dfolora.problems.encode import PromptEncoder
from dfolora.scoring import BATCH
from dfolora.task import Example


def hidden_states(
    bare: Bare, encoder: PromptEncoder, examples: Sequence[Example], chunk_tokens: int = 0
) -> tuple[list[Tensor], int, int]:
    """Run the model once over the examples.

    Args:
        bare: the model.
        encoder: of a task with label words or label sentences.
        examples: N of them.
        chunk_tokens: most tokens in one forward; 0: what is fastest and fits.

    Returns:
        One (N, H) float32 tensor on the CPU for each call of a block, in running order (of the decoder, where there is
        one): what leaves the block at the position where the answer is predicted. For a sentence encoder one tensor:
        the pooled vectors. Then the token-layers and the forwards that it took.
    """
    parts: list[list[Tensor]] = []
    token_layers = forwards = 0
    for start in range(0, len(examples), BATCH):
        rows = encoder.encode(examples[start : start + BATCH])
        rows = rows.pick((rows.owner[:, 0] >= 0).nonzero()[:, 0])  # no label sentences
        engine = Engine(bare, rows, chunk_tokens)
        layers: list[Tensor] = []
        for cut in engine.cuts(engine.single_rows):
            batch = engine.single_rows.take(cut)
            states = [engine.plain_readings(batch)[0]] if rows.sentences else _after_blocks(engine, batch)
            engine.count(batch.inputs, 1)
            layers = layers or [state.new_empty(rows.count, state.shape[1]) for state in states]
            for layer, state in zip(layers, states, strict=True):
                layer[cut] = state
        parts.append([layer.cpu() for layer in layers])
        token_layers += engine.token_layers
        forwards += engine.forwards
    return [torch.cat(layer) for layer in zip(*parts, strict=True)], token_layers, forwards


def _after_blocks(engine: Engine, batch: Rows) -> list[Tensor]:
    """(R, H) at the first answer position, after each call of a block that the answer is read behind."""
    row, position = torch.arange(batch.count, device=engine.device), batch.positions[:, 0]
    found: list[Tensor] = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        found.append(states[row, position].float())

    blocks = engine.order.blocks
    if "decoder_input_ids" in batch.inputs:
        blocks = [block for block in blocks if ".decoder." in f".{block.stack}."]
    hooks = [block.module.register_forward_hook(look) for block in blocks]
    try:
        with patched(engine.readout.label_head(batch)):
            engine.run_plain(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found
