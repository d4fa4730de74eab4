"""The transformer blocks of an unmodified model in the order in which they run, found by watching one forward.

Resuming a model at block b means: every block below returns what it would have returned, from a cache. The model's own
code between blocks then runs as always, so masks, rotary tables and per-layer choices need no knowledge here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.patch import Stop, patched

Output = Tensor | tuple[Any, ...]


@dataclass(frozen=True)
class Block:
    """One transformer block.

    Attributes:
        name: dotted path in the model.
        module: the block.
        stack: dotted path of the ModuleList that holds it; an encoder and a decoder are two stacks.
        calls: how often it runs in one forward; more than once where weights are shared across depth.
        tiled: per element of its output, whether the first dimension counts rows (position biases do not).
    """

    name: str
    module: nn.Module
    stack: str
    calls: int
    tiled: tuple[bool, ...]

    def pick(self, output: Output, index: Tensor) -> Output:
        """Some rows of the output."""
        parts = output if isinstance(output, tuple) else (output,)
        out = tuple(part[index] if tiled else part for part, tiled in zip(parts, self.tiled, strict=True))
        return out if isinstance(output, tuple) else out[0]

    def tile(self, output: Output, copies: int) -> Output:
        """The output for ``copies`` candidates, candidate-major: row p * R + i is row i of candidate p."""
        if copies == 1:
            return output
        parts = output if isinstance(output, tuple) else (output,)
        out = tuple(
            part.repeat(copies, *[1] * (part.dim() - 1)) if tiled else part
            for part, tiled in zip(parts, self.tiled, strict=True)
        )
        return out if isinstance(output, tuple) else out[0]


class BlockOrder:
    """The blocks in running order.

    Attributes:
        blocks: every block of the stacks that hold adapted layers, adapted or not.
        resumable: False where a block runs more than once (weights shared across depth, as in ALBERT): such a model is
            always run whole.
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
        self.resumable = all(len(calls) == 1 for calls in outputs[2].values())
        self.blocks = [
            Block(
                names[module],
                module,
                names[module].rsplit(".", 1)[0],
                len(calls),
                _row_dimensions(calls[0], outputs[3][module][0]),
            )
            for module, calls in outputs[2].items()
        ]
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
            states = output[0] if isinstance(output, tuple) else output  # of the right shape; nobody reads it
            skipped += [(module, lambda *args, **kwargs: states) for module in self.stem]
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
    given: dict[nn.Module, list[Any]] = {}
    wanted: list[torch.Size] = []

    def watch(module: nn.Module) -> tuple[nn.Module, Any]:
        forward = module.forward

        def record(*args: Any, **kwargs: Any) -> Any:
            if module is first:
                wanted.append(next(part.shape for part in (*args, *kwargs.values()) if isinstance(part, Tensor)))
            output = forward(*args, **kwargs)
            # None, too, for whatever runs once the first block has: its shape is not looked at.
            given.setdefault(module, []).append(output.shape if isinstance(output, Tensor) and not wanted else None)
            return output

        return module, record

    with patched([watch(module) for module in (*outside.values(), first)]):
        run(2)
    found = {name: module for name, module in outside.items() if given.get(module) == wanted}
    return [module for name, module in found.items() if not any(name.startswith(f"{outer}.") for outer in found)]


def _row_dimensions(two: Output, three: Output) -> tuple[bool, ...]:
    """Which parts of an output count rows in their first dimension: those whose size followed the batch from 2 to 3."""
    pairs = zip(*[part if isinstance(part, tuple) else (part,) for part in (two, three)], strict=True)
    return tuple(isinstance(a, torch.Tensor) and a.dim() > 0 and a.shape[0] == 2 and b.shape[0] == 3 for a, b in pairs)
