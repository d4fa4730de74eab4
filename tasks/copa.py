"""COPA: which of two sentences is the premise's cause, or its effect? The validation set is the test set. Accuracy.

The premise and a choice are joined by "because" or "so" into one sentence, and the likelier choice wins; the choices
are not shown beforehand, since their order would then sway the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, pick, text

CHOICES = ("choice1", "choice2")
JOINERS = {"cause": "because", "effect": "so"}


def clause(sentence: str) -> str:
    """The sentence as the second half of another one: lower-cased first letter, no full stop."""
    sentence = sentence.rstrip(". ")
    # "I" stays, alone and in "I'm".
    return sentence if sentence[:2] in ("I", "I ", "I'") else sentence[:1].lower() + sentence[1:]


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``premise``, ``choice1``, ``choice2``, ``question`` (``cause`` or ``effect``) and ``label``."""
    relation = text(record, "question")
    if relation not in JOINERS:
        raise UserError(f"question {relation[:40]!r} is none of {', '.join(JOINERS)}")
    fields = {"premise": text(record, "premise").rstrip(". "), "joiner": JOINERS[relation]}
    choices = tuple(clause(text(record, name)) for name in CHOICES)
    return [Example(fields, class_index(pick(record, "label"), CHOICES), choices=choices)]


DATA = Dataset(
    "superglue/copa",
    folders=("COPA",),
    classes=CHOICES,
    examples=examples,
    hub=Hub("aps/super_glue", "copa", "validation"),
    one_class_train=True,
)

TASK = Task(
    name=DATA.name,
    classes=(),
    prompts={
        "masked": Prompt("{premise} {joiner} {mask}."),
        "causal": Prompt("{premise} {joiner} {mask}"),
        "seq2seq": Prompt("{premise} {joiner} {mask}."),
        "encoder": Prompt("{premise} {joiner} ..."),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="premise",
    one_class_train=True,
    sizes={"test": 100},
)
