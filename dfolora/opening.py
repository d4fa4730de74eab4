"""Build what a run works with from its settings: task, examples, model, prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from dfolora.errors import UserError, unknown
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models import prompted
from dfolora.models.load import LanguageModel
from dfolora.opening_tuned import soft_tokens
from dfolora.problems.demonstrations import with_demonstrations
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.rewards import rewarded
from dfolora.settings.build import method_of, tune_settings
from dfolora.settings.model import ModelSettings
from dfolora.settings.tune import TuneSettings
from dfolora.task import Example, Task
from dfolora.template import names

Examples = Callable[[str], list[Example]]
"""split -> examples: a task's ``load`` with its source filled in."""


def run_settings(**values: Any) -> TuneSettings:
    """The settings of a run: as ``tune_settings``, the demo where nothing is named, a method that fits the task.

    Raises:
        UserError: options that cannot work, a task without a model, or a model without a task.
    """
    from dfolora.tasks import is_generated

    values = {name.replace("-", "_"): value for name, value in values.items()}
    method = method_of(values, is_generated(values.get("task")))
    return cast(TuneSettings, with_demo(tune_settings(**{**values, "method": method})))


def with_demo(settings: Any) -> Any:
    """Fill in the demo where no task is named, and its model where a demo task has none.

    Raises:
        UserError: a task without a model, or a model without a task.
    """
    from dfolora import tasks
    from dfolora.tasks.demo import MODEL_DIR

    task, model = settings.task, settings.model
    if not (task or settings.train_file or settings.dev_file or settings.test_file):
        if model or settings.data:
            raise UserError("task: which one? see `dfolora tasks`, or give a train_file for data of your own")
        task = "demo/sentiment"
    if not model:
        if not str(task).startswith("demo/"):
            if isinstance(task, str) and task:
                tasks.about(task)  # a mistyped task comes first
            raise UserError("model: which one? give a Hugging Face id or a folder")
        model = str(MODEL_DIR)
    return dataclasses.replace(settings, task=task, model=model)


def task_names() -> list[str]:
    """The name of every registered task."""
    from dfolora import tasks

    return tasks.task_names()


def open_task(settings: ModelSettings) -> tuple[Task, Examples]:
    """Load a task, with the user's prompt in place of its own, and a function that loads its examples.

    Raises:
        UserError: an unknown task, or a prompt that does not fit it.
    """
    from dfolora.tasks import get_task
    from dfolora.tasks.common import Source
    from dfolora.tasks.draw import some_of
    from dfolora.tasks.files import file_task, with_prompt

    source = Source(Path(settings.data).expanduser() if settings.data else None, settings.shots, settings.data_seed)
    columns = settings.text_columns
    if file := settings.train_file or settings.dev_file or settings.test_file:
        task = file_task(
            file,
            settings.dev_file or None,
            settings.test_file or None,
            text_columns=[name.strip() for name in columns.split(",")] if isinstance(columns, str) else list(columns),
            label_column=settings.label_column,
            template=settings.template,
            label_words=settings.label_words or "0=bad,1=great",
            shorten=settings.shorten or None,
            generated=settings.reward is not None or settings.new_tokens is not None,
        )
    else:
        task = settings.task if isinstance(settings.task, Task) else get_task(settings.task)
        task = with_prompt(task, settings.template, settings.label_words, settings.shorten)
    if settings.new_tokens is not None:
        task = dataclasses.replace(task, new_tokens=settings.new_tokens)
    reward, timeout = settings.reward, settings.reward_timeout
    task = settings.asked(task if reward is None else rewarded(task, reward, timeout))

    def load(split: str) -> list[Example]:
        loaded = task.load(split, source)
        return some_of(loaded, settings.test_limit) if settings.test_limit and split == "test" else loaded

    return task, load


def open_model(settings: ModelSettings) -> LanguageModel:
    """The model; what is not in memory yet comes without its weights, which ``read_weights`` puts in.

    Raises:
        UserError: it cannot be loaded.
    """
    if isinstance(settings.model, LanguageModel):
        adapters.detach(settings.model)
        prompted.detach(settings.model.model)
        return settings.model
    if not isinstance(settings.model, (str, Path)):
        raise UserError(f"model: {settings.model!r} is no name, no folder and nothing that dfolora.load_model gives")
    return models.open_model(
        str(settings.model), kind=settings.kind, dtype=settings.dtype, device=settings.device,
        trust_remote_code=settings.trust_remote_code, quantize=settings.quantize,
    )  # fmt: skip


def open_prompt(settings: ModelSettings, task: Task, example: Example) -> PromptEncoder:
    """The model, without its weights if they are not in memory, and the task's prompts for it.

    Args:
        settings: which model, and how long a prompt may be.
        task: what is asked.
        example: one of its examples, to see that the prompt fits them.

    Raises:
        UserError: the model cannot be loaded, or the prompt does not fit.
    """
    language_model = open_model(settings)
    soft, instances = soft_tokens(settings, language_model)
    encoder = PromptEncoder(language_model, task, settings.max_length or 0, soft, instances)
    check_prompt(encoder, example)
    return encoder


def open_prompts(settings: TuneSettings, task: Task, train: list[Example]) -> tuple[PromptEncoder, list[Example]]:
    """As ``open_prompt``, behind demonstrations where the settings ask for some; and what is left to train on.

    Raises:
        UserError: as ``open_prompt``, or demonstrations that cannot be had.
    """
    encoder = open_prompt(settings, task, train[0])
    if settings.demonstrations is None:
        return encoder, train
    encoder, left = with_demonstrations(encoder, train, settings.demonstrations, settings.seed)
    check_examples(encoder.task, left)
    return encoder, left


def check_examples(task: Task, train: Sequence[Example]) -> None:
    """Raise UserError if a training set is empty or holds a single class."""
    if not train:
        raise UserError(f"task: the training set of {task.name!r} is empty")
    if task.new_tokens == 0 and len({example.label for example in train}) < 2 and not task.one_class_train:
        raise UserError(f"task: the training set of {task.name!r} holds one class only; two are needed to tell apart")


def check_prompt(encoder: PromptEncoder, example: Example) -> None:
    """Raise UserError if the template or ``shorten`` names a field that the examples lack."""
    template = encoder.prompt.template
    for name in names(template):
        if name != "mask" and name not in example.fields:
            raise unknown(f"template: {template!r}", name, example.fields)
    if encoder.task.shorten and encoder.task.shorten not in example.fields:
        raise unknown("shorten", encoder.task.shorten, example.fields)
