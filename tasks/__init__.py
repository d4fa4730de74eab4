"""Datasets: one file each, loaded by name when asked for.

A new one is a file with a ``Task`` and a line in ``TASKS``.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from dfolora.errors import unknown
from dfolora.task import Task

TASKS = {
    "superglue/boolq": ("boolq:TASK", "is the answer to a question about a passage yes? accuracy"),
    "superglue/cb": ("cb:TASK", "does the speaker commit to the hypothesis? 3 classes; accuracy and macro F1"),
    "superglue/copa": ("copa:TASK", "which of two sentences is the cause or the effect? accuracy"),
    "superglue/multirc": (
        "multirc:TASK",
        "is this one of the right answers? F1 over answers, exact match of questions",
    ),
    "superglue/record": ("record:TASK", "which entity of the passage is missing in the query? exact match and F1"),
    "superglue/rte": ("rte:TASK", "does the premise entail the hypothesis? accuracy"),
    "superglue/wic": ("wic:TASK", "has a word the same sense in two sentences? accuracy"),
    "superglue/wsc": ("wsc:TASK", "does the pronoun refer to this noun phrase? accuracy"),
    "glue/sst2": ("sst2:TASK", "is a movie review positive? accuracy"),
    "glue/mrpc": ("mrpc:TASK", "do two sentences say the same? F1 and accuracy"),
    "agnews": ("agnews:TASK", "topic of a news item; 4 classes; accuracy"),
    "yelp": ("yelp:TASK", "is a review of a business positive? accuracy"),
    "dbpedia": ("dbpedia:TASK", "what kind of thing is described? 14 classes; accuracy"),
    "snli": ("snli:TASK", "entailment, neutral or contradiction? accuracy"),
    "mezo/sst2": ("mezo:SST2", "glue/sst2 as MeZO asks causal models; accuracy"),
    "mezo/rte": ("mezo:RTE", "superglue/rte as MeZO asks causal models; accuracy"),
    "mezo/cb": ("mezo:CB", "superglue/cb as MeZO asks causal models; accuracy"),
    "mezo/boolq": ("mezo:BOOLQ", "superglue/boolq as MeZO asks causal models; accuracy"),
    "mezo/wsc": ("mezo:WSC", "superglue/wsc as MeZO asks causal models, yes or no; accuracy"),
    "mezo/wic": ("mezo:WIC", "superglue/wic as MeZO asks causal models; accuracy"),
    "mezo/multirc": ("mezo:MULTIRC", "superglue/multirc as MeZO asks causal models; accuracy over answers"),
    "mezo/copa": ("mezo:COPA", "superglue/copa as MeZO asks causal models; accuracy"),
    "mezo/record": ("mezo:RECORD", "superglue/record as MeZO asks causal models; exact match and F1"),
    "squad": ("squad:TASK", "answer a question with words of a passage, generated; token F1 and exact match"),
    "drop": ("drop:TASK", "the same where the answer takes counting or sums; token F1 and exact match"),
    "demo/sentiment": ("demo:SENTIMENT", "which opinion of a review counts? synthetic, nothing to download"),
    "demo/pair": ("demo:PAIR", "does a claim fit a review? synthetic, nothing to download"),
}
"""Name -> (module inside this package and its variable, what it is in one line)."""


def task_names() -> list[str]:
    """Every name that ``get_task`` knows."""
    return list(TASKS)


def about(name: str) -> str:
    """What a task is, in one line, without loading it."""
    return _entry(name)[1]


def get_task(name: str) -> Task:
    """The task of that name; its module is imported now and not before.

    Raises:
        UserError: the name is not known; the message suggests near ones.
    """
    place, line = _entry(name)
    module, variable = place.split(":")
    task: Task = getattr(import_module(f"{__name__}.{module}"), variable)
    return replace(task, about=line)


def _entry(name: str) -> tuple[str, str]:
    if name not in TASKS:
        raise unknown("--task", name, TASKS)
    return TASKS[name]
