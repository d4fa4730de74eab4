"""The last tokens of rows on their own, behind cached keys and values of all tokens before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from dfolora.engine.blocks import BlockOrder, Output, Prefix
from dfolora.engine.patch import Forward, patched
from dfolora.engine.readout import Readout
from dfolora.engine.rows import Rows
from dfolora.engine.trials import agree
from dfolora.errors import UserError


class Recorder:
    """Notes what enters some modules, and how long their outputs are, where rows are read.

    Args:
        where: (R, T) float32 shares, see ``shifts``.
        names: of the modules.
    """

    def __init__(self, where: Tensor, names: Sequence[str]) -> None:
        self._where = where
        self._names = names
        self._inputs: dict[str, list[Tensor]] = {name: [] for name in names}
        self._lengths: dict[str, list[float]] = {name: [] for name in names}
        self._spreads: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
        self._several = bool((where > 0).sum(1).max() > 1)
        self._of: dict[nn.Module, str] = {}

    def watch(self, model: Any, module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
        """The module and its forward, which notes what it is given if it is one of those that are named."""
        if not self._of:
            self._of = {model.get_submodule(name): name for name in self._names}
        name = self._of.get(module)
        if name is None:
            return module, forward

        def noting(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = forward(x, *args, **kwargs)
            self._inputs[name].append(self._mean(x.float()))
            self._spreads[name] = self._spreads[name] + self._spread(x.float(), self._inputs[name][-1])
            self._lengths[name].append(float(self._mean(y.float().norm(dim=-1, keepdim=True)).mean()))
            return y

        return module, noting

    def inputs(self, name: str) -> Tensor:
        """(R, in) float32; the mean over calls where the module runs several times."""
        return torch.stack(self._inputs[name]).mean(0)

    def length(self, name: str) -> float:
        """Mean length of the output."""
        return sum(self._lengths[name]) / len(self._lengths[name])

    def spread(self, name: str) -> Tensor | None:
        """(in, in) sum over rows of the covariance of what enters within a row, mean of calls; None: one place."""
        spread = self._spreads[name]
        return spread / len(self._inputs[name]) if isinstance(spread, Tensor) else None

    def _spread(self, x: Tensor, mean: Tensor) -> Tensor | float:
        if not self._several:
            return 0.0
        centred = (x.reshape(*self._where.shape, -1) - mean[:, None]) * self._where.sqrt()[..., None]
        return centred.flatten(0, 1).T @ centred.flatten(0, 1)

    def _mean(self, x: Tensor) -> Tensor:
        if x.numel() != self._where.numel() * x.shape[-1]:
            raise elsewhere()
        return torch.einsum("rtd,rt->rd", x.reshape(*self._where.shape, -1), self._where)


def elsewhere() -> UserError:
    """The error for a module that answers do not pass through token by token, such as one of an encoder."""
    return UserError(
        "target: an adapted module does not run over the tokens that answers are read at; choose other modules, or the "
        "method search"
    )


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

        def watch(module: nn.Module) -> tuple[nn.Module, Forward]:
            forward = module.forward

            def note(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                states[module] = output
                return output

            return module, note

        cache = DynamicCache()
        blocks = [block.module for block in self._order.blocks]
        with patched([*forwards, *readout.replacements(self._whole, 1), *map(watch, blocks)]):
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
