"""Black-box search: one population a step, layer after layer; each layer holds its optimizer's incumbent.

DFO-LoRA (arXiv 2403.01754): one optimizer per layer, ascending sweeps. Where this departs from the released code
(unless the preset ``dfo-lora`` asks for it): a layer holds the optimizer's incumbent rather than a best-ever candidate
whose loss is stale; the dev set looks at incumbents, never at a stray sample; the base model is a candidate too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.log import Line, Step, checksum, finite
from dfolora.methods.method import Method
from dfolora.optimizers import Optimizer
from dfolora.optimizers.ahead import threads, threads_beside
from dfolora.problems.adapters import AdapterProblem
from dfolora.seeds import seed_of

TRIAL_SHARE = 100  # evaluations of a run for each candidate that a trial scores

MakeOptimizer = Callable[[int, int], Optimizer]
"""(index of the part, d) -> its optimizer."""


class Search(Method[AdapterProblem]):
    """Searches the parts of a problem in turn: a step asks for a population, scores it and tells the losses.

    Attributes:
        optimizers: one for each part.
    """

    def __init__(
        self,
        problem: AdapterProblem,
        make_optimizer: MakeOptimizer,
        population: int,
        budget: int,
        dev_every: int | None = None,
        visit: int = 1,
        shown: str = "incumbent",
    ) -> None:
        """Build the optimizers.

        Args:
            problem: prepared.
            make_optimizer: builds the optimizer of a part.
            population: evaluations of a generation, at most.
            budget, dev_every: as for ``Method``; without ``dev_every`` the dev set is looked at once per sweep.
            visit: generations per visit of a part, at least; rounded up to what its optimizer needs.
            shown: ``incumbent``, or ``sample``: the dev set is shown the last candidate, as DFO-LoRA's release does.
        """
        super().__init__(problem, budget, dev_every)
        self.size = population
        self.shown = shown
        self.optimizers = [make_optimizer(index, part.dim) for index, part in enumerate(problem.parts)]
        step = max(optimizer.visit for optimizer in self.optimizers)
        self.visit = -(-visit // step) * step
        self._batches: list[Tensor | None] = [None] * len(problem.parts)
        self._workers: Executor | None = None
        self._asked: tuple[int, Tensor] | None = None

    def remark(self) -> str:
        reached = -(-(self.budget // self.size) // self.visit)
        parts = len(self.optimizers)
        if reached >= parts:
            return ""
        return (
            f"a budget of {self.budget} evaluations may reach only the first {reached} of {parts} layers; "
            f"a sweep takes up to {parts * self.visit * self.size}"
        )

    def step(self, before: Line) -> Step:
        part, z = self._ask(before)
        optimizer = self.optimizers[part]
        evaluation = self.problem.evaluation(z, part, self._batches[part], optimizer.wants)
        optimizer.tell(evaluation)
        note = optimizer.note()
        self._move(part)
        sweep = before.generation // (self.visit * len(self.optimizers)) + 1
        layer = self.problem.parts[part].layer
        return Step(checksum(z), finite(evaluation.losses), sweep, layer, note)

    def repeat(self, before: Line, line: Line) -> None:
        part, z = self._ask(before)
        if line.checksum != checksum(z):
            raise UserError(
                f"resume: the population rebuilt for generation {line.generation} is not the logged one; "
                "the versions in environment.json, or the run's files, have changed"
            )
        if len(line.losses) != len(z):
            raise UserError(
                f"resume: generation {line.generation} has {len(line.losses)} losses for {len(z)} candidates"
            )
        self.optimizers[part].retell(line.loss_tensor(), line.note)
        self._move(part)

    def look_is_due(self, before: Line, line: Line) -> bool:
        if self.dev_every:
            return line.evaluations // self.dev_every > before.evaluations // self.dev_every
        last = line.evaluations + self.size > self.budget
        return last or line.generation % (self.visit * len(self.optimizers)) == 0

    def looks(self, evaluations: int) -> int:
        return evaluations // (self.dev_every or self.size * self.visit * len(self.optimizers))

    def trial(self) -> float:
        """Score candidates of the first and of the last part, the cost of all others being in between."""
        count = max(2, min(self.size, self.budget // TRIAL_SHARE))
        generator = torch.Generator().manual_seed(seed_of(self.problem.seed, "trial"))
        batch, seconds = self.problem.draw(0), 0.0
        ends = (0, len(self.optimizers) - 1)
        for part in ends:
            z = torch.randn(count, self.problem.parts[part].dim, generator=generator)
            self.problem.losses(
                z[:1], part, batch
            )  # what is done once for all candidates, and what the first call costs
            started = time.perf_counter()
            self.problem.losses(z, part, batch)
            seconds += time.perf_counter() - started
        self.problem.engine.use(self.problem.engine.savings)  # as it was: nothing cached
        self.problem.engine.reset_counts()
        return seconds / (count * len(ends))

    def look(self, line: Line) -> None:
        if self.shown == "incumbent":
            super().look(line)
            return
        assert self._asked is not None, "a look comes after a step"
        part, z = self._asked
        incumbents = self.problem.adapter.state()
        # The release looks at the candidate that happens to be loaded.
        self.problem.write(self.problem.parts[part].edits(z[-1:]), part)
        super().look(line)
        self.problem.adapter.restore(incumbents)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run threads that draw a layer's next population while other layers are scored."""
        with super().running(), threads(threads_beside(self.problem.device)) as workers:
            self._workers = workers
            yield
            self._workers = None

    def _ask(self, before: Line) -> tuple[int, Tensor]:
        """The part whose turn it is, and its population (P, d)."""
        part = before.generation // self.visit % len(self.optimizers)
        if self.optimizers[part].begins:
            self._batches[part] = self.problem.draw(before.generation)
        self._asked = part, self.optimizers[part].ask()
        return self._asked

    def _move(self, part: int) -> None:
        """Write the incumbent, and let a thread draw the next population."""
        if self._workers is not None:
            self.optimizers[part].ask_ahead(self._workers)
        self.problem.keep(self.optimizers[part].incumbent(), part)
