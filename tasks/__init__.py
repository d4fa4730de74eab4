"""Datasets: one file each, loaded by name when asked for.

A new one is a file with a ``Task`` and a line in ``REGISTRY``; in another package, an entry point of the group
``dfolora.tasks`` or a call of ``REGISTRY.add``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfolora.errors import UserError, unknown
from dfolora.registry import Registry
from dfolora.task import Task

REGISTRY = Registry(
    "task",
    {
        "superglue/boolq": ("dfolora.tasks.boolq:TASK", "is the answer to a question about a passage yes? accuracy"),
        "superglue/cb": (
            "dfolora.tasks.cb:TASK",
            "does the speaker commit to the hypothesis? 3 classes; accuracy and macro F1",
        ),
        "superglue/copa": ("dfolora.tasks.copa:TASK", "which of two sentences is the cause or the effect? accuracy"),
        "superglue/multirc": (
            "dfolora.tasks.multirc:TASK",
            "is this one of the right answers? F1 over answers, exact match of questions",
        ),
        "superglue/record": (
            "dfolora.tasks.record:TASK",
            "which entity of the passage is missing in the query? exact match and F1",
        ),
        "superglue/rte": ("dfolora.tasks.rte:TASK", "does the premise entail the hypothesis? accuracy"),
        "superglue/wic": ("dfolora.tasks.wic:TASK", "has a word the same sense in two sentences? accuracy"),
        "superglue/wsc": ("dfolora.tasks.wsc:TASK", "does the pronoun refer to this noun phrase? accuracy"),
        "glue/sst2": ("dfolora.tasks.sst2:TASK", "is a movie review positive? accuracy"),
        "glue/mrpc": ("dfolora.tasks.mrpc:TASK", "do two sentences say the same? F1 and accuracy"),
        "agnews": ("dfolora.tasks.agnews:TASK", "topic of a news item; 4 classes; accuracy"),
        "yelp": ("dfolora.tasks.yelp:TASK", "is a review of a business positive? accuracy"),
        "dbpedia": ("dfolora.tasks.dbpedia:TASK", "what kind of thing is described? 14 classes; accuracy"),
        "snli": ("dfolora.tasks.snli:TASK", "entailment, neutral or contradiction? accuracy"),
        "mezo/sst2": ("dfolora.tasks.mezo:SST2", "glue/sst2 as MeZO asks causal models; accuracy"),
        "mezo/rte": ("dfolora.tasks.mezo:RTE", "superglue/rte as MeZO asks causal models; accuracy"),
        "mezo/cb": ("dfolora.tasks.mezo:CB", "superglue/cb as MeZO asks causal models; accuracy"),
        "mezo/boolq": ("dfolora.tasks.mezo:BOOLQ", "superglue/boolq as MeZO asks causal models; accuracy"),
        "mezo/wsc": ("dfolora.tasks.mezo:WSC", "superglue/wsc as MeZO asks causal models, yes or no; accuracy"),
        "mezo/wic": ("dfolora.tasks.mezo:WIC", "superglue/wic as MeZO asks causal models; accuracy"),
        "mezo/multirc": (
            "dfolora.tasks.mezo:MULTIRC",
            "superglue/multirc as MeZO asks causal models; accuracy over answers",
        ),
        "mezo/copa": ("dfolora.tasks.mezo:COPA", "superglue/copa as MeZO asks causal models; accuracy"),
        "mezo/record": ("dfolora.tasks.mezo:RECORD", "superglue/record as MeZO asks causal models; exact match and F1"),
        "squad": (
            "dfolora.tasks.squad:TASK",
            "answer a question with words of a passage, generated; token F1 and exact match",
        ),
        "drop": (
            "dfolora.tasks.drop:TASK",
            "the same where the answer takes counting or sums; token F1 and exact match",
        ),
        "demo/sentiment": (
            "dfolora.tasks.demo:SENTIMENT",
            "is a review good or bad? synthetic, nothing to download",
        ),
        "demo/pair": ("dfolora.tasks.demo:PAIR", "does a claim fit a review? synthetic, nothing to download"),
    },
    "dfolora.tasks",
)


def task_names() -> list[str]:
    """Every name that ``get_task`` knows, sorted."""
    return REGISTRY.names()


def about(name: str) -> str:
    """What a task is, in one line, without loading it.

    Raises:
        UserError: the name is not known; the message suggests near ones.
    """
    lines = REGISTRY.describe()
    if name not in lines:
        raise unknown("task", name, lines)
    return lines[name]


def get_task(name: str) -> Task:
    """The task of that name; its module is imported now and not before.

    Raises:
        UserError: the name is not known (the message suggests near ones), or stands for something else than a task.
    """
    line = about(name)
    task = REGISTRY.get(name)
    if not isinstance(task, Task):
        raise UserError(f"task: {name!r} is a {type(task).__name__}, not a dfolora.Task")
    return replace(task, name=name, about=task.about if line.startswith("from ") and task.about else line)


def is_generated(task: Any) -> bool:
    """Whether answers are generated, of a ``Task`` or of the one of that name; False where the name is not known."""
    if isinstance(task, str):
        task = get_task(task) if task in task_names() else None
    return isinstance(task, Task) and bool(task.new_tokens)


def describe(name: str) -> dict[str, Any]:
    """The facts of a task, as JSON holds them; no examples are loaded.

    Returns:
        ``name, about``; ``models``: the kinds of model that it has a prompt for; ``classes``: in label order, empty
        where each example has its own choices; ``answer``: ``"a class"``, ``"a choice"`` or ``"generated text"``;
        ``prompts``: kind -> ``template``, ``words`` (None where there are none) and ``answer``; ``shorten``: the field
        that is cut; ``sizes``: split -> examples, where that is known.

    Raises:
        UserError: the name is not known.
    """
    task = get_task(name)
    worded = all(prompt.words is not None for prompt in task.prompts.values())
    return {
        "name": task.name,
        "about": task.about,
        "models": list(task.prompts),
        "classes": list(task.classes),
        "answer": "generated text" if task.new_tokens else "a class" if worded else "a choice",
        "prompts": {
            kind: {"template": prompt.template, "words": prompt.words and list(prompt.words), "answer": prompt.answer}
            for kind, prompt in task.prompts.items()
        },
        "shorten": task.shorten,
        "sizes": dict(task.sizes),
    }
