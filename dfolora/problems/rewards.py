"""Rewards: a user's function of generated texts in place of a task's metric."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Metrics, Task

Reward = Callable[[list[str], Sequence[Example]], Any]
"""(generated texts, their examples) -> a number, or one for each text; higher is better."""

NEW_TOKENS = 32  # of an answer, where neither the task nor the user says


def rewarded(task: Task, reward: Reward) -> Task:
    """Make a task whose answers are generated and whose metric is the reward.

    Raises:
        UserError: the reward is not a function.
    """
    if not callable(reward):
        raise UserError(f"reward: {reward!r} is not a function of texts and examples")

    def measure(examples: Sequence[Example], texts: Sequence[Any]) -> Metrics:
        return {"reward": _mean(reward, [str(text) for text in texts], examples)}

    def load(*arguments: Any) -> list[Example]:
        return [_with_gold(example, task.classes) for example in task.load(*arguments)]

    new_tokens = task.new_tokens or NEW_TOKENS
    prompts = {kind: dataclasses.replace(prompt, words=None) for kind, prompt in task.prompts.items()}
    return dataclasses.replace(
        task, measure=measure, load=load, selection=(), new_tokens=new_tokens, prompts=prompts, one_class_train=True
    )


def _mean(reward: Reward, texts: list[str], examples: Sequence[Example]) -> float:
    try:
        found = reward(texts, examples)
        numbers = [float(found)] if isinstance(found, (int, float)) else [float(number) for number in found]
    except Exception as error:  # somebody else's code
        raise UserError(f"reward: on {len(texts)} texts it raised {type(error).__name__}: {error}") from error
    if len(numbers) not in (1, len(texts)):
        raise UserError(f"reward: it gave {len(numbers)} numbers for {len(texts)} texts; give one, or one for each")
    return math.fsum(numbers) / len(numbers) if all(map(math.isfinite, numbers)) else math.nan


def _with_gold(example: Example, classes: Sequence[str]) -> Example:
    """Give an example a gold answer where it has none: the name of its class."""
    if example.gold:
        return example
    answers = classes or example.choices or ()
    gold = answers[example.label] if example.label < len(answers) else ""
    return dataclasses.replace(example, gold=(gold.strip() or "a",))  # a text that every tokenizer has tokens for
