"""All weights of a model tuned without gradients, in a run folder like any other: the papers' "FT" rows.

Everything around ``FullParameter`` is what the other methods have: the same reading of the model, objective, few-shot
set, looks at the dev set, accounting and log. The weights of a run are a few numbers for each step, in
``steps.jsonl``: with the weights that it began with they give those of any step, without a forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.methods.first_order import look_is_due
from dfolora.methods.full_parameter import FullParameter, Log, Step
from dfolora.methods.search import Progress, check_base, digest, draw
from dfolora.models.bare import Bare
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import make_objective
from dfolora.problems.selection import Selection
from dfolora.runs.folder import Generation, Run
from dfolora.settings.config import TuneConfig
from dfolora.task import Example

LR = 1e-6
BEST_SHARE = 0.5
STEPS = "steps.jsonl"


class FullTuner:
    """Tunes all weights of a model on a few-shot set.

    Attributes:
        engine: the training batch.
        selection: the dev set, and the step that it likes best so far.
        weights: what moves the model.
        chosen: fingerprint of the weights after that step.
        last: the line of the log at which the run stands, and the model with it.
    """

    def __init__(
        self, bare: Bare, scorer: PromptEncoder, train: Sequence[Example], dev: Sequence[Example], config: TuneConfig
    ) -> None:
        self.config = config
        self.scorer, self.train = scorer, train
        rows = scorer.encode(train)
        self.selection = Selection(bare, scorer, dev, "incumbent", config.chunk_tokens)
        self.data_checksum = digest([rows, self.selection.rows])
        self.engine = Engine(bare, rows, config.chunk_tokens)
        self.labels = scorer.labels(train).to(self.engine.rows.owner.device)
        self.answers: Answers | None = None
        if scorer.task.new_tokens and config.objective == "metric":
            self.answers = Answers(self.engine, scorer, train)
        self.batch: Tensor | None = None
        self.weights = moved_by(config, bare.model, self._loss)
        self.chosen = self.weights.log.base
        self.last = self.selection.best

    def prepare(self, resume: Run | None = None) -> None:
        """Bring the weights to where an interrupted run goes on.

        Raises:
            UserError: the base model's own loss is not a number; the run's steps are damaged, or not those of its log.
        """
        check_base(self.engine, self.labels, self.config)
        self.engine.reset_counts()
        if resume is None or not resume.replay:
            return
        steps = resume.folder / STEPS
        log = load(steps)
        done = min(len(log.steps), resume.replay[-1].generation)  # one of the two files may be a step ahead
        log.steps = log.steps[:done]
        self.selection.begin(resume, resume.replay[0])

        def check(step: Step) -> None:
            before, line = resume.replay[step.step : step.step + 2]
            if before.dev and before.generation:
                self.selection.choose(before)
                self._mark(before)
            if (self.weights.point.fingerprint(), step.losses) != (line.checksum, line.losses):
                raise UserError(
                    f"--resume: {str(steps)!r}, step {step.step}: the weights before it or its losses are not those of "
                    "log.jsonl; one of the files, or a version in environment.json, has changed"
                )

        repeat(self.weights, log, steps, check)
        last = resume.replay[done]
        if last.dev and done:
            self.selection.choose(last)
            self._mark(last)
        resume.rewind(done)
        log.save(steps)

    def fit(self, run: Run, progress: Progress = lambda state, best: None) -> None:
        """Step until the budget is spent. The model then stands at the last step, whichever was the best."""
        if not run.replay:
            self.weights.log.save(run.folder / STEPS)
        state = run.replay[-1] if run.replay else self.selection.begin(run, None)
        progress(state, self.selection.best)
        while state.evaluations + self.config.generation_size <= self.config.budget:
            started = time.perf_counter()
            if self.config.batch:
                self.batch = draw(self.config.seed, state.generation, len(self.train), self.config.batch)
            here = self.weights.point.fingerprint()
            step = self.weights.step()
            before, state = state, state.next(self.engine, here, step.losses, started)
            if look_is_due(self.config, self.config.generation_size, before, state):
                self._look(state)
            step.append(run.folder / STEPS)
            run.log(state)
            progress(state, self.selection.best)
        self.last = state

    # -- parts of the loop ------------------------------------------------------------------------------------------

    def _loss(self) -> Tensor:
        """The loss of the model as it stands on the step's examples."""
        if self.answers is not None:
            return self.answers.losses({}, self.batch)[0]
        examples, labels = self.train, self.labels
        if self.batch is not None:
            examples, labels = [self.train[i] for i in self.batch.tolist()], labels[self.batch.to(labels.device)]
        task = self.scorer.task
        objective = make_objective(
            self.config.objective, lambda found: task.main(task.measure(examples, found)), task.new_tokens > 0
        )
        return objective(self.engine.incumbent_scores(self.batch)[None], labels)[0]

    def _look(self, state: Generation) -> None:
        self.selection.look(state)
        self._mark(state)

    def _mark(self, state: Generation) -> None:
        """Remember the weights by their fingerprint if it is they that the dev set likes best."""
        if self.selection.best is state:
            self.chosen = self.weights.point.fingerprint()


def moved_by(config: TuneConfig, model: Any, loss: Callable[[], Tensor]) -> FullParameter:
    """What moves a model's weights as a run is configured to."""
    return FullParameter(
        model, loss, config.optimizer, config.population, config.sigma, config.lr or LR, config.seed,
        config.paper_scale, config.best_share or BEST_SHARE,
    )  # fmt: skip


def replay(config: TuneConfig, model: Any, run: Path, steps: int, chosen: str) -> None:
    """Move a model, which stands where a run began, to where the run was after some steps.

    Args:
        config: of the run.
        model: the weights that it began with.
        run: its folder.
        steps: how many.
        chosen: fingerprint of the weights that are to come out.

    Raises:
        UserError: the steps are damaged, or of other weights.
    """
    log = load(run / STEPS)
    log.steps = log.steps[:steps]
    mover = moved_by(config, model, lambda: torch.tensor(torch.nan))
    repeat(mover, log, run / STEPS)
    if mover.point.fingerprint() != chosen:
        raise UserError(f"--model: {str(run / STEPS)!r} does not lead to the weights that were chosen; has it changed?")


def load(steps: Path) -> Log:
    try:
        return Log.load(steps)
    except UserError as error:
        raise UserError(f"--resume: {error}") from error


def repeat(mover: FullParameter, log: Log, steps: Path, check: Callable[[Step], None] = lambda step: None) -> None:
    """``FullParameter.replay`` with errors that name the run's file."""
    try:
        mover.replay(log, check)
    except UserError as error:
        if str(error).startswith("--resume"):
            raise
        raise UserError(f"--model: {str(steps)!r} cannot be repeated, has the model changed? {error}") from error
