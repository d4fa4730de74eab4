"""Rewards: a function of generated texts in place of a task's metric."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dfolora.errors import UserError
from dfolora.problems.reward_source import Reward, Sum, numbers_of, open_reward
from dfolora.task import Example, Metrics, Task

NEW_TOKENS = 32  # of an answer, where neither the task nor the user says
NO_GOLD = ("a",)  # taught where there is no gold text: one that every tokenizer has tokens for


class RewardError(UserError):
    """A reward failed: it raised, took too long, or gave what are no numbers."""


def rewarded(task: Task, reward: str | Reward, timeout: float | None = None) -> Task:
    """Make a task whose answers are generated and whose metric is the reward.

    Args:
        task: whose examples are asked.
        reward: as for ``open_reward``.
        timeout: seconds that one call may take; None: as many as it likes.

    Raises:
        UserError: the reward is no function and none can be made of it.
    """
    function = open_reward(reward)

    def measure(examples: Sequence[Example], texts: Sequence[Any]) -> Metrics:
        shown = [dataclasses.replace(each, gold=()) if each.gold is NO_GOLD else each for each in examples]
        answers = [str(text) for text in texts]
        mean = _mean(function, answers, shown, timeout)
        return {"reward": mean, **(function.parts(answers, shown) if isinstance(function, Sum) else {})}

    def load(*arguments: Any) -> list[Example]:
        return [_with_gold(example, task.classes) for example in task.load(*arguments)]

    new_tokens = task.new_tokens or NEW_TOKENS
    prompts = {kind: dataclasses.replace(prompt, words=None) for kind, prompt in task.prompts.items()}
    return dataclasses.replace(
        task, measure=measure, load=load, selection=("reward",), new_tokens=new_tokens, prompts=prompts,
        one_class_train=True, rewarded=True,
    )  # fmt: skip


def _mean(reward: Reward, texts: list[str], examples: Sequence[Example], timeout: float | None) -> float:
    try:
        numbers = numbers_of(_within(timeout, lambda: reward(texts, examples)))
    except RewardError:
        raise
    except Exception as error:  # somebody else's code
        said = str(error) if isinstance(error, UserError) else f"reward: it raised {type(error).__name__}: {error}"
        raise RewardError(f"{said} (on {len(texts)} texts)") from error
    if len(numbers) not in (1, len(texts)):
        raise RewardError(f"reward: it gave {len(numbers)} numbers for {len(texts)} texts; give one, or one for each")
    return math.fsum(numbers) / len(numbers) if all(map(math.isfinite, numbers)) else math.nan


def _within(seconds: float | None, call: Callable[[], Any]) -> Any:
    """What a call gives, if it does so in time.

    A thread cannot be ended from outside: a call that takes too long goes on in its own, until the process ends.

    Raises:
        RewardError: it did not.
    """
    if seconds is None:
        return call()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((call(), None))
        except BaseException as error:  # raised again where it can be handled
            outcome.extend((None, error))

    thread = threading.Thread(target=run, daemon=True, name="reward")
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise RewardError(f"reward: it took more than the {seconds:g} seconds that reward_timeout allows")
    found, error = outcome
    if error is not None:
        raise error
    return found


def _with_gold(example: Example, classes: Sequence[str]) -> Example:
    """Give an example a gold answer where it has none: the name of its class."""
    if example.gold:
        return example
    answers = classes or example.choices or ()
    gold = answers[example.label].strip() if example.label < len(answers) else ""
    return dataclasses.replace(example, gold=(gold,) if gold else NO_GOLD)
