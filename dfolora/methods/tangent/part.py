"""A set of examples, and the rounds that fit the adapted modules to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfolora.engine.read_along import read_along
from dfolora.engine.shifts import Look, ShiftEngine
from dfolora.methods.tangent.linear_model import LinearModel, Move, Slopes

LENGTHS = (1.0, 0.5, 0.25, 0.125)  # of a move, until one is better than none

Loss = Callable[[Tensor], Tensor]
"""The objective on some examples: (P, N, C) scores to (P,)."""
Sides = dict[str, Tensor]
"""Module name -> its A (K, in) float32."""


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        losses: of every probe, then of the lengths of the move that were tried.
        before, promised, reached: the loss before the round, as the linear model promises it, and as it is now.
        penalty: of the linear problem.
        length: of the move that was taken, as a share of what the linear model recommends; 0: none was better.
        share: of the loss, that the round aimed at.
    """

    losses: Tensor
    before: float
    promised: float
    reached: float
    penalty: float
    length: float
    share: float


@dataclass
class Part:
    """Examples, directions of their own, and the A sides that the rounds have reached.

    Attributes:
        engine: scores the examples.
        loss: the objective on them.
        directions: module name -> (K, out) orthonormal rows.
        write: makes some A sides, with the directions as columns of B, the incumbents.
        sides: A of all modules as they are now.
        share: of the loss, that the next round aims at: more where the last one has missed its promise.
        rounds: done so far.
        done: whether there is nothing more to gain, or to pay for it.
        base: (N, C) scores of the model as it came; None before the first round.
        now: what ``sides`` show, while the model is there.
    """

    engine: ShiftEngine
    loss: Loss
    directions: Sides
    write: Callable[[Sides], None]
    sides: Sides
    share: float
    rounds: int = 0
    done: bool = False
    base: Tensor | None = None
    now: Look | None = None

    def start(self) -> Look:
        """Write the A sides, and look at the examples from there, unless that has been done with the same outputs."""
        self.write(self.sides)
        if self.now is not None and self.rounds == 0:
            self.engine.still()
            return self.now
        self.now = self.engine.look(list(self.directions))
        return self.now

    def aim(self, step_size: float) -> None:
        """Put the directions that answers are read along first, where it costs nothing to find them.

        They are the principal ones of the slopes of class scores in the last hidden state, one less than there are
        classes: what is known as the logit lens, through whatever norm and head the model has. The others stay random.

        Args:
            step_size: as for ``round``.
        """
        self.now = self.engine.look(list(self.directions))
        slopes = self.engine.end_slopes(step_size)
        if slopes is None:
            return
        lens = read_along(slopes, self.now.scores, ignores_a_common_shift(self.loss, self.now.scores))
        for name, drawn in self.directions.items():
            if drawn.shape[1] == lens.shape[1]:
                aimed = torch.cat([lens, drawn])[: len(drawn)]
                self.directions[name] = torch.linalg.qr(aimed.T)[0].T.contiguous()
        self.write(self.sides)
        self.engine.still()

    def round(self, enough: float, step_size: float) -> Round:
        """Probe, solve, and move by the longest step that is better than none.

        Args:
            enough: a loss that need not be reduced further.
            step_size: length of a probe, as a share of the length of the module's output.
        """
        look = self.now or self.start()
        self.base = look.scores if self.base is None else self.base
        losses: list[Tensor] = []
        centre = ignores_a_common_shift(self.loss, look.scores)
        even = {name: _even(spread) for name, spread in look.spreads.items() if _varies(spread)}
        slopes = [self._slopes(name, look, even.get(name), step_size, centre, losses) for name in self.directions]
        move = LinearModel(look.scores, slopes).fit(self.loss, self.share, enough / 2)
        for place, name in enumerate(self.directions):
            if name in even:
                move.updates[place] = move.updates[place] @ even[name]
        before = float(self.loss(look.scores[None]))
        reached, length = self._move(move, before, losses)
        return Round(torch.cat(losses), before, move.promised, reached, move.penalty, length, self.share)

    def learn(self, before: float, promised: float, reached: float, promise: float) -> None:
        """Be more careful in the next round where this one gained less than half of what it promised, else less so.

        Args:
            before, promised, reached: as in ``Round``.
            promise: the share that a part starts with.
        """
        kept = reached < before and before - reached >= (before - promised) / 2
        self.share = max(promise, self.share**2) if kept else self.share**0.5

    def _move(self, move: Move, before: float, losses: list[Tensor]) -> tuple[float, float]:
        for length in LENGTHS:
            tried = {
                name: a + length * update for (name, a), update in zip(self.sides.items(), move.updates, strict=True)
            }
            self.write(tried)
            look = self.engine.look(list(self.directions))
            losses.append(self.loss(look.scores[None]))
            if float(losses[-1]) < before:
                self.now, self.sides = look, tried
                return float(losses[-1]), length
        self.now = None  # the engine keeps what the last length showed
        self.start()
        return before, 0.0

    def _slopes(
        self, name: str, look: Look, even: Tensor | None, step_size: float, centre: bool, losses: list[Tensor]
    ) -> list[Slopes]:
        """Probe the directions of a module, on texts and, where these have rows of their own, on labels."""
        size = step_size * look.outputs[name]
        absent = look.scores == -torch.inf
        inputs = look.inputs[name] if even is None else look.inputs[name] @ even.T
        sets = []
        for rows in self.engine.row_of_score:
            if not (rows >= 0).any():
                continue
            chosen = torch.zeros(self.engine.rows.count, dtype=torch.bool)
            chosen[rows[rows >= 0]] = True
            scores = self.engine.shifted(name, size * self.directions[name], chosen)
            losses.append(self.loss(scores))
            changes = ((scores.double() - look.scores) / size).masked_fill(absent, 0.0)
            if centre:
                mean = changes.sum(-1, keepdim=True) / (~absent).sum(-1, keepdim=True)
                changes = (changes - mean).masked_fill(absent, 0.0)
            usable = changes.isfinite().flatten(1).all(1)  # a probe whose scores are no numbers counts for nothing
            sets.append(Slopes(inputs, rows, torch.where(usable[:, None, None], changes, 0.0)))
        return sets


def _even(spread: Tensor) -> Tensor:
    """(in, in): a change of inputs after which those that vary within a row count for little.

    Probes add as much at every token of a row, and an update does so only as far as its tokens are alike to it.
    """
    ridge = spread.double().diagonal().mean()
    return torch.linalg.inv(
        torch.linalg.cholesky(spread.double() + ridge * torch.eye(len(spread), dtype=torch.float64))
    ).float()


def _varies(spread: Tensor) -> bool:
    """Whether inputs differ within a row, by numbers; those that are no numbers have no say anyway."""
    return bool(spread.isfinite().all() and spread.diagonal().mean() > 0)


def ignores_a_common_shift(loss: Loss, scores: Tensor) -> bool:
    """Whether a loss stays if all scores of an example rise by as much: then such a change is of no interest."""
    here, there = loss(scores[None]), loss(scores[None] + 1)
    return bool((here - there).abs() <= 1e-4 * here.abs().clamp(min=1e-2))


def no_updates(engine: ShiftEngine, directions: Sides) -> Sides:
    """A sides that change nothing."""
    sides: Sides = {}
    for name, rows in directions.items():
        module: Any = engine.model.get_submodule(name)
        sides[name] = torch.zeros(len(rows), module.lora_A["default"].weight.shape[1])
    return sides
