"""Options that every method of ``tune`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dfolora.errors import UserError
from dfolora.settings.goal import read_goal
from dfolora.settings.model import DATA, ModelSettings
from dfolora.settings.options import option

SEARCH, RUN = "Search", "Run"


@dataclass(frozen=True, kw_only=True)
class TuneSettings(ModelSettings):
    """Options that every method takes."""

    method: ClassVar[str] = ""

    objective: Any = option(
        "cross-entropy", "what is minimised: cross-entropy, hinge, likelihood, metric", group=SEARCH
    )
    budget: int = option(3000, "evaluations: candidates, or gradient steps, on the few-shot set", group=SEARCH, least=1)
    extend: int | None = option(
        None,
        "evaluations that a run goes on to beyond its budget: --resume RUN --budget N",
        group=RUN,
        least=1,
    )
    dev_every: int | None = option(
        None,
        "evaluations between looks at the dev set; nothing: once per sweep, without sweeps 20 in all",
        group=RUN,
        least=1,
    )
    demonstrations: int | None = option(
        None,
        "training examples that stand in front of every prompt with their answers, and are not trained on",
        group=DATA,
        least=1,
    )
    stop_at: str = option(
        "", "dev score in percent at which the run ends, or loss=X: a dev loss; nothing: by the budget alone", group=RUN
    )
    patience: int | None = option(
        None,
        "looks at the dev set without a better one after which the run ends; nothing: no limit",
        group=RUN,
        least=1,
    )
    track: Any = option("", "where to follow the run: tensorboard, wandb, trackio, separated by commas", group=RUN)
    push_to_hub: str = option(
        "",
        "repository on the Hugging Face Hub for the adapter and its card, such as me/reviews; token in HF_TOKEN",
        group=RUN,
    )
    test_split: str = option(
        "test", "scored at the end: test, dev (which selection saw) or none", group=RUN, choices=("test", "dev", "none")
    )
    output: str = option("", "run folder; nothing: a new one under runs/", group=RUN)

    @property
    def evaluations(self) -> int:
        """Evaluations at which the run ends: the budget, or what it was extended to."""
        return self.extend or self.budget

    @property
    def search(self) -> str:
        """Name of what does the tuning, such as ``cma`` or ``adamw``, for run folders and scores."""
        raise AttributeError("every method says it")

    def check(self) -> None:
        super().check()
        read_goal(self.stop_at)
        if (self.dev_file or self.test_file) and not self.train_file:
            raise UserError(f"train_file: there is none to go with {self.dev_file or self.test_file!r}")

    def open(self, language_model: Any, encoder: Any, train: Any, dev: Any, measured: Any = None) -> Any:
        """Build a method of another package, as ``opening_methods.open_method`` does; None: it is built in."""
        return None

    def require(self, size: int) -> None:
        """Raise UserError if the budget is less than one step of ``size`` evaluations."""
        if self.budget < size:
            raise UserError(f"budget: {self.budget} is less than one step of {size} evaluations")
