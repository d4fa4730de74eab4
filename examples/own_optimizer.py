"""An optimizer of your own: a class with three methods. Its constructor's keyword parameters are options of the run."""

from typing import Annotated

import dfolora


class Hill(dfolora.Optimizer):
    """Gaussian steps around the best candidate so far; their size shrinks when nothing improves."""

    def __init__(self, *arguments, shrink: Annotated[float, "step size after a failure"] = 0.9, **common):
        super().__init__(*arguments, **common)
        self.shrink = shrink

    def _ask(self):  # (P, d): the next candidates
        return self.best + self.sigma * self.rng.standard_normal((self.population, self.dim))

    def _tell(self, points, losses):  # (P, d), (P,)
        if losses.min() > self.best_loss:
            self.sigma *= self.shrink

    def _incumbent(self):  # (d,): what the model should hold now
        return self.best


if __name__ == "__main__":
    run = dfolora.tune(optimizer=Hill, shrink=0.8, budget=800)  # no model and no task: the embedded demo
    print(run.scores["zero_shot"], "->", run.scores["tuned"])

    dfolora.register("optimizer", "hill", Hill)  # from here on known by name, like those that are built in
    print(dfolora.tune(optimizer="hill", budget=200).scores["optimizer"])
