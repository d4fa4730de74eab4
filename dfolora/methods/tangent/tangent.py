"""Few rounds, each of them: look at what enters some modules, probe a few directions of what leaves them, solve, move.

The update of a module is B A, with orthonormal directions as the columns of B, which stay. A round looks at the
module's inputs where answers are read (one forward), adds a small step of each direction to the module's output there
(in a causal model that is a forward of one token), and so has the scores as a linear function of every A. Which A is
best is a convex problem. Its penalty is such that the linear model promises a share of the present loss, so that scores
stay nearly linear; then the next round linearises anew. It is the generalised Gauss-Newton method (Schraudolph 2002)
in function space, its kernel a neural tangent kernel (arXiv 1806.07572) of a few directions, from forwards alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dfolora.engine.edits import LowRank
from dfolora.engine.shifts import ShiftEngine
from dfolora.errors import UserError
from dfolora.log import Line, Step, checksum, finite
from dfolora.methods.method import Method
from dfolora.methods.tangent.part import LENGTHS, Loss, Part, Sides, ignores_a_common_shift, no_updates
from dfolora.models.adapter import Adapter
from dfolora.problems.objectives import loss_of_scores
from dfolora.problems.problem import Problem
from dfolora.seeds import seed_of

_LEAST_GAIN = 0.9  # a round that aims at more of the present loss than this is not worth its probes

_MOST_LOST = 1.1  # the result may have at most this share of the base model's loss on unseen examples
_HALVES = [half / 2 for half in range(-2, 13)]  # powers of 2 that scores are divided by
_OF_A_ROUND = ("from", "promised", "reached", "penalty", "length", "share")  # numbers in its note


class Tangent(Method[Problem[Adapter]]):
    """Fits the adapted modules to the training set and, from the start again, to the dev set; the mean is the result.

    So no example is given away to selection, and yet each of the two is judged by examples that it has not seen: where
    these lose clearly, the model stays as it was. With ``halves`` off the training set alone is fitted, and the dev set
    is the judge.

    Attributes:
        parts: the training set, and the dev set if that is fitted, too.
    """

    keeps_state = True

    def __init__(
        self,
        problem: Problem[Adapter],
        budget: int,
        directions: int = 4,
        promise: float = 0.4,
        enough: float = 0.05,
        step_size: float = 0.2,
        rounds: int = 8,
        halves: bool = True,
        seed: int = 0,
    ) -> None:
        """Draw the directions.

        Args:
            problem: its engine is a ``ShiftEngine``; the adapter's rank is ``directions`` for each part.
            budget: as for ``Method``.
            directions: K of each module.
            promise: share of the loss that a round aims at.
            enough: the loss at which a part is fitted.
            step_size: length of a probe, as a share of the length of the module's output.
            rounds: most rounds of a part.
            halves: whether the dev set is a part.
            seed: of the directions.

        Raises:
            UserError: the base model's own loss is not a number.
        """
        super().__init__(problem, budget)
        assert isinstance(problem.engine, ShiftEngine), "the problem was made with another engine"
        self.promise, self.enough, self.step_size, self.rounds = promise, enough, step_size, rounds
        self.adapter = problem.adapter
        problem.check_base()
        self.modules = {name: module for layer in self.adapter.layers for name, module in layer.modules.items()}
        dev = ShiftEngine(self.adapter, problem.selection.rows, problem.engine.chunk_tokens)
        self.sets = [
            (problem.engine, loss_of_scores(*problem.objective())),
            (dev, loss_of_scores(*problem.objective_on_dev())),
        ]
        self.parts = [
            self._part(number, engine, loss, directions, seed)
            for number, (engine, loss) in enumerate(self.sets[: 2 if halves else 1])
        ]
        label_rows = any((engine.row_of_score[1] >= 0).any() for engine, _ in self.sets)
        self.round_size = directions * len(self.modules) * (2 if label_rows else 1) + len(LENGTHS)
        needed = len(self.parts) * self.round_size + 1
        if budget < needed:
            raise UserError(f"budget: {budget} is less than one round of each half; {needed} is the least here")
        self._write([part.sides for part in self.parts], 1.0)
        self._verify(seed)
        for engine, _ in self.sets:
            engine.reset_counts()
        for part in self.parts:
            part.aim(step_size)
        self._count(dev)  # so that what it has cost counts for the first round
        self._unseen: Tensor | None = None  # (N, C) scores of the dev set under what is fitted to the training set
        self._dev: dict[str, Any] | None = None  # the same as a look at the dev set, and what it has cost
        self._dev_cost = 0
        self._base = Line()  # the model as it is
        self._kept: bool | None = None  # whether the result is the mean, not the model as it was; None: not decided

    def step(self, before: Line) -> Step:
        here = self._checksum()
        self._begin(before)
        number = self._whose_turn(before)
        if number is None:
            return self._join(here)
        part = self.parts[number]
        if not part.rounds:
            part.start()
        done = part.round(self.enough, self.step_size)
        note = {
            "part": number, "from": done.before, "promised": done.promised, "reached": done.reached,
            "penalty": done.penalty, "length": done.length, "share": done.share,
        }  # fmt: skip
        if number == 0:
            self._look_at_dev()
        else:
            self._count(part.engine)
        note = _plain(note)
        self._noted(part, _numbers(note))
        return Step(here, finite(done.losses), part.rounds, None, note)

    def repeat(self, before: Line, line: Line) -> None:
        """Follow the notes; ``restore`` loads the A sides."""
        self._begin(before)
        note, number = line.note or {}, self._whose_turn(before)
        if number is None and isinstance(kept := note.get("kept"), bool):
            self._kept = kept
            return
        if number is None or note.get("part") != number:
            raise UserError(f"resume: generation {line.generation} is not of the part whose turn it is")
        numbers = _numbers(note)
        if not all(isinstance(numbers.get(name), (int, float)) for name in _OF_A_ROUND):
            raise UserError(f"resume: the note of generation {line.generation} is not that of a round")
        self._noted(self.parts[number], numbers)

    def is_stuck(self, line: Line) -> bool:
        return self._kept is not None

    def look_is_due(self, before: Line, line: Line) -> bool:
        return True

    def looks(self, evaluations: int) -> int:
        return 0

    def look(self, line: Line) -> None:
        """Note what the dev set shows of the first part, and keep it until the result is there."""
        selection = self.problem.selection
        if line.dev is None and self._dev is not None:
            line.dev, self._dev = self._dev, None
            line.dev_token_layers += self._dev_cost
        note = line.note or {}
        if "kept" in note or note.get("part") == 0:
            selection.best = line if note.get("kept", True) else self._base
            selection.state = self.adapter.state()

    # -- rounds -----------------------------------------------------------------------------------------------------

    def _part(self, number: int, engine: ShiftEngine, loss: Loss, directions: int, seed: int) -> Part:
        generator = torch.Generator().manual_seed(seed_of(seed, f"directions {number}"))
        drawn = {}
        for name, module in self.modules.items():
            normal = torch.randn(module.out_features, directions, generator=generator)
            drawn[name] = torch.linalg.qr(normal)[0].T.contiguous()

        def write(sides: Sides) -> None:
            others = [no_updates(part.engine, part.directions) for part in self.parts]
            others[number] = sides
            self._write(others, 1.0)

        return Part(engine, loss, drawn, write, no_updates(engine, drawn), self.promise)

    def _write(self, sides: list[Sides], share: float) -> None:
        """Make A sides of all parts, side by side, the incumbents; each counts by a share."""
        for index, layer in enumerate(self.adapter.layers):
            factors = {}
            for name in layer.modules:
                a = torch.cat([each[name] for each in sides])
                b = torch.cat([part.directions[name] for part in self.parts]).T
                factors[name] = (share * a[None], b[None])
            self.adapter.write(index, factors)

    def _begin(self, before: Line) -> None:
        """Note what the log says of the base model, which is the result where unseen examples lose by the fit."""
        if before.generation == 0:
            self._base = before

    def _whose_turn(self, before: Line) -> int | None:
        """The part that the next round is of; None where all are done."""
        for number, part in enumerate(self.parts):
            spent = before.evaluations + self.round_size  # and one evaluation of the mean comes last
            if not part.done and spent <= (self.budget - 1) * (number + 1) // len(self.parts):
                return number
        return None

    def _noted(self, part: Part, note: dict[str, Any]) -> None:
        part.rounds += 1
        part.learn(note["from"], note["promised"], note["reached"], self.promise)
        part.done = note["reached"] < self.enough or part.share > _LEAST_GAIN or part.rounds >= self.rounds

    def _look_at_dev(self) -> None:
        engine, _ = self.sets[1]
        self._unseen = engine.incumbent_scores().cpu()
        self._dev, self._dev_cost = self._dev_result(self._unseen), engine.token_layers
        engine.reset_counts()

    def _join(self, here: str) -> Step:
        """Write the mean of the parts, or the model as it was where unseen examples lose by it."""
        assert self._unseen is not None, "the first part has had its rounds"
        (train, train_loss), (_, dev_loss) = self.sets
        tuned, base = [(dev_loss, self._unseen)], []
        if len(self.parts) == 2:
            tuned.append((train_loss, train.incumbent_scores().cpu()))  # of what is fitted to the dev set
            base = [(dev_loss, self.parts[1].base), (train_loss, self.parts[0].base)]
        else:
            self._write([no_updates(part.engine, part.directions) for part in self.parts], 1.0)
            base = [(dev_loss, self.sets[1][0].incumbent_scores().cpu())]
            self._count(self.sets[1][0])
        losses = _calibrated(tuned), _calibrated([(loss, scores) for loss, scores in base if scores is not None])
        self._kept = losses[0] <= _MOST_LOST * losses[1]
        self._write_result()
        reached = train_loss(train.incumbent_scores().cpu()[None])
        if not bool(reached.isfinite()):
            self._kept = False
            self._write_result()
        self._dev = self._dev_result(self._unseen) if self._kept else self._base.dev
        self._dev_cost = 0
        return Step(here, finite(reached), note=_plain({"kept": self._kept, "unseen": losses[0], "before": losses[1]}))

    def _write_result(self) -> None:
        self._write([part.sides for part in self.parts], 1 / len(self.parts) if self._kept else 0.0)

    def _dev_result(self, scores: Tensor) -> dict[str, Any]:
        """What the dev set shows, as ``Selection`` would measure it; from its class scores (N, C)."""
        selection = self.problem.selection
        loss = float(selection.loss(scores[None], selection.labels.cpu()).mean())
        metrics = selection.task.measure(selection.dev, scores.argmax(-1).tolist())
        return {
            "metrics": metrics, "main": selection.task.main(metrics), "loss": loss if math.isfinite(loss) else None
        }  # fmt: skip

    def _count(self, other: ShiftEngine) -> None:
        """Add what another engine has run to the counts of the run."""
        engine = self.problem.engine
        engine.token_layers += other.token_layers
        engine.forwards += other.forwards
        other.reset_counts()

    def _verify(self, seed: int) -> None:
        """Compare the engines with one candidate at a time, on two candidates of a module in the middle.

        Then look once, so that it is settled how shifts run: a run that is resumed must find the same.
        """
        name = list(self.modules)[len(self.modules) // 2]
        a, b = self.modules[name].factors()
        generator = torch.Generator().manual_seed(seed_of(seed, "verification"))
        sides = torch.randn(2, *a.shape, generator=generator) / a.shape[1] ** 0.5
        for engine, _ in self.sets:
            engine.verify({name: LowRank(sides.to(a), b.detach().expand(2, *b.shape))})
        for part in self.parts:
            part.engine.look(list(part.directions))

    def _checksum(self) -> str:
        sides = [module.factors()[0].detach().float().flatten().cpu() for module in self.modules.values()]
        return checksum(torch.cat(sides)[None])

    # -- interruption -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The A sides of both parts, and scores that the end asks for."""
        tensors = {} if self._unseen is None else {"unseen": self._unseen}
        for number, part in enumerate(self.parts):
            tensors.update({f"{number}/{name}": a.contiguous() for name, a in part.sides.items()})
            if part.base is not None:
                tensors[f"{number}"] = part.base
        return tensors

    def restore(self, tensors: dict[str, Tensor], after: Line | None) -> None:
        if not tensors:
            return
        try:
            self._unseen = tensors["unseen"]
            for number, part in enumerate(self.parts):
                sides = {name: tensors[f"{number}/{name}"] for name in self.modules}
                if any(sides[name].shape != part.sides[name].shape for name in sides):
                    raise ValueError("its shapes are others")
                part.sides = sides
                part.base = tensors[f"{number}"] if part.rounds else None
            self._stand_where_the_log_ends()
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"resume: the saved state belongs to another model ({error})") from error
        if after is not None and after.checksum != self._checksum():
            raise UserError("resume: the saved state is not the one that was logged")

    def _stand_where_the_log_ends(self) -> None:
        selection = self.problem.selection
        if self._kept is not None:
            self._write_result()
            selection.state = self.adapter.state()
            return
        if selection.best.generation:
            self.parts[0].write(self.parts[0].sides)
            selection.state = self.adapter.state()
        started = [part for part in self.parts if part.rounds]
        if started:
            started[-1].start()
        for engine, _ in self.sets:
            engine.reset_counts()


def _calibrated(unseen: list[tuple[Loss, Tensor]]) -> float:
    """The mean loss of some scores, at the temperature that suits them best where the loss compares classes.

    Scores that rank well but are too sure of themselves are no reason to keep the model as it was.
    """
    compares = all(ignores_a_common_shift(loss, scores) for loss, scores in unseen)
    totals = [
        sum(float(loss(scores[None] * 2**-half)) for loss, scores in unseen) / len(unseen)
        for half in (_HALVES if compares else (0.0,))
    ]
    return min((total for total in totals if math.isfinite(total)), default=math.inf)


def _plain(note: dict[str, Any]) -> dict[str, Any]:
    """A note as JSON can hold it: None where a number is none."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in note.items()
    }


def _numbers(note: dict[str, Any]) -> dict[str, Any]:
    """What ``_plain`` has made of a note, with NaN where it has None."""
    return {name: math.nan if value is None else value for name, value in note.items()}
