"""The loop: layers in alternation, a population per generation, the incumbent of each layer written as it moves.

DFO-LoRA (arXiv 2403.01754): one optimizer per layer, ascending sweeps. Where this departs from the released code
(unless ``--preset dfo-lora`` asks for it): a layer holds the optimizer's incumbent rather than a best-ever candidate
whose loss is stale; the dev set looks at incumbents, never at a stray sample; the base model is a candidate too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Engine, Rows, SequentialEngine
from dfolora.errors import UserError
from dfolora.models.adapter import Adapter, Factors
from dfolora.optimizers import Optimizer, make_optimizer
from dfolora.optimizers.ahead import threads, threads_beside
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import Objective, cross_entropy, make_objective
from dfolora.problems.selection import Selection
from dfolora.runs.folder import Generation, Run, checksum, finite
from dfolora.settings.config import TuneConfig
from dfolora.subspaces import Measured, Subspace, subspace_class
from dfolora.subspaces import measure as statistics
from dfolora.task import Example

Progress = Callable[[Generation, Generation], None]
"""Called after each generation with it and the generation whose adapter is selected so far."""


@dataclass
class Place:
    """One thing that an optimizer searches: a layer, or all layers at once (``layer`` None)."""

    layer: int | None
    optimizer: Optimizer
    subspaces: list[Subspace]
    batch: Tensor | None = None  # the examples of the step that it is in, (n,) int64; None: all

    def factors(self, z: Tensor) -> Factors:
        """z (P, d), the layers' numbers side by side, to factors of all the layers it covers."""
        parts = z.split([subspace.dim for subspace in self.subspaces], dim=1)
        out: Factors = {}
        for subspace, part in zip(self.subspaces, parts, strict=True):
            out.update(subspace.factors(part))
        return out

    def write(self, adapter: Adapter, factors: Factors) -> None:
        for index, layer in enumerate(adapter.layers):
            if self.layer in (None, index):
                adapter.write(index, {name: factors[name] for name in layer.modules})


class Tuner:
    """Tunes an adapter on a few-shot set.

    Attributes:
        adapter: holds the incumbents while running, the selected ones afterwards.
        engine: the training batch.
        selection: the dev set, and the adapter that it likes best so far.
        last: the line of the log at which the run stands.
    """

    def __init__(
        self,
        adapter: Adapter,
        scorer: PromptEncoder,
        train: Sequence[Example],
        dev: Sequence[Example],
        config: TuneConfig,
    ) -> None:
        self.adapter = adapter
        self.config = config
        self.scorer, self.train = scorer, train
        rows = scorer.encode(train)
        self.selection = Selection(adapter, scorer, dev, config.selection, config.chunk_tokens)
        self.data_checksum = digest([rows, self.selection.rows])
        engine = SequentialEngine if config.engine == "sequential" else Engine
        self.engine = engine(adapter, rows, config.chunk_tokens)
        self.labels = scorer.labels(train).to(self.engine.rows.owner.device)
        self.objective = self._objective(train)
        self.answers: Answers | None = None
        if scorer.task.new_tokens and config.objective == "metric":  # of texts, which no class scores can tell
            self.answers = Answers(self.engine, scorer, train)
        self.places: list[Place] = []
        self.last = self.selection.best

    def prepare(self, measured: list[Measured] | None = None) -> list[Measured]:
        """Build every layer's optimizer and subspace; the incumbents start at z = 0.

        Args:
            measured: what the subspaces took from the data before, for a run that goes on; None: measure it now.

        Returns:
            What they took from the data, to be kept with the run.

        Raises:
            UserError: the base model's own loss is not a number; a setting that no subspace or optimizer can work with.
        """
        config, layers = self.config, self.adapter.layers
        check_base(self.engine, self.labels, config)
        kind = subspace_class(config.subspace)
        if measured is None:
            measured = statistics.measure(self.adapter, self.engine, kind, config.rank, config.seed)
        device = self.engine.rows.owner.device
        subspaces = [
            kind(layer, part, config.rank, config.subspace_dim, config.seed, config.scale, device)
            for layer, part in zip(layers, measured, strict=True)
        ]
        groups = [subspaces] if config.mode == "joint" else [[subspace] for subspace in subspaces]
        generations = config.budget // (config.population * len(groups))
        for index, group in enumerate(groups):
            optimizer = make_optimizer(
                config.optimizer, sum(subspace.dim for subspace in group), population=config.population,
                sigma=config.sigma, seed=_seed(config.seed, f"layer {index}"), generations=max(1, generations),
                bound=config.bound or None, **config.optimizer_options,
            )  # fmt: skip
            place = Place(None if config.mode == "joint" else index, optimizer, group)
            place.write(self.adapter, place.factors(torch.zeros(1, optimizer.dim)))
            self.places.append(place)
        self.engine.reset_counts()
        return measured

    def fit(self, run: Run, progress: Progress = lambda state, best: None) -> None:
        """Search until the budget is spent, after replaying what the run's log holds; then load the selected adapter.

        Raises:
            UserError: a replayed population is not the logged one.
        """
        with threads(threads_beside(self.engine.rows.owner.device)) as workers:
            self._search(run, progress, workers)
        self.selection.restore()

    # -- parts of the loop ------------------------------------------------------------------------------------------

    def _search(self, run: Run, progress: Progress, workers: Executor) -> None:
        adapter, replay = self.adapter, iter(run.replay)
        state = self.selection.begin(run, next(replay, None))
        progress(state, self.selection.best)
        while state.evaluations + self.config.population <= self.config.budget:
            started = time.perf_counter()
            place = self.places[state.generation // self.config.visit % len(self.places)]
            if self.config.batch and place.optimizer.begins:
                place.batch = draw(self.config.seed, state.generation, len(self.train), self.config.batch)
            z = place.optimizer.ask()
            logged = next(replay, None)
            losses = self._losses(place, z) if logged is None else _replayed(run, logged, z)
            place.optimizer.tell(losses)
            place.optimizer.ask_ahead(workers)  # while other layers are scored, this one's next population is drawn
            place.write(adapter, place.factors(place.optimizer.incumbent()[None]))
            before, state = state, logged or self._line(state, place, z, losses, started)
            if self._look_is_due(before, state):
                self._look(state, place, z)
            if logged is None:
                run.log(state)
                progress(state, self.selection.best)
        self.last = state

    def _objective(self, examples: Sequence[Example]) -> Objective:
        """Of the class scores of some examples."""
        task = self.scorer.task
        return make_objective(
            self.config.objective, lambda found: task.main(task.measure(examples, found)), task.new_tokens > 0
        )

    def _losses(self, place: Place, z: Tensor) -> Tensor:
        """(P,) float32 on the CPU."""
        factors, batch = place.factors(z), place.batch
        if self.answers is not None:
            return self.answers.losses(factors, batch)
        if batch is None:
            return self.objective(self.engine.scores(factors), self.labels).cpu()
        objective = self._objective([self.train[i] for i in batch.tolist()])
        return objective(self.engine.scores(factors, batch), self.labels[batch.to(self.labels.device)]).cpu()

    def _line(self, before: Generation, place: Place, z: Tensor, losses: Tensor, started: float) -> Generation:
        """The log's line for a generation that has just been told."""
        sweep = before.generation // (self.config.visit * len(self.places)) + 1
        return before.next(self.engine, checksum(z), finite(losses), started, sweep, place.layer)

    def _look_is_due(self, before: Generation, state: Generation) -> bool:
        every = self.config.dev_every
        if every:
            return state.evaluations // every > before.evaluations // every
        last = state.evaluations + self.config.population > self.config.budget
        return last or state.generation % (self.config.visit * len(self.places)) == 0

    def _look(self, state: Generation, place: Place, z: Tensor) -> None:
        """Show the incumbents to the dev set, or in the release's way the last candidate."""
        kept = None
        if self.config.selection == "sample":  # the release looks at the candidate that happens to be loaded
            kept = self.adapter.state()
            place.write(self.adapter, place.factors(z[-1:]))
        self.selection.look(state)
        if kept is not None:
            self.adapter.restore(kept)


def draw(seed: int, generation: int, examples: int, batch: int) -> Tensor:
    """The examples of a minibatch, (n,) int64 in ascending order: a function of the seed and the generation."""
    generator = torch.Generator().manual_seed(_seed(seed, f"batch {generation}"))
    return torch.randperm(examples, generator=generator)[:batch].sort().values


def check_base(engine: Engine, labels: Tensor, config: TuneConfig) -> None:
    """Raise UserError where the base model's own loss is not a number, or its scores are none for the objective."""
    if config.objective == "likelihood" and engine.rows.targets is None:
        raise UserError(
            "--objective: likelihood is for answers of several tokens, whose scores are log-probabilities; this task "
            "has label words or sentences: choose cross-entropy, hinge or metric"
        )
    loss = cross_entropy(engine.incumbent_scores()[None], labels)
    if not bool(loss.isfinite().all()):
        raise UserError(f"--dtype: the model's own loss is {float(loss)} in {config.dtype}; try --dtype float32")


def _replayed(run: Run, logged: Generation, z: Tensor) -> Tensor:
    """The logged losses of a population, if it is the one that was logged."""
    if logged.checksum != checksum(z):
        raise UserError(
            f"--resume: {str(run.folder)!r} cannot go on: the population rebuilt for generation {logged.generation} "
            "is not the logged one; the versions in environment.json, or the run's files, have changed"
        )
    losses = logged.loss_tensor()
    if losses.shape != (len(z),):
        raise UserError(
            f"--resume: {str(run.folder)!r} cannot go on: generation {logged.generation} has {len(logged.losses)} "
            f"losses for {len(z)} candidates"
        )
    return losses


def _seed(seed: int, what: str) -> int:
    """A seed of its own for a layer or a batch, so that layers do not search along the same draws."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{what}".encode(), digest_size=4).digest(), "little")


def digest(batches: Sequence[Rows]) -> str:
    """A checksum of encoded batches: of the data and the tokenizer."""
    total = hashlib.blake2b(digest_size=8)
    for rows in batches:
        tensors: list[Any] = [*rows.inputs.values(), rows.positions, rows.owner, rows.columns, rows.targets]
        for tensor in tensors:
            total.update(b"" if tensor is None else tensor.cpu().numpy().tobytes())
    return total.hexdigest()
