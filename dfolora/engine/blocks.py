"""The transformer blocks of an unmodified model in the order in which they run, found by watching one forward.

Resuming a model at block b means: every block below returns what it would have returned, from a cache. The model's own
code between blocks then runs as always, so masks, rotary tables and per-layer choices need no knowledge here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.patch import Stop, patched
from dfolora.engine.trials import attempt

Output = Tensor | tuple[Any, ...]


@dataclass(frozen=True)
class Block:
    """One transformer block.

    Attributes:
        name: dotted path in the model.
        module: the block.
        stack: dotted path of the ModuleList that holds it; an encoder and a decoder are two stacks.
        calls: how often it runs in one forward; more than once where weights are shared across depth.
        axes: per element of its output, which dimension counts rows; None where none does (a position bias).
    """

    name: str
    module: nn.Module
    stack: str
    calls: int
    axes: tuple[int | None, ...]

    def pick(self, output: Output, index: Tensor) -> Output:
        """Some rows of the output."""
        return self._each(output, lambda part, axis: part.index_select(axis, index))

    def tile(self, output: Output, copies: int) -> Output:
        """The output for ``copies`` candidates, candidate-major: row p * R + i is row i of candidate p.

        Always a copy: some models go on to change in place what a block gave them.
        """
        return self._each(output, lambda part, axis: part.repeat(*[1] * axis, copies, *[1] * (part.dim() - axis - 1)))

    def _each(self, output: Output, change: Callable[[Tensor, int], Tensor]) -> Output:
        parts = output if isinstance(output, tuple) else (output,)
        changed = tuple(
            part if axis is None else change(part, axis) for part, axis in zip(parts, self.axes, strict=True)
        )
        return changed if isinstance(output, tuple) else changed[0]


class BlockOrder:
    """The blocks in running order.

    Attributes:
        blocks: every block of the stacks that hold adapted layers, adapted or not.
        resumable: False where a block runs more than once (weights shared across depth, as in ALBERT) or gives
            something in which rows cannot be told: such a model is always run whole.
        stem: modules that make what the first block reads (embeddings).
        skip_stem: whether a resumed run leaves the stem out. Set it only once that is known to change nothing.
    """

    def __init__(self, model: nn.Module, run: Callable[[int], Any], adapted: Sequence[str]) -> None:
        """Watch two forwards.

        Args:
            model: the unwrapped model.
            run: ``run(n)`` does one plain forward of n rows.
            adapted: names of the adapted blocks.
        """
        stacks = dict.fromkeys(name.rsplit(".", 1)[0] for name in adapted)
        names = {
            module: f"{stack}.{index}"
            for stack in stacks
            for index, module in enumerate(model.get_submodule(stack).children())
        }
        outputs: dict[int, dict[nn.Module, list[Output]]] = {}
        for rows in (2, 3):
            seen: dict[nn.Module, list[Output]] = {}
            outputs[rows] = seen

            def watch(module: nn.Module, seen: dict[nn.Module, list[Output]] = seen) -> tuple[nn.Module, Any]:
                forward = module.forward

                def record(*args: Any, **kwargs: Any) -> Output:
                    output = forward(*args, **kwargs)
                    seen.setdefault(module, []).append(output)
                    return output

                return module, record

            with patched([watch(module) for module in names]):
                run(rows)
        self.blocks = []
        for module, calls in outputs[2].items():
            axes = attempt(partial(_row_axes, calls[0], outputs[3][module][0])) or ()
            name = names[module]
            self.blocks.append(Block(name, module, name.rsplit(".", 1)[0], len(calls), axes))
        self.resumable = all(block.calls == 1 and _counts_rows(block.axes) for block in self.blocks)
        self.index = {block.name: position for position, block in enumerate(self.blocks)}
        self.stem = _stem(model, tuple(stacks), self.blocks[0].module, run)
        self.skip_stem = False

    def resume(self, prefix: Prefix, copies: int) -> list[tuple[nn.Module, Any]]:
        """Replacements that skip the blocks below ``prefix.depth`` and return the cached outputs instead."""
        tiled: dict[str, Output] = {}
        for position in range(prefix.depth):
            block = self.blocks[position]
            if self._last_below(position, prefix.depth):
                tiled[block.stack] = block.tile(prefix.outputs[block.stack], copies)

        def answer(stack: str) -> Any:
            # Every skipped block of a stack gives the output of the last one: whatever the model passes on in between
            # is overwritten, and the shapes are right throughout.
            return lambda *args, **kwargs: tiled[stack]

        skipped = [(block.module, answer(block.stack)) for block in self.blocks[: prefix.depth]]
        if prefix.depth and self.skip_stem:
            output = tiled[self.blocks[0].stack]
            states = output[0] if isinstance(output, tuple) else output
            # Of the right shape and nobody reads it; a tensor of its own, for some models scale it in place.
            blank = torch.zeros_like(states)
            skipped += [(module, lambda *args, **kwargs: blank) for module in self.stem]
        return skipped

    def advance(self, prefix: Prefix, depth: int, run: Callable[[], Any]) -> Prefix:
        """Run blocks ``prefix.depth`` to ``depth`` once, on plain rows, and keep what the blocks below ``depth`` give.

        Args:
            prefix: the state to start from.
            depth: how many blocks the new prefix covers.
            run: one forward of the model on the plain rows.
        """
        outputs = dict(prefix.outputs)
        last = self.blocks[depth - 1]

        def capture(block: Block) -> tuple[nn.Module, Any]:
            forward = block.module.forward

            def record(*args: Any, **kwargs: Any) -> Output:
                outputs[block.stack] = forward(*args, **kwargs)
                if block is last:
                    raise Stop
                return outputs[block.stack]

            return block.module, record

        replacements = [*self.resume(prefix, 1), *map(capture, self.blocks[prefix.depth : depth])]
        with contextlib.suppress(Stop), patched(replacements):
            run()
        return Prefix(depth, outputs)

    def pick(self, prefix: Prefix, index: Tensor) -> Prefix:
        """The prefix of some rows."""
        outputs = {
            block.stack: block.pick(prefix.outputs[block.stack], index)
            for position, block in enumerate(self.blocks[: prefix.depth])
            if self._last_below(position, prefix.depth)
        }
        return Prefix(prefix.depth, outputs)

    def block_of(self, module: str) -> int | None:
        """The block that a module is or lies in, in running order; None outside all of them."""
        parts = module.split(".")
        names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((self.index[name] for name in names if name in self.index), None)

    def _last_below(self, position: int, depth: int) -> bool:
        return position + 1 == depth or self.blocks[position + 1].stack != self.blocks[position].stack


@dataclass(frozen=True)
class Prefix:
    """What the blocks below ``depth`` gave for the plain rows: per stack, the last such block's output."""

    depth: int
    outputs: dict[str, Output]


def _stem(model: nn.Module, stacks: tuple[str, ...], first: nn.Module, run: Callable[[int], Any]) -> list[nn.Module]:
    """Outermost modules that run once, before the first block, and give a tensor of the shape of what it reads."""

    def is_outside(name: str) -> bool:  # neither within a stack nor around one
        return all(
            not f"{name}.".startswith(f"{stack}.") and not f"{stack}.".startswith(f"{name}.") for stack in stacks
        )

    outside = {name: module for name, module in model.named_modules() if name and is_outside(name)}
    shapes: dict[nn.Module, list[Any]] = {}
    first_input: list[torch.Size] = []

    def watch(module: nn.Module) -> tuple[nn.Module, Any]:
        forward = module.forward

        def record(*args: Any, **kwargs: Any) -> Any:
            if module is first:
                tensors = (part.shape for part in (*args, *kwargs.values()) if isinstance(part, Tensor))
                first_input.append(next(tensors, torch.Size()))
            output = forward(*args, **kwargs)
            before_blocks = isinstance(output, Tensor) and not first_input
            shapes.setdefault(module, []).append(output.shape if before_blocks else None)
            return output

        return module, record

    with patched([watch(module) for module in (*outside.values(), first)]):
        run(2)
    fitting = {name: module for name, module in outside.items() if shapes.get(module) == first_input}
    return [module for name, module in fitting.items() if not any(name.startswith(f"{outer}.") for outer in fitting)]


def _row_axes(two: Output, three: Output) -> tuple[int | None, ...]:
    """Per part of an output the dimension that counts rows: the first whose size followed the batch from 2 to 3."""
    pairs = zip(*[part if isinstance(part, tuple) else (part,) for part in (two, three)], strict=True)
    return tuple(_row_axis(a, b) for a, b in pairs)


def _row_axis(two: Any, three: Any) -> int | None:
    if not isinstance(two, Tensor) or not isinstance(three, Tensor):
        return None
    sizes = enumerate(zip(two.shape, three.shape, strict=True))
    return next((axis for axis, pair in sizes if pair == (2, 3)), None)


def _counts_rows(axes: tuple[int | None, ...]) -> bool:
    return bool(axes) and axes[0] is not None
