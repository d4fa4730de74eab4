"""What a run of `dfolora prompt` comes to: accuracy with an interval, what found no answer, calls and tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Z = 1.959964  # of 95 %


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), in percent; (0, 100) where nothing was counted."""
    if not count:
        return 0.0, 100.0
    share, square = right / count, Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def score(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of a trace file's lines, of which the one with index -1 is of the shared calls.

    Returns:
        ``questions, correct, wrong, no_answer``; ``accuracy`` and ``interval`` in percent, no answer being no right
        one; ``how``: found by -> questions; ``cut``: questions with a reply that ran out of tokens; ``calls``: all,
        ``shared_calls`` among them; ``calls_per_question``, ``prompt_tokens_per_question`` and
        ``completion_tokens_per_question``, the shared ones spread; None where the server does not count tokens.
    """
    own = [line for line in lines if line["index"] >= 0]
    correct = sum(line["correct"] for line in own)
    nothing = sum(line["answer"] is None for line in own)
    low, high = wilson(correct, len(own))
    calls = sum(line["calls"] for line in lines)
    return {
        "questions": len(own),
        "correct": correct,
        "wrong": len(own) - correct - nothing,
        "no_answer": nothing,
        "accuracy": 100 * correct / max(1, len(own)),
        "interval": [low, high],
        "how": dict(sorted(Counter(line["how"] for line in own).items())),
        "cut": sum(line["cut"] for line in own),
        "calls": calls,
        "shared_calls": calls - sum(line["calls"] for line in own),
        "calls_per_question": calls / max(1, len(own)),
        **{f"{name}_per_question": _mean(lines, name, len(own)) for name in ("prompt_tokens", "completion_tokens")},
    }


def _mean(lines: Sequence[Mapping[str, Any]], name: str, questions: int) -> float | None:
    values = [line[name] for line in lines]
    return None if None in values else sum(values) / max(1, questions)
