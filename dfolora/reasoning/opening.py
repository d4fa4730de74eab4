"""``dfolora.prompt``: from what was asked for to answered questions and their scores."""

from __future__ import annotations

import dataclasses
import random
import time
from pathlib import Path
from typing import Any

from dfolora.chat import CallLimit, Chat, open_chat
from dfolora.errors import UserError, unknown
from dfolora.question import Question, QuestionSet
from dfolora.reasoning import make_predictor, options_of, own_options
from dfolora.reasoning.asker import Asker
from dfolora.reasoning.folder import FREE, PromptFolder, settings_of
from dfolora.reasoning.predictor import Predictor
from dfolora.reasoning.scores import score
from dfolora.reasoning.trace import Trace
from dfolora.runs.description import name_of
from dfolora.runs.listener import Listener
from dfolora.settings.options import as_text
from dfolora.settings.prompting import PromptSettings


def prompt(
    model: Any = "",
    task: Any = "",
    *,
    resume: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Answer a set of questions by a chat model, and score the answers.

    Every reply that was paid for lies in the run's folder. A run that was killed or stopped by ``max_calls`` goes on
    when it is called again with the same settings and ``output``, or with ``resume``, and pays for no reply twice.

    Args:
        model: folder or hub id of a causal model, or a ``Chat``; nothing: give ``base_url``.
        task: name of a set of questions (`dfolora question-sets`), or a ``QuestionSet``.
        resume: the folder of a run to go on with; beside it only what no answer depends on: ``max_calls``, ``batch``,
            ``device`` and what is about the connection.
        listener: told how it gets on.
        options: any option of ``dfolora prompt``: ``method``, what the method takes itself, ``data``, ``output``, ...

    Returns:
        What ``scores.json`` holds: ``reasoning.scores.score``, and what was asked of which model.

    Raises:
        UserError: whatever was given that cannot work; ``CallLimit`` where ``max_calls`` is reached before the end.
    """
    given = {name: value for name, value in (("model", model), ("task", task)) if value != ""}
    settings = prompt_settings({**given, **options}, resume)
    listener = listener or Listener()
    questions, asked = open_questions(settings)
    chat = settings.model if isinstance(settings.model, Chat) else None
    # Whatever is wrong with the method's options shows before a folder is made.
    predictor_of(settings, questions, chat)
    path = Path(settings.output).expanduser() if settings.output else unused(settings, settings.method)
    with PromptFolder.open(path, saved_prompt(settings)) as folder:
        return folder.scores or _answer(settings, questions, asked, folder, listener)


def prompt_settings(values: dict[str, Any], resume: str | Path | None = None) -> PromptSettings:
    """The settings that options make, those of the method among them.

    Raises:
        UserError: an option that there is not, or a value that cannot work.
    """
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if resume:
        path = Path(resume).expanduser()
        free = {*FREE, "model"} - {"output"} if not isinstance(values.get("model"), str) else set(FREE) - {"output"}
        extra = [name for name in values if name not in free]
        if extra:
            raise UserError(f"resume: everything comes from {str(path)!r}; leave out {', '.join(sorted(extra))}")
        old = {name: value for name, value in settings_of(path).items() if name not in ("predictor", "max_calls")}
        values = {**old, **values, "output": str(path)}
    names = {field.name for field in dataclasses.fields(PromptSettings)} - {"predictor_options"}
    method = str(values.get("method", "eot"))
    takes = options_of(method)
    own = {name: value for name, value in values.items() if name in takes and name not in names}
    plain = {name: value for name, value in values.items() if name not in own}
    for name in plain:
        if name not in names:
            raise unknown("option", name, {*names, *takes})
    return PromptSettings(**plain, predictor_options=own_options(method, own))


def saved_prompt(settings: PromptSettings) -> dict[str, Any]:
    """Settings as a YAML file holds them; ``predictor`` lists the options that the method takes itself."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    own = {**values.pop("predictor_options"), **values.pop("evolve_options", {})}
    values["task"] = task_name(settings)
    values["model"] = as_text(settings.model)
    if settings.data:
        values["data"] = str(Path(settings.data).expanduser().resolve())
    plain = {name: value for name, value in values.items() if value is not None}
    return {**plain, **own, "predictor": sorted(own)}


def open_questions(settings: PromptSettings) -> tuple[QuestionSet, list[tuple[int, Question]]]:
    """The set of questions, and those that are asked with their places in it.

    Raises:
        UserError: an unknown set, or a file that cannot be read.
    """
    from dfolora.tasks.reasoning import question_set

    questions = settings.task if isinstance(settings.task, QuestionSet) else question_set(str(settings.task))
    pairs = list(enumerate(questions.load(Path(settings.data))))
    if settings.limit is not None and settings.limit < len(pairs):
        random.Random(0).shuffle(pairs)  # the first 20 are among the first 100
        pairs = pairs[: settings.limit]
    return questions, pairs


def named_set(task: Any) -> QuestionSet | None:
    """The set of questions of a name, or the set itself; None: it is a task of another kind.

    Raises:
        UserError: it is no task at all.
    """
    from dfolora import tasks
    from dfolora.tasks import reasoning

    if not isinstance(task, str):
        return task if isinstance(task, QuestionSet) else None
    if task in reasoning.REGISTRY.names():
        return reasoning.question_set(task)
    if task not in tasks.task_names():
        raise unknown("task", task, [*reasoning.REGISTRY.names(), *tasks.task_names()])
    return None


def question_sets() -> dict[str, str]:
    """Every set of questions by name, and what it is in one line."""
    from dfolora.tasks import reasoning

    return reasoning.REGISTRY.describe()


def predictor_of(settings: PromptSettings, questions: QuestionSet, chat: Any) -> Predictor:
    """The predictor that some settings name, on a chat model."""
    asker = Asker(
        chat, questions.kind, questions.family, settings.max_tokens, settings.temperature, settings.seed,
        settings.second_call,
    )  # fmt: skip
    return make_predictor(settings.method, asker, settings.predictor_options)


def _answer(
    settings: PromptSettings,
    questions: QuestionSet,
    asked: list[tuple[int, Question]],
    folder: PromptFolder,
    listener: Listener,
) -> dict[str, Any]:
    started = time.monotonic()
    listener.stage(f"opening {name_of(settings.model) or settings.base_url}")
    chat = open_model(settings, folder)
    predictor = predictor_of(settings, questions, chat)
    done = {line["index"] for line in folder.lines}
    left = [(index, question) for index, question in asked if index not in done]
    try:
        shared = predictor.prepare()
        if shared is not None and shared.index not in done:
            folder.add(shared.line(questions.kind))
        for start in range(0, len(left), settings.batch):
            listener.stage(_progress(settings, folder, len(asked), time.monotonic() - started, start))
            traces = [Trace(index, question) for index, question in left[start : start + settings.batch]]
            predictor.answer(traces)
            folder.add(*(trace.line(questions.kind) for trace in traces))
    except CallLimit as limit:
        answered = sum(line["index"] >= 0 for line in folder.lines)
        raise called_up(settings, folder, f"{answered} of {len(asked)} questions") from limit
    scores = {
        "model": name_of(settings.model) or settings.api_model,
        "task": questions.name,
        "method": settings.method,
        **score(folder.lines),
        "seconds": time.monotonic() - started,
        "run": str(folder.path),
    }
    folder.finish(scores)
    return scores


def called_up(settings: PromptSettings, folder: PromptFolder, reached: str) -> CallLimit:
    """The error of a run whose calls are used up; it says how far it came and how to go on."""
    return CallLimit(
        f"max_calls: {settings.max_calls} calls are used up after {reached}; what was paid for lies in "
        f"{str(folder.path)!r}; go on with a larger one: dfolora prompt --resume {folder.path} --max-calls N"
    )


def open_model(settings: PromptSettings, folder: PromptFolder) -> Chat:
    """The chat model that settings name, behind the cache of a run, whose replies count as calls that were made.

    Raises:
        UserError: no such model or server.
    """
    local, server = settings.model or None, settings.base_url or None
    chat = open_chat(
        (settings.api_model or None) if server else local, server, cache=folder.cache, max_calls=settings.max_calls,
        adapter=settings.adapter, device=settings.device, dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        key_variable=settings.key_variable, concurrency=settings.concurrency, timeout=settings.timeout,
    )  # fmt: skip
    chat.ledger.calls = folder.paid
    return chat


def _progress(settings: PromptSettings, folder: PromptFolder, count: int, seconds: float, answered: int) -> str:
    so_far = score(folder.lines)
    text = f"{settings.method}: {so_far['questions']} of {count} questions, {so_far['calls']} calls"
    if so_far["questions"]:
        text += f", {so_far['accuracy']:.1f} % right"
    if answered:
        left = round(seconds / answered * (count - so_far["questions"]))
        text += f", {left // 60}:{left % 60:02d} left"
    return text


def unused(settings: PromptSettings, what: str) -> Path:
    """A folder under runs/ that is not there yet."""
    name = f"{task_name(settings)}-{what}-seed{settings.seed}".replace("/", "-")
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def task_name(settings: PromptSettings) -> str:
    """The task's name, also where it was given as an object."""
    return settings.task if isinstance(settings.task, str) else settings.task.name
