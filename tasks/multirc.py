"""MultiRC: is this answer to a question about a passage right? The validation set is the test set.

F1 over all answers pooled (f1a) and questions with every answer judged right (em). Each (passage, question, answer) is
an example; a question's examples share their group, and are never separated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import multirc
from .reading import class_index, items, number, pick, text

CLASSES = ("wrong", "right")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A passage with its questions and their answers, or the Hub's row for one answer."""
    passage = pick(record, "passage")
    if isinstance(passage, str):
        idx = pick(record, "idx")
        group = f"{number(idx, 'paragraph')}-{number(idx, 'question')}"
        return [_example(passage, text(record, "question"), group, text(record, "answer"), pick(record, "label"))]
    return [
        _example(
            text(passage, "text"),
            text(question, "question"),
            f"{number(record, 'idx')}-{number(question, 'idx')}",
            text(answer, "text"),
            pick(answer, "label"),
        )
        for question in items(passage, "questions")
        for answer in items(question, "answers")
    ]


def _example(passage: str, question: str, group: str, reply: str, label: object) -> Example:
    fields = {"passage": " ".join(passage.split()), "question": question, "reply": reply}
    return Example(fields, class_index(label, CLASSES), group=group)


DATA = Dataset(
    "superglue/multirc",
    folders=("MultiRC",),
    classes=(),
    examples=examples,
    hub=Hub("aps/super_glue", "multirc", "validation"),
)

QUESTION = '{passage} Question: {question} Is "{reply}" a correct answer?'
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt(QUESTION + " {mask}.", ("No", "Yes")),
        "causal": Prompt(QUESTION + " Answer: {mask}", ("No", "Yes")),
        "seq2seq": Prompt(QUESTION + " {mask}.", ("No", "Yes")),
        "encoder": Prompt(
            "{passage} {question} {reply}", ("No, that answer is wrong.", "Yes, that answer is correct.")
        ),
    },
    load=DATA.load,
    measure=multirc,
    shorten="passage",
    sizes={"test": 4848},
)
