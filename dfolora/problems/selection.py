"""Early stopping: score the adapter on the dev set now and then, and keep the best.

The base model is a candidate too; ties go to the lower dev loss, full ties to the older adapter. In the release of
DFO-LoRA (``selection: sample``) only a better metric counts, and the base model is no candidate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from dfolora.engine import Engine
from dfolora.log import Line, finite
from dfolora.models.adapter import Factors
from dfolora.models.tuned import TunedModel
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import cross_entropy, likelihood
from dfolora.task import Example, Metrics

WORST = -1e9  # stands for a metric that is not a number


class Selection:
    """Scores adapters on the dev set and remembers the best.

    Args:
        adapter: what is looked at, as it stands.
        encoder, dev: the task's reading, and its dev examples.
        rule: ``incumbent`` or ``sample``, see above.
        chunk_tokens: as for ``Engine``.

    Attributes:
        rows: the dev batch.
        best: the line of the log whose adapter is kept.
        state: that adapter.
        base: the base model's metrics.
        seconds: what the forwards of the last look have taken; 0: there was none.
    """

    def __init__(
        self,
        adapter: TunedModel,
        encoder: PromptEncoder,
        dev: Sequence[Example],
        rule: str = "incumbent",
        chunk_tokens: int = 0,
    ) -> None:
        self.adapter = adapter
        self.task = encoder.task
        self.dev = dev
        self.rule = rule
        self.rows = encoder.encode(dev)
        self.engine = Engine(adapter, self.rows, chunk_tokens)
        self.answers = Answers(self.engine, encoder, dev) if self.task.new_tokens else None
        self.loss = likelihood if self.answers else cross_entropy
        self.labels = encoder.labels(dev).to(self.engine.rows.owner.device)
        self.best = Line()
        self.state: list[Factors] = adapter.state()
        self.base: Metrics = {}
        self.seconds = 0.0

    def begin(self, line: Line) -> None:
        """Start from the base model: score it on the dev set, unless line 0 of the log has the result."""
        if line.dev is None:
            self.measure(line)
        self.best, self.state = line, self.adapter.state()
        self.base = line.dev["metrics"] if line.dev else {}

    def look(self, line: Line) -> None:
        """Score the current adapter on the dev set, unless the log has the result, and keep it if it is the best."""
        if line.dev is None:
            self.measure(line)
        if self.is_better(line):
            self.best, self.state = line, self.adapter.state()

    def measure(self, line: Line) -> None:
        """Score the current adapter on the dev set and write the result into a line."""
        started = time.perf_counter()
        scores = self.engine.incumbent_scores()
        loss = finite(self.loss(scores[None], self.labels).mean(-1))[0]
        answers = self.answers.incumbent() if self.answers else None
        self.seconds = time.perf_counter() - started
        if answers is None:
            metrics = self.task.measure(self.dev, scores.argmax(-1).tolist())
        else:
            metrics = self.task.measure(self.dev, answers.texts)
            loss = None if answers.broken else loss
        main = self.task.main(metrics)
        if not math.isfinite(main):  # a reward of one's own may say so
            metrics, main, loss = {name: WORST for name in metrics}, WORST, None
        line.dev = {"metrics": metrics, "main": main, "loss": loss}
        line.dev_token_layers += self.engine.token_layers
        self.engine.reset_counts()

    def is_better(self, line: Line) -> bool:
        """Whether a line's dev result is better than the best so far."""
        if self.rule == "sample":
            return self.best.generation == 0 or _main(line) > _main(self.best)
        return _rank(line) > _rank(self.best)

    def restore(self) -> None:
        """Load the best adapter."""
        self.adapter.restore(self.state)


def _main(line: Line) -> float:
    """The dev metric; -inf for an adapter that broke the model, since its predictions are luck."""
    return float(line.dev["main"]) if line.dev and line.dev["loss"] is not None else float("-inf")


def _rank(line: Line) -> tuple[float, float]:
    main = _main(line)
    return main, -line.dev["loss"] if line.dev and main > float("-inf") else float("-inf")
