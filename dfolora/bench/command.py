"""``dfolora bench``: from what was asked to what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dfolora.bench.bench import bench
from dfolora.bench.cases import CASES, SHAPES
from dfolora.errors import UserError, unknown
from dfolora.models.load import LanguageModel
from dfolora.opening import open_task
from dfolora.problems.encode import PromptEncoder
from dfolora.settings.build import settings
from dfolora.settings.model import BenchSettings


def bench_command(values: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure what the options ask for.

    Args:
        values: options by name; a ``case`` fills in what is left open.
        say: told what is going on.

    Returns:
        What ``bench`` does.

    Raises:
        UserError: options that cannot work, or do not go together.
    """
    case = str(values.get("case") or "")
    if case and case not in CASES:
        raise unknown("case", case, CASES)
    asked = settings(BenchSettings, **{**CASES.get(case, {}), **values})
    if asked.shape and asked.shape not in SHAPES:
        raise unknown("shape", asked.shape, SHAPES)
    if bool(asked.shape) == bool(asked.model):
        raise UserError("case: which one to measure? name a case, a shape or a model")
    if not (asked.task or asked.train_file):
        return bench(asked, None, say)
    if asked.shape:
        raise UserError(f"task: the {asked.shape} shape has no tokenizer; give a model, or lengths")
    task, examples = open_task(asked)
    train = examples("train")

    def encode(language_model: LanguageModel) -> Any:
        return PromptEncoder(language_model, task, asked.max_length or 0).encode(train)

    return bench(asked, encode, say)
