"""The last tokens of rows on their own, behind cached keys and values of all tokens before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from dfolora.engine.blocks import BlockOrder, Output, Prefix
from dfolora.engine.patch import Forward, patched
from dfolora.engine.readout import Readout
from dfolora.engine.recorder import keeping_outputs
from dfolora.engine.rows import Rows
from dfolora.engine.trials import agree


class Tail:
    """The tokens of some rows from the first that is read to the end, and what they need of all before them.

    Attributes:
        rows: the tails as rows, read at the same places.
        tokens: of all tails, padding included.
    """

    def __init__(self, rows: Rows, order: BlockOrder, model: Any) -> None:
        """Cut the tails off.

        Args:
            rows: R rows padded on the right, of a causal model.
            order: its blocks.
            model: unwrapped.
        """
        self._whole, self._order, self._model = rows, order, model
        lengths = rows.inputs["attention_mask"].sum(1)
        unread = None if rows.targets is None else rows.targets < 0
        first = (rows.positions if unread is None else rows.positions.masked_fill(unread, 1 << 40)).min(1).values
        most = int((lengths - first).max())
        place = first[:, None] + torch.arange(most, device=first.device)  # (R, U)
        real = place < lengths[:, None]
        self._place = place.clamp(max=rows.inputs["input_ids"].shape[1] - 1)
        self._before = torch.arange(rows.inputs["input_ids"].shape[1], device=first.device) < first[:, None]
        self._mask = torch.cat([self._before, real], 1).to(rows.inputs["attention_mask"].dtype)
        inputs = {name: tensor.gather(1, self._place) for name, tensor in rows.inputs.items()}
        inputs["attention_mask"] = real.to(self._mask.dtype)
        self.rows = dataclasses.replace(rows, inputs=inputs, positions=(rows.positions - first[:, None]).clamp(min=0))
        self.tokens = self._place.numel()
        self._cache: list[tuple[Tensor, Tensor]] = []
        self._outputs: list[Output] = []

    def record(self, forwards: list[tuple[nn.Module, Forward]], readout: Readout) -> Any:
        """Run the whole rows once and keep their keys, values and hidden states; what the model returns."""
        states: dict[nn.Module, Output] = {}
        cache = DynamicCache()
        blocks = [block.module for block in self._order.blocks]
        with patched([*forwards, *readout.replacements(self._whole, 1), *keeping_outputs(blocks, states)]):
            output = self._model(**self._whole.inputs, past_key_values=cache, use_cache=True, return_dict=True)
        kept: list[Any] = cache.layers  # other kinds than that of keys and values have no such attributes
        self._cache = [(layer.keys, layer.values) for layer in kept]
        if not self._order.resumable or len(self._cache) != len(blocks):
            raise ValueError("the blocks are not those that keep keys and values")
        self._outputs = [self._cut(states[module]) for module in blocks]
        return output

    def is_causal(self, forwards: list[tuple[nn.Module, Forward]], readout: Readout) -> bool:
        """Whether what is cached of the tokens before the tails stays if the tails' own tokens are others."""
        ids = self._whole.inputs["input_ids"]
        others = (ids.gather(1, self._place) + 1) % int(self._model.get_input_embeddings().weight.shape[0])
        inputs = {**self._whole.inputs, "input_ids": ids.scatter(1, self._place, others)}
        cache = DynamicCache()
        with patched([*forwards, *readout.replacements(self._whole, 1)]):
            self._model(**inputs, past_key_values=cache, use_cache=True, return_dict=True)
        kept: list[Any] = cache.layers

        def before(each: Tensor) -> Tensor:
            return each.transpose(1, 2)[self._before]  # (tokens, heads, features)

        pairs = [(new, old) for layer, pair in zip(kept, self._cache, strict=True)
                 for new, old in zip((layer.keys, layer.values), pair, strict=True)]  # fmt: skip
        return all(agree(before(new), before(old), torch.float32) for new, old in pairs)

    def _cut(self, output: Output) -> Output:
        """A block's output for the tails alone."""
        parts = output if isinstance(output, tuple) else (output,)
        if any(isinstance(part, Tensor) for part in parts[1:]):
            raise ValueError("a block gives more than hidden states")
        state = parts[0].gather(1, self._place[..., None].expand(-1, -1, parts[0].shape[-1]))
        return (state, *parts[1:]) if isinstance(output, tuple) else state

    @property
    def size(self) -> float:
        """Mean length of what the last block gives at a token."""
        output = self._outputs[-1]
        states = output[0] if isinstance(output, tuple) else output
        return float(states.float().norm(dim=-1).mean())

    def run(
        self,
        depth: int,
        forwards: list[tuple[nn.Module, Forward]],
        readout: Readout,
        copies: int,
        end: Callable[[Forward], Forward] | None = None,
    ) -> Tensor:
        """Readings of ``copies`` candidates, which differ from block ``depth`` on.

        Args:
            depth: blocks below it are not run.
            forwards: what the adapted modules do.
            readout: how answers are read.
            copies: P.
            end: changes what the last block gives; None: nothing does.

        Returns:
            (P, R, ...) as ``Readout.read`` gives them.
        """
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._cache):
            if index == 0 or index >= depth:  # the first says how many tokens there are
                cache.update(keys.repeat(copies, 1, 1, 1), values.repeat(copies, 1, 1, 1), index)
        resumed: list[tuple[nn.Module, Any]] = []
        if depth:
            below = {self._order.blocks[depth - 1].stack: self._outputs[depth - 1]}
            resumed = self._order.resume(Prefix(depth, below), copies)
        if end is not None:
            last = self._order.blocks[-1].module
            resumed = [(module, end(forward) if module is last else forward) for module, forward in resumed]
        inputs = {
            "input_ids": self.rows.inputs["input_ids"].repeat(copies, 1),
            "attention_mask": self._mask.repeat(copies, 1),
            "position_ids": self._place.repeat(copies, 1),
        }
        with patched([*forwards, *readout.replacements(self.rows, copies), *resumed]):
            output = self._model(**inputs, past_key_values=cache, use_cache=True, return_dict=True)
        return readout.read(self.rows, output, copies)
