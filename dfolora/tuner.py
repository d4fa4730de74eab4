"""The loop: layers in alternation, a population per generation, the incumbent of each layer written as it moves.

DFO-LoRA (arXiv 2403.01754): one optimizer per layer, ascending sweeps. Where this departs from the released code
(unless ``--preset dfo-lora`` asks for it): a layer holds the optimizer's incumbent rather than a best-ever candidate
whose loss is stale; the dev set looks at incumbents, never at a stray sample; the base model is a candidate too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfolora import statistics
from dfolora.adapter import Adapter, Factors
from dfolora.config import TuneConfig
from dfolora.engine import Engine, Rows, SequentialEngine
from dfolora.errors import UserError
from dfolora.objectives import cross_entropy, make_objective
from dfolora.optimizers import Optimizer, make_optimizer
from dfolora.run import Generation, Run, checksum, finite
from dfolora.scoring import Scorer
from dfolora.subspaces import Measured, Subspace, subspace_class
from dfolora.task import Example, Metrics

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
        engine, dev_engine: the training and the dev batch.
        best, last: the lines of the log whose adapter is selected, and at which the run stands.
        base_dev: the base model's metrics on the dev set.
    """

    def __init__(
        self, adapter: Adapter, scorer: Scorer, train: Sequence[Example], dev: Sequence[Example], config: TuneConfig
    ) -> None:
        self.adapter = adapter
        self.config = config
        self.scorer = scorer
        self.train, self.dev = train, dev
        rows = scorer.encode(train)
        dev_rows = scorer.encode(dev)
        self.data_checksum = _digest([rows, dev_rows])
        engine = SequentialEngine if config.engine == "sequential" else Engine
        self.engine = engine(adapter, rows, config.chunk_tokens)
        self.dev_engine = Engine(adapter, dev_rows, config.chunk_tokens)
        device = self.engine.rows.owner.device
        self.labels, self.dev_labels = scorer.labels(train).to(device), scorer.labels(dev).to(device)
        self.objective = make_objective(config.objective, self._measure(train))
        self.places: list[Place] = []
        self.best = self.last = Generation(0, 0, None, "", [], 0, 0, 0, 0.0)
        self.base_dev: Metrics = {}
        self._selected = adapter.state()

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
        loss = cross_entropy(self.engine.incumbent_scores()[None], self.labels)
        if not bool(loss.isfinite().all()):
            raise UserError(f"--dtype: the model's own loss is {float(loss)} in {config.dtype}; try --dtype float32")
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
        adapter, replay = self.adapter, iter(run.replay)
        state = self.best = next(replay, None) or self._look_at_base(run)
        self.base_dev = state.dev["metrics"] if state.dev else {}
        self._selected = adapter.state()
        progress(state, self.best)
        while state.evaluations + self.config.population <= self.config.budget:
            started = time.perf_counter()
            place = self.places[state.generation // self.config.visit % len(self.places)]
            if self.config.batch and place.optimizer.begins:
                place.batch = self._draw(state.generation)
            z = place.optimizer.ask()
            logged = next(replay, None)
            losses = self._losses(place, z) if logged is None else _replayed(run, logged, z)
            place.optimizer.tell(losses)
            place.write(adapter, place.factors(place.optimizer.incumbent()[None]))
            before, state = state, logged or self._line(state, place, z, losses, started)
            if self._look_is_due(before, state):
                self._look(state, place, z)
            if logged is None:
                run.log(state)
                progress(state, self.best)
        self.last = state
        adapter.restore(self._selected)

    # -- parts of the loop ------------------------------------------------------------------------------------------

    def _draw(self, generation: int) -> Tensor:
        """The examples of a minibatch, (n,) int64 in ascending order: a function of the seed and the generation."""
        generator = torch.Generator().manual_seed(_seed(self.config.seed, f"batch {generation}"))
        return torch.randperm(len(self.train), generator=generator)[: self.config.batch].sort().values

    def _losses(self, place: Place, z: Tensor) -> Tensor:
        """(P,) float32 on the CPU."""
        factors, batch = place.factors(z), place.batch
        if batch is None:
            return self.objective(self.engine.scores(place.layer, factors), self.labels).cpu()
        objective = make_objective(self.config.objective, self._measure([self.train[i] for i in batch.tolist()]))
        return objective(
            self.engine.scores(place.layer, factors, batch), self.labels[batch.to(self.labels.device)]
        ).cpu()

    def _line(self, before: Generation, place: Place, z: Tensor, losses: Tensor, started: float) -> Generation:
        """The log's line for a generation that has just been told."""
        line = Generation(
            generation=before.generation + 1,
            sweep=before.generation // (self.config.visit * len(self.places)) + 1,
            layer=place.layer,
            checksum=checksum(z),
            losses=finite(losses),
            evaluations=before.evaluations + len(z),
            token_layers=before.token_layers + self.engine.token_layers,
            forwards=before.forwards + self.engine.forwards,
            seconds=round(before.seconds + time.perf_counter() - started, 4),
            dev_token_layers=before.dev_token_layers,
        )
        self.engine.reset_counts()
        return line

    def _look_at_base(self, run: Run) -> Generation:
        """Line 0 of the log: the base model on the dev set."""
        state = Generation(0, 0, None, "", [], 0, 0, 0, 0.0)
        self._measure_dev(state)
        run.log(state)
        return state

    def _look_is_due(self, before: Generation, state: Generation) -> bool:
        every = self.config.dev_every
        if every:
            return state.evaluations // every > before.evaluations // every
        last = state.evaluations + self.config.population > self.config.budget
        return last or state.generation % (self.config.visit * len(self.places)) == 0

    def _look(self, state: Generation, place: Place, z: Tensor) -> None:
        """Show the adapter to the dev set, unless the log has that already, and select on what it says."""
        kept = None
        if self.config.selection == "sample":  # the release looks at the candidate that happens to be loaded
            kept = self.adapter.state()
            place.write(self.adapter, place.factors(z[-1:]))
        if state.dev is None:
            self._measure_dev(state)
        self._select(state)
        if kept is not None:
            self.adapter.restore(kept)

    def _measure_dev(self, state: Generation) -> None:
        scores = self.dev_engine.incumbent_scores()
        metrics = self.scorer.task.measure(self.dev, scores.argmax(-1).tolist())
        loss = finite(cross_entropy(scores[None], self.dev_labels))[0]
        state.dev = {"metrics": metrics, "main": self.scorer.task.main(metrics), "loss": loss}
        state.dev_token_layers += self.dev_engine.token_layers
        self.dev_engine.reset_counts()

    def _select(self, state: Generation) -> None:
        """Keep the adapter as it stands if the dev set likes it better; ties go to the lower dev loss."""
        if self.config.selection == "sample":  # the release: strictly better only, and the base is no candidate
            better = self.best.generation == 0 or _main(state) > _main(self.best)
        else:
            better = _rank(state) > _rank(self.best)
        if better:
            self.best = state
            self._selected = self.adapter.state()

    def _measure(self, examples: Sequence[Example]) -> Callable[[list[int]], float]:
        task = self.scorer.task
        return lambda predictions: task.main(task.measure(examples, predictions))


def _main(state: Generation) -> float:
    """The dev metric; of an adapter that broke the model, whose predictions are luck, the worst there is."""
    return float(state.dev["main"]) if state.dev and state.dev["loss"] is not None else float("-inf")


def _rank(state: Generation) -> tuple[float, float]:
    main = _main(state)
    return main, -state.dev["loss"] if state.dev and main > float("-inf") else float("-inf")


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


def _digest(batches: Sequence[Rows]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for rows in batches:
        tensors: list[Any] = [*rows.inputs.values(), rows.positions, rows.owner, rows.columns, rows.targets]
        for tensor in tensors:
            digest.update(b"" if tensor is None else tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
