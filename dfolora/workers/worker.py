"""A worker: a problem of its own in another process, which follows the driver's incumbents and scores slices."""

from __future__ import annotations

import socket
from collections.abc import Callable

import torch

from dfolora.problems.adapters import AdapterProblem
from dfolora.workers.messages import Order, Ready, Scored

MakeProblem = Callable[[], AdapterProblem]
"""Builds the problem in a worker: model, rows, parts; it travels there, so it must be possible to pickle."""


class Worker:
    """Keeps model, rows, incumbents and prefix cache; all that it does not get by ``build`` comes with an order."""

    def host(self) -> str:
        """Name of its machine: it answers before the model is loaded."""
        return socket.gethostname()

    def build(self, make_problem: MakeProblem, threads: int) -> Ready:
        """Build the problem, with so many threads of torch.

        Raises:
            UserError: the model or the data do not work on this machine.
        """
        torch.set_num_threads(threads)
        self.problem = make_problem()
        return Ready(self.problem.data_checksum, self.host())

    def score(self, order: Order) -> Scored:
        """Score the candidates of an order, with the incumbents where the driver has them.

        Raises:
            UserError: what a reward or an objective of the user's raised, and the like.
        """
        problem = self.problem
        for part, z in order.incumbents.items():
            problem.keep(torch.tensor(z), part)
        problem.engine.reset_counts()
        batch = None if order.batch is None else torch.tensor(order.batch)
        found = problem.evaluation(torch.tensor(order.candidates), order.part, batch, order.wants)
        scores, example_losses = (
            None if tensor is None else tensor.numpy() for tensor in (found.scores, found.example_losses)
        )
        return Scored(
            order.turn, order.slice, found.losses.numpy(), scores, example_losses,
            problem.engine.token_layers, problem.engine.forwards,
        )  # fmt: skip
