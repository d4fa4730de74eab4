"""The dev set's say: it is shown an adapter now and then, and the one that it likes best is kept.

The base model is a candidate too; ties go to the lower dev loss, full ties to the older adapter. In the release of
DFO-LoRA (``--selection sample``) only a better metric counts, and the base model is no candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

from dfolora.engine import Engine
from dfolora.models.adapter import Adapter, Factors
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import cross_entropy, likelihood
from dfolora.runs.folder import Generation, Run, finite
from dfolora.task import Example, Metrics


class Selection:
    """Shows adapters to the dev set and remembers the best.

    Args:
        adapter: what is looked at, as it stands.
        scorer, dev: the task's reading, and its dev examples.
        rule: ``incumbent`` or ``sample``, see above.
        chunk_tokens: as for ``Engine``.

    Attributes:
        rows: the dev batch.
        best: the line of the log whose adapter is kept.
        kept: that adapter.
        base: the base model's metrics.
    """

    def __init__(
        self,
        adapter: Adapter,
        scorer: PromptEncoder,
        dev: Sequence[Example],
        rule: str = "incumbent",
        chunk_tokens: int = 0,
    ) -> None:
        self.adapter = adapter
        self.task = scorer.task
        self.dev = dev
        self.rule = rule
        self.rows = scorer.encode(dev)
        self.engine = Engine(adapter, self.rows, chunk_tokens)
        self.answers = Answers(self.engine, scorer, dev) if self.task.new_tokens else None
        self.loss = likelihood if self.answers else cross_entropy
        self.labels = scorer.labels(dev).to(self.engine.rows.owner.device)
        self.best = Generation(0, 0, None, "", [], 0, 0, 0, 0.0)
        self.kept: list[Factors] = adapter.state()
        self.base: Metrics = {}

    def begin(self, run: Run, logged: Generation | None) -> Generation:
        """Line 0 of the log, the base model on the dev set: looked at and logged now unless it was before."""
        if logged is None:
            logged = Generation(0, 0, None, "", [], 0, 0, 0, 0.0)
            self.measure(logged)
            run.log(logged)
        self.best, self.kept = logged, self.adapter.state()
        self.base = logged.dev["metrics"] if logged.dev else {}
        return logged

    def look(self, state: Generation) -> None:
        """Show the adapter to the dev set, unless the log has that already, and keep it if it is the best so far."""
        if state.dev is None:
            self.measure(state)
        self.choose(state)

    def measure(self, state: Generation) -> None:
        """Write into a line what the dev set says of the adapter as it stands."""
        scores = self.engine.incumbent_scores()
        loss = finite(self.loss(scores[None], self.labels))[0]
        if self.answers is None:
            metrics = self.task.measure(self.dev, scores.argmax(-1).tolist())
        else:
            found = self.answers.incumbent()
            metrics = self.task.measure(self.dev, found.texts)
            loss = None if found.broken else loss
        state.dev = {"metrics": metrics, "main": self.task.main(metrics), "loss": loss}
        state.dev_token_layers += self.engine.token_layers
        self.engine.reset_counts()

    def choose(self, state: Generation) -> None:
        """Keep the adapter as it stands if its line is better than the best one's."""
        if self.rule == "sample":
            better = self.best.generation == 0 or _main(state) > _main(self.best)
        else:
            better = _rank(state) > _rank(self.best)
        if better:
            self.best, self.kept = state, self.adapter.state()

    def restore(self) -> None:
        """Load the kept adapter."""
        self.adapter.restore(self.kept)


def _main(state: Generation) -> float:
    """The dev metric; of an adapter that broke the model, whose predictions are luck, the worst there is."""
    return float(state.dev["main"]) if state.dev and state.dev["loss"] is not None else float("-inf")


def _rank(state: Generation) -> tuple[float, float]:
    main = _main(state)
    return main, -state.dev["loss"] if state.dev and main > float("-inf") else float("-inf")
