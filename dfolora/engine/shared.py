"""Linear maps of the tuned block whose inputs are equal for all candidates: they run once, not once a candidate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.blocks import Block
from dfolora.engine.patch import Forward, Stop, patched
from dfolora.engine.trials import agree

_LINEAR = ("Linear", "Conv1D")


def shared_maps(block: Block, modules: Sequence[Any], run_twice: Callable[[], Any]) -> frozenset[str]:
    """Linear maps of a block whose inputs do not depend on the candidate, by their names in the model.

    Args:
        block: the tuned layer.
        modules: its adapted ones, PEFT's.
        run_twice: one forward of a few rows, then the same again.
    """
    generator = torch.Generator().manual_seed(0)
    differ: set[str] = set()
    seen: set[str] = set()

    def disturb(module: nn.Module, size: float) -> tuple[nn.Module, Forward]:
        """The second candidate's adapted outputs get noise of their own: whatever depends on them shows it."""
        forward = module.forward

        def disturbed(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = forward(x, *args, **kwargs)
            second = y[len(y) // 2 :]
            noise = torch.randn(second.shape, generator=generator).to(y) * second.square().mean().sqrt() * size
            return torch.cat([y[: len(y) // 2], second + noise])

        return module, disturbed

    def watch(name: str, module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
        def look(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            seen.add(name)
            if x.dim() < 2 or x.shape[0] % 2 or not agree(x[: len(x) // 2], x[len(x) // 2 :], torch.float32):
                differ.add(name)
            return forward(x, *args, **kwargs)

        return module, look

    def stop(*args: Any, forward: Forward = block.module.forward, **kwargs: Any) -> Any:
        forward(*args, **kwargs)
        raise Stop

    bases = {module.base_layer for module in modules}
    # Small noise tells where a softmax is soft, large noise where it has made up its mind.
    for size in (0.1, 0.3, 1.0, 3.0):
        lora = dict(disturb(module, size) for module in modules)
        watched = dict(
            watch(f"{block.name}.{name}", module, lora.get(module, module.forward))
            for name, module in block.module.named_modules()
            if module in lora or (type(module).__name__ in _LINEAR and not _inside_lora(name) and module not in bases)
        )
        with contextlib.suppress(Stop), patched([*(lora | watched).items(), (block.module, stop)]):
            run_twice()
    return frozenset(seen - differ)


def _inside_lora(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
