"""Whether all that reaches the adapted modules has a place for every row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from dfolora.engine.patch import Forward, patched


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
