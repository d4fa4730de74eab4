"""A method of your own: what one step of a run is. It gets the loop, the log, resuming and the dev set as they are."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import dfolora
from dfolora.log import Step, checksum, finite
from dfolora.methods.method import Method
from dfolora.opening_methods import open_problem
from dfolora.settings.options import option
from dfolora.settings.search import SubspaceSettings


class Anneal(Method):
    """Simulated annealing, layer after layer: now and then a worse candidate is taken, too."""

    def __init__(self, problem, settings):
        super().__init__(problem, settings.evaluations, settings.dev_every)
        self.settings, self.rng = settings, torch.Generator().manual_seed(settings.seed)
        self.z, self.loss = [torch.zeros(part.dim) for part in problem.parts], torch.inf

    def step(self, before):  # one candidate; ``before`` is the last line of the log
        part, z = self.ask(before)
        losses = self.problem.losses(z, part)  # (1,)
        self.tell(part, z, losses)
        return Step(checksum(z), finite(losses), layer=self.problem.parts[part].layer)

    def repeat(self, before, line):  # the same from the log, without a forward
        self.tell(*self.ask(before), line.loss_tensor())

    def ask(self, before):
        part = before.generation % len(self.z)
        return part, (self.z[part] + self.settings.sigma * torch.randn(len(self.z[part]), generator=self.rng))[None]

    def tell(self, part, z, losses):
        allowed = -self.settings.temperature * float(torch.rand(1, generator=self.rng).log())
        if float(losses[0]) - self.loss < allowed:
            self.z[part], self.loss = z[0], float(losses[0])
        self.problem.keep(self.z[part], part)


@dataclass(frozen=True, kw_only=True)
class AnnealSettings(SubspaceSettings):
    """Simulated annealing in the subspaces of the layers."""

    method: ClassVar[str] = "anneal"
    search: ClassVar[str] = "anneal"
    sigma: float = option(0.1, "standard deviation of a step", group="Search", above=0)
    temperature: float = option(0.01, "loss that is given up now and then, at first", group="Search", above=0)

    def open(self, language_model, encoder, train, dev, measured=None):
        problem, measured = open_problem(self, language_model, encoder, train, dev, measured)
        return Anneal(problem, self), measured


if __name__ == "__main__":
    dfolora.register("method", "anneal", AnnealSettings)
    run = dfolora.tune(method="anneal", temperature=0.005, sigma=0.2, budget=400)
    print(run.scores["method"], run.scores["zero_shot"], "->", run.scores["tuned"])
