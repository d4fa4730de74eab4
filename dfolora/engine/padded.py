"""A batch as rows padded to the longest: what every model can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dfolora.engine.patch import Forward
from dfolora.engine.readout import Readout
from dfolora.engine.rows import Rows


class Padded:
    """Some rows, as the model is called with them.

    Attributes:
        rows: R rows.
        inputs: the model's arguments, each (R, T).
    """

    def __init__(self, rows: Rows, unmasked: bool) -> None:
        """Leave out a mask that nobody needs.

        Args:
            rows: padded on the right.
            unmasked: whether the model reads a row that has no padding the same without its mask.
        """
        self.rows = rows
        self.inputs = dict(rows.inputs)
        if unmasked and bool(self.inputs["attention_mask"].all()):
            del self.inputs["attention_mask"]

    def pick(self, rows: Tensor) -> tuple[Padded, Tensor]:
        """Some of the rows, and where they stand among the rows of hidden states."""
        picked = Padded(self.rows.pick(rows), unmasked=False)
        picked.inputs = {name: picked.inputs[name] for name in self.inputs}
        return picked, rows

    def run(self, forward: Callable[[dict[str, Tensor]], Any], copies: int) -> Any:
        """One forward of ``copies`` candidates, candidate-major."""
        return forward({name: tensor.repeat(copies, 1) for name, tensor in self.inputs.items()})

    def replacements(
        self, readout: Readout, lora: list[tuple[nn.Module, Forward]], copies: int
    ) -> list[tuple[nn.Module, Forward]]:
        """What to patch for it: the adapted modules, and what ``readout`` cuts short."""
        adapted = [(module, readout.answer_rows(module, forward, self.rows, copies)) for module, forward in lora]
        return [*adapted, *readout.replacements(self.rows, copies)]

    def read(self, readout: Readout, output: Any, copies: int) -> Tensor:
        """(copies, R, ...): readings of what the model gave."""
        return readout.read(self.rows, output, copies)
