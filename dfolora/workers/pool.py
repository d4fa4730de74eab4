"""A pool of workers: cuts a population into slices, and whoever is free takes the next.

A population is cut in the same way however many workers there are (up to 8 of them), so that a candidate is always
scored beside the same others, and its loss does not depend on who scored it. The slices are smaller than a worker's
share: one that is twice as fast takes twice as many. A slice whose worker dies goes to another, and a new worker takes
the place of the dead. Candidates depend on the log alone, so that scoring a slice twice does no harm.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.optimizers import Evaluation
from dfolora.problems.adapters import AdapterProblem
from dfolora.problems.objectives import loss_of_scores
from dfolora.workers.crew import Crew
from dfolora.workers.messages import Died, Failed, Order, Ready, Report, Scored

SLICES = 16  # of a population, at least, where it has so many candidates
SLICES_PER_WORKER = 2  # at least: the fewer, the longer the others wait for the slowest
MOST_DEATHS = 5  # in a row, of one worker or with one slice

_say = logging.getLogger("dfolora.workers")


class Pool:
    """Scores populations by workers. They are started when the first one comes.

    Attributes:
        problem: the driver's, whose incumbents they follow, and whose engine counts what they compute.
        deaths: workers that have died so far.
    """

    def __init__(self, problem: AdapterProblem, hire: Callable[[], Crew], slice_size: int | None = None) -> None:
        """Remember what to do.

        Args:
            problem: prepared.
            hire: gives the crew.
            slice_size: candidates that a worker takes at once; None: see ``size_of_slice``.
        """
        self.problem = problem
        self.deaths = 0
        self._hire, self._slice_size = hire, slice_size
        self._crew: Crew | None = None
        self._turn = 0

    def evaluation(self, candidates: Tensor, part: int, batch: Tensor | None, wants: str) -> Evaluation:
        """As ``AdapterProblem.evaluation``.

        Raises:
            UserError: a worker raised it; no worker starts, all die, or whatever scores a slice dies.
        """
        self._open()
        assert self._crew is not None, "it has been opened"
        self._turn += 1
        size = self._slice_size or size_of_slice(len(candidates), self._crew.size)
        self._slices = candidates.detach().to("cpu", torch.float32).split(size)
        self._waiting = deque(range(len(self._slices)))
        self._stopped: Counter[int] = Counter()
        done: dict[int, Scored] = {}
        while len(done) < len(self._slices):
            for worker in [worker for worker in self._heard if worker not in self._busy]:
                if self._waiting:
                    self._send(worker, self._waiting.popleft(), part, batch, wants)
            for worker, report in self._crew.reports():
                if isinstance(report, Scored):
                    del self._busy[worker]
                    self._in_a_row[worker] = 0
                    if report.turn == self._turn:
                        done[report.slice] = report
                else:
                    self._take_note(worker, report)
        return self._joined([done[index] for index in range(len(self._slices))], batch)

    @property
    def ready(self) -> int:
        """How many workers can score something now."""
        return len(self._heard) if self._crew is not None else 0

    def close(self) -> None:
        """Stop the workers; the next population starts new ones."""
        if self._crew is not None:
            crew, self._crew = self._crew, None
            crew.close()

    def _open(self) -> None:
        if self._crew is not None:
            return
        self._crew = self._hire()
        self._heard: dict[int, dict[int, Tensor]] = {}  # worker that is ready -> the incumbents that it knows of
        self._busy: dict[int, tuple[int, int]] = {}  # worker -> turn and slice of its order
        self._in_a_row: Counter[int] = Counter()  # deaths of a worker since it last scored something
        self._given_up = 0  # workers that are not started any more
        for worker in range(self._crew.size):
            self._crew.start(worker)

    def _send(self, worker: int, index: int, part: int, batch: Tensor | None, wants: str) -> None:
        assert self._crew is not None, "an order is sent while it is open"
        known = self._heard[worker]
        moved = {i: z for i, z in enumerate(self.problem.incumbents) if known.get(i) is not z}
        known.update(moved)
        self._busy[worker] = (self._turn, index)
        self._crew.send(worker, Order(
            self._turn, index, part, self._slices[index].numpy(), None if batch is None else batch.numpy(), wants,
            {i: z.numpy() for i, z in moved.items()},
        ))  # fmt: skip

    def _take_note(self, worker: int, report: Report) -> None:
        """Of everything that is no result."""
        if isinstance(report, Ready):
            if report.data_checksum != self.problem.data_checksum:
                raise UserError(
                    f"workers: the one on {report.host} reads other weights or other tokens than this process; "
                    "every machine needs the same model and the same versions"
                )
            self._heard[worker] = {}
        elif isinstance(report, Failed):
            self._busy.pop(worker, None)
            raise report.error
        elif isinstance(report, Died):
            self._replace(worker, report.reason)

    def _replace(self, worker: int, reason: str) -> None:
        """Put the slice of a dead worker back, and start another worker in its place."""
        assert self._crew is not None, "reports come while it is open"
        self.deaths += 1
        self._in_a_row[worker] += 1
        self._heard.pop(worker, None)
        turn, index = self._busy.pop(worker, (0, 0))
        if turn == self._turn:
            self._waiting.append(index)  # not the next again: should it be the worker's fault, another takes it
            self._stopped[index] += 1
            if self._stopped[index] == MOST_DEATHS:
                raise UserError(f"workers: the same candidates have killed {MOST_DEATHS} of them ({reason})")
        if self._in_a_row[worker] < MOST_DEATHS:
            _say.warning("a worker died (%s); another takes what it had to do, and a new one its place", reason)
            self._crew.start(worker)
            return
        self._given_up += 1
        if self._given_up == self._crew.size:
            raise UserError(f"workers: each has died {MOST_DEATHS} times in a row ({reason})")
        _say.warning("a worker has died %d times in a row (%s); the others go on without it", MOST_DEATHS, reason)

    def _joined(self, scored: Sequence[Scored], batch: Tensor | None) -> Evaluation:
        """The evaluation of a population of that of its slices."""
        self.problem.engine.token_layers += sum(each.token_layers for each in scored)
        self.problem.engine.forwards += sum(each.forwards for each in scored)
        losses = torch.cat([torch.tensor(each.losses) for each in scored])
        example_losses = [torch.tensor(each.example_losses) for each in scored if each.example_losses is not None]
        per_example = torch.cat(example_losses) if example_losses else None
        scores = [torch.tensor(each.scores) for each in scored if each.scores is not None]
        if not scores:
            return Evaluation(losses, example_losses=per_example)
        return Evaluation(losses, torch.cat(scores), per_example, loss_of_scores(*self.problem.objective(batch)))


def size_of_slice(population: int, workers: int) -> int:
    """Candidates that a worker takes at once: a sixteenth of them, or less where there are more than 8 workers."""
    return -(-population // max(SLICES, SLICES_PER_WORKER * workers))
