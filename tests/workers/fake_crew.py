"""A crew without processes: its workers live here, and a clock of its own says who is done first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.optimizers import Evaluation
from dfolora.workers.crew import Crew
from dfolora.workers.messages import Died, Failed, Order, Report
from dfolora.workers.worker import Worker


class Toy:
    """A problem of two parts whose losses are distances from their incumbents: the last three moves can be told."""

    data_checksum = "toy"

    def __init__(self) -> None:
        self.incumbents = [torch.zeros(3), torch.zeros(3)]
        self.engine = SimpleNamespace(token_layers=0, forwards=0, reset_counts=self._reset)
        self.evaluator: Any = None

    def _reset(self) -> None:
        self.engine.token_layers = self.engine.forwards = 0

    def keep(self, z: Tensor, part: int = 0) -> None:
        self.incumbents[part] = z.clone()

    def evaluation(self, z: Tensor, part: int, batch: Tensor | None, wants: str) -> Evaluation:
        self.engine.token_layers += len(z)
        self.engine.forwards += 1
        if bool((z[:, 0] == 13).any()):
            raise UserError("reward: it does not like 13")
        losses = (z - self.incumbents[part]).square().sum(1) + 100 * self.incumbents[1 - part].sum()
        if batch is not None:
            losses = losses + 1000 * batch.sum()
        scores = z[:, None, :2].expand(-1, 4, -1)
        return Evaluation(losses, scores if wants == "scores" else None, scores[..., 0] if wants != "losses" else None)

    def objective(self, batch: Tensor | None = None) -> Any:
        return (lambda scores, labels: scores[..., 0]), torch.zeros(4, dtype=torch.int64)


class FakeCrew(Crew):
    """Workers that take the time they are told to.

    Args:
        make: builds a worker's problem.
        seconds: of each worker for a slice.
        dies: (worker, how many orders it had before) -> whether it dies of the order that comes.
        loading: seconds until a worker is ready.

    Attributes:
        orders: by worker, what it was sent.
        clock: seconds so far.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        seconds: Sequence[float] = (1.0,),
        dies: Callable[[int, int], bool] = lambda worker, count: False,
        loading: float = 0.0,
    ) -> None:
        self.make, self.seconds, self.dies, self.loading = make, seconds, dies, loading
        self.size = len(seconds)
        self.orders: list[list[Order]] = [[] for _ in seconds]
        self.workers: dict[int, Worker] = {}
        self.coming: list[tuple[float, int, int, Report]] = []
        self.clock, self.count, self.started, self.closed = 0.0, 0, 0, False

    def start(self, worker: int) -> None:
        self.started += 1
        self.workers[worker] = Worker()
        self._later(self.loading, worker, self.workers[worker].build(self.make, torch.get_num_threads()))

    def send(self, worker: int, order: Order) -> None:
        count = len(self.orders[worker])
        self.orders[worker].append(order)
        if self.dies(worker, count):
            self._later(self.seconds[worker] / 2, worker, Died("killed"))
            return
        try:
            report: Report = self.workers[worker].score(order)
        except UserError as error:
            report = Failed(error)
        self._later(self.seconds[worker], worker, report)

    def reports(self) -> list[tuple[int, Report]]:
        if not self.coming:
            return []
        self.coming.sort(key=lambda each: each[:2])
        self.clock, _, worker, report = self.coming.pop(0)
        return [(worker, report)]

    def close(self) -> None:
        self.closed = True

    def _later(self, seconds: float, worker: int, report: Report) -> None:
        self.count += 1
        self.coming.append((self.clock + seconds, self.count, worker, report))
