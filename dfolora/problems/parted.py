"""A problem whose parts are searched in turn: numbers of a part in, losses out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dfolora.optimizers import Evaluation
from dfolora.problems.problem import Problem, Tuned
from dfolora.seeds import seed_of


class SearchedPart(Protocol):
    """What one optimizer searches."""

    @property
    def layer(self) -> int | None:
        """Index of the layer that it belongs to; None: to no single one."""

    @property
    def dim(self) -> int:
        """d, numbers that are searched."""

    def edits(self, z: Tensor) -> Any:
        """Turn candidates (P, d) into edits of modules, by name."""


class PartedProblem(Problem[Tuned]):
    """A problem with parts.

    Attributes:
        parts: what is searched in turn; ``prepare`` makes them.
    """

    parts: Sequence[SearchedPart]

    def _verify(self) -> None:
        """Compare the engine with scoring one candidate at a time, on two candidates of a part in the middle."""
        part = self.parts[len(self.parts) // 2]
        generator = torch.Generator().manual_seed(seed_of(self.seed, "verification"))
        self.engine.verify(part.edits(torch.randn(2, part.dim, generator=generator)))

    def losses(self, candidates: Tensor, part: int = 0, batch: Tensor | None = None) -> Tensor:
        """One loss per candidate.

        Args:
            candidates: (P, d).
            part: index of the part that they belong to; all others stay at their incumbents.
            batch: (n,) int64, a minibatch; None: all examples.

        Returns:
            (P,) float32 on the CPU.
        """
        return self.evaluation(candidates, part, batch).losses

    def evaluation(
        self, candidates: Tensor, part: int = 0, batch: Tensor | None = None, wants: str = "losses"
    ) -> Evaluation:
        """As ``losses``, with the per-example losses or class scores that an optimizer ``wants`` beside them."""
        return self.evaluate(self.parts[part].edits(candidates), batch, wants)

    @abstractmethod
    def keep(self, candidate: Tensor, part: int = 0) -> None:
        """Make a candidate (d,) the incumbent of a part."""

    def show(self, candidate: Tensor, part: int = 0) -> None:
        """Put a candidate (d,) of a part on the model for a look; whoever asks restores what was there."""
        self.keep(candidate, part)

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the incumbents as a folder that can be loaded."""
