"""Several chains for each question, and a vote over their answers (arXiv 2203.11171)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from dfolora.errors import UserError
from dfolora.reasoning.answers import NONE, Answer
from dfolora.reasoning.asker import Asker, Turn
from dfolora.reasoning.instructions import STEP_BY_STEP, asked
from dfolora.reasoning.predictor import Predictor
from dfolora.reasoning.trace import Trace


class SelfConsistency(Predictor):
    """Sample several chains, let their answers vote; of equals the earliest wins. A sample is one call, and no second.

    Args:
        asker: what it asks by.
        samples: chains for each question.
        sample_temperature: how they vary.
        equal_calls: the folder of another run: each question gets as many samples as it took calls there, and the calls
            that its questions shared are spread over them, so that both runs take as many calls.
    """

    def __init__(
        self,
        asker: Asker,
        samples: Annotated[int, "chains for each question"] = 5,
        sample_temperature: Annotated[float, "how much the chains vary"] = 0.7,
        equal_calls: Annotated[str, "folder of another run, whose calls for each question are matched"] = "",
    ) -> None:
        super().__init__(asker)
        if samples < 1:
            raise UserError(f"samples: {samples} is too few; a vote takes at least 1")
        if not sample_temperature > 0:
            raise UserError(f"sample_temperature: {sample_temperature:g} makes all samples the same; it is above 0")
        self.samples, self.temperature = samples, sample_temperature
        self.calls = _calls(equal_calls) if equal_calls else {}

    def answer(self, traces: Sequence[Trace]) -> None:
        turns = []
        for trace in traces:
            prompt = asked(self.question_of(trace), STEP_BY_STEP)
            count = self.calls.get(trace.index, 1) if self.calls else self.samples
            turns += [Turn(trace, (prompt,), 1_000_003 * k + trace.index) for k in range(count)]
        chains = self.asker.ask("sample", turns, self.temperature)
        for trace in traces:
            mine = [chain for turn, chain in zip(turns, chains, strict=True) if turn.trace is trace]
            self._vote(trace, mine)

    def _vote(self, trace: Trace, chains: list[str]) -> None:
        answers = [self.read(trace, chain) for chain in chains]
        votes = Counter(answer.value for answer in answers if answer.value is not None)
        trace.facts["votes"] = [[value, count] for value, count in votes.most_common()]
        if not votes:
            trace.answer, trace.chain = NONE, chains[0]
            return
        winner = votes.most_common(1)[0][0]
        first = next(k for k, answer in enumerate(answers) if answer.value == winner)
        trace.answer, trace.chain = Answer(winner, "vote", answers[first].raw), chains[first]


def _calls(folder: str) -> dict[int, int]:
    """Question -> the calls that it took in another run, its part of the shared ones included."""
    path = Path(folder).expanduser() / "trace.jsonl"
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        own = {int(line["index"]): int(line["calls"]) for line in lines}
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"equal_calls: {folder!r} is no folder of `dfolora prompt` with a trace.jsonl") from None
    shared = own.pop(-1, 0)
    if not own:
        raise UserError(f"equal_calls: {folder!r} has no answered question")
    parts = [shared * (k + 1) // len(own) - shared * k // len(own) for k in range(len(own))]
    return {index: max(1, own[index] + part) for index, part in zip(sorted(own), parts, strict=True)}
