"""What an architecture allows, found by watching its adapted block run: nothing is assumed from names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.blocks import Block
from dfolora.engine.patch import Forward, Stop, patched

_LINEAR = ("Linear", "Conv1D")


class RowInputs:
    """Runs the model and notes whether all that reaches the adapted modules has a place for every row.

    DeBERTa's query and key also multiply a table of relative positions that all rows share: a table for every
    candidate has no place in the model's code, so that candidates have to run one after the other there.
    """

    def __init__(self, modules: Sequence[nn.Module], run: Callable[[int], Any]) -> None:
        """Keep what is to be watched.

        Args:
            modules: the adapted ones.
            run: ``run(n)`` does one plain forward of n rows.
        """
        self._modules, self._run = modules, run
        self._sizes: dict[int, list[int]] = {}

    def __call__(self, rows: int) -> Any:
        """One forward of so many rows."""
        seen: list[int] = []
        self._sizes.setdefault(rows, seen)  # the first of each is run to its end

        def watch(module: nn.Module) -> tuple[nn.Module, Forward]:
            forward = module.forward

            def look(x: Tensor, *args: Any, **kwargs: Any) -> Any:
                seen.append(x.shape[0])
                return forward(x, *args, **kwargs)

            return module, look

        with patched([watch(module) for module in self._modules]):
            return self._run(rows)

    def always(self) -> bool:
        """Whether the first dimension of every input grew with the rows of the forwards so far."""
        per_row = [[size / rows for size in sizes] for rows, sizes in self._sizes.items()]
        return all(sizes == per_row[0] for sizes in per_row)


def shared_maps(block: Block, modules: Sequence[Any], run_twice: Callable[[], Any]) -> frozenset[str]:
    """Linear maps in a block whose inputs do not depend on the candidate, by their names in the model.

    Args:
        block: the tuned layer.
        modules: its adapted ones, PEFT's.
        run_twice: one forward of a few rows, then the same again.
    """
    generator = torch.Generator().manual_seed(0)
    differ: set[str] = set()
    seen: set[str] = set()

    def spoil(module: nn.Module, size: float) -> tuple[nn.Module, Forward]:
        """The second candidate's adapted outputs get noise of their own: whatever depends on them shows it."""
        forward = module.forward

        def spoiled(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = forward(x, *args, **kwargs)
            second = y[len(y) // 2 :]
            noise = torch.randn(second.shape, generator=generator).to(y) * second.square().mean().sqrt() * size
            return torch.cat([y[: len(y) // 2], second + noise])

        return module, spoiled

    def watch(name: str, module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
        def look(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            seen.add(name)
            if x.dim() < 2 or x.shape[0] % 2 or not _alike(*x.float().reshape(2, -1)):
                differ.add(name)
            return forward(x, *args, **kwargs)

        return module, look

    def stop(*args: Any, forward: Forward = block.module.forward, **kwargs: Any) -> Any:
        forward(*args, **kwargs)
        raise Stop

    bases = {module.base_layer for module in modules}
    # Small noise tells where a softmax is soft, large noise where it has made up its mind.
    for size in (0.1, 0.3, 1.0, 3.0):
        lora = dict(spoil(module, size) for module in modules)
        watched = dict(
            watch(f"{block.name}.{name}", module, lora.get(module, module.forward))
            for name, module in block.module.named_modules()
            if module in lora or (type(module).__name__ in _LINEAR and not _inside_lora(name) and module not in bases)
        )
        with contextlib.suppress(Stop), patched([*(lora | watched).items(), (block.module, stop)]):
            run_twice()
    return frozenset(seen - differ)


def _alike(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-4, atol=1e-4 * float(first.abs().max() + 1e-30))


def _inside_lora(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
