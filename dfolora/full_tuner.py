"""All weights of a model tuned without gradients, in a run folder like any other: the papers' "FT" rows.

Everything around ``FullParameter`` is what the other methods have: the same reading of the model, objective, few-shot
set, looks at the dev set, accounting and log. The weights of a run are a few numbers for each step, in
``steps.jsonl``: with the weights that it began with they give those of any step, without a forward.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfolora.answers import Answers
from dfolora.bare import Bare
from dfolora.config import TuneConfig
from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.first_order import LOOKS
from dfolora.full_parameter import FullParameter, Log, Step
from dfolora.objectives import make_objective
from dfolora.run import Generation, Run
from dfolora.scoring import Scorer
from dfolora.selection import Selection
from dfolora.task import Example
from dfolora.tuner import Progress, check_base, digest, draw

LR = 1e-6
STEPS = "steps.jsonl"


class FullTuner:
    """Tunes all weights of a model on a few-shot set.

    Attributes:
        engine: the training batch.
        selection: the dev set, and the step that it likes best so far.
        weights: what moves the model.
        last: the line of the log at which the run stands, and the model with it.
    """

    def __init__(
        self, bare: Bare, scorer: Scorer, train: Sequence[Example], dev: Sequence[Example], config: TuneConfig
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
        self.last = self.selection.best

    def prepare(self, resume: Run | None = None) -> None:
        """Bring the weights to where an interrupted run goes on.

        Raises:
            UserError: the base model's own loss is not a number; the run's steps are damaged or of other weights.
        """
        check_base(self.engine, self.labels, self.config)
        self.engine.reset_counts()
        if resume is None or not resume.replay:
            return
        log = Log.load(resume.folder / STEPS)
        done = min(len(log.steps), resume.replay[-1].generation)  # one of the two files may be a step ahead
        log.steps = log.steps[:done]
        resume.rewind(done)
        log.save(resume.folder / STEPS)
        self.selection.begin(resume, resume.replay[0])
        self.weights.replay(log)
        for line in resume.replay[1:]:
            if line.dev:
                self.selection.choose(line)

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
            before, state = state, self._line(state, here, step, started)
            if self._look_is_due(before, state):
                self.selection.look(state)
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

    def _line(self, before: Generation, here: str, step: Step, started: float) -> Generation:
        """The log's line for a step; the checksum is of the weights before it."""
        line = Generation(
            generation=before.generation + 1,
            sweep=before.generation + 1,
            layer=None,
            checksum=here,
            losses=step.losses,
            evaluations=before.evaluations + len(step.losses),
            token_layers=before.token_layers + self.engine.token_layers,
            forwards=before.forwards + self.engine.forwards,
            seconds=round(before.seconds + time.perf_counter() - started, 4),
            dev_token_layers=before.dev_token_layers,
        )
        self.engine.reset_counts()
        return line

    def _look_is_due(self, before: Generation, state: Generation) -> bool:
        every = self.config.dev_every or max(1, self.config.budget // LOOKS)
        last = state.evaluations + self.config.generation_size > self.config.budget and not self.config.dev_every
        return last or state.evaluations // every > before.evaluations // every


def moved_by(config: TuneConfig, model: Any, loss: Any) -> FullParameter:
    """What moves a model's weights as a run is configured to."""
    return FullParameter(
        model, loss, config.optimizer, config.population, config.sigma, config.lr or LR, config.seed,
        config.paper_scale, config.best_share or 0.5,
    )  # fmt: skip


def replay(config: TuneConfig, model: Any, folder: Path, steps: int) -> None:
    """Move a model, which stands where a run began, to where the run was after some steps.

    Raises:
        UserError: the steps are damaged or of other weights.
    """
    log = Log.load(folder / STEPS)
    if len(log.steps) < steps:
        raise UserError(f"--resume: {str(folder / STEPS)!r} has {len(log.steps)} steps; {steps} are needed")
    log.steps = log.steps[:steps]
    moved_by(config, model, _no_loss).replay(log)


def _no_loss() -> Tensor:
    return torch.tensor(torch.nan)
