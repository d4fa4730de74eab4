"""Prompts of a population up to their last token: what the blocks below the lowest changed one make is made once.

The keys and values of those blocks are the same for every candidate, and so is what they give to the block above. A
candidate's run starts there; then all tokens of its prompts but the last are in the cache, and transformers'
``generate`` goes on from that. Whether a model does so in the same way as without is found by trying (``Generator``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from dfolora.engine.blocks import Prefix
from dfolora.engine.edits import Edits
from dfolora.engine.engine import Engine
from dfolora.engine.patch import patched


@dataclass(frozen=True)
class SharedPrefill:
    """What the lowest blocks make of R prompts without their last tokens, once for all candidates.

    Attributes:
        inputs: what the model is called with, (R, T - 1), padded on the left.
        prefix: what the blocks below its depth give.
        cache: their keys and values.
    """

    inputs: dict[str, Any]
    prefix: Prefix
    cache: Any

    @classmethod
    def of(cls, engine: Engine, prompts: dict[str, Tensor], depth: int) -> SharedPrefill:
        """Run the first ``depth`` blocks on prompts (R, T), T > 1."""
        inputs: dict[str, Any] = {name: tensor[:, :-1] for name, tensor in prompts.items()}
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)  # as ``generate`` numbers them
        cache = DynamicCache()

        def run() -> None:
            engine.model.base_model(**inputs, past_key_values=cache, use_cache=True)

        with patched(engine.module_forwards({}, frozenset(), 1)):
            prefix = engine.order.advance(Prefix(0, {}), depth, run)
        engine.count(inputs, 1, 0, depth)
        return cls(inputs, prefix, cache)

    def cache_of(self, engine: Engine, edits: Edits, copies: int) -> Any:
        """The whole cache of ``copies`` candidates, (copies R) rows, whose edits lie above the shared blocks."""
        found = DynamicCache()
        tiled = {name: tensor.repeat(copies, 1) for name, tensor in self.inputs.items()}
        with engine.running(edits, copies), patched(engine.order.resume(self.prefix, copies)):
            engine.model.base_model(**tiled, past_key_values=found, use_cache=True)
        for index in range(self.prefix.depth):
            layer = self.cache.layers[index]
            keys, values = (torch.cat([part] * copies) for part in (layer.keys, layer.values))
            found.update(keys, values, index)
        engine.count(self.inputs, copies, self.prefix.depth)
        return found
