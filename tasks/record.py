"""ReCoRD: which entity of the passage stands at ``@placeholder`` in the query? Exact match and token F1.

The choices are the passage's entities, one text once. In dev and test they are all there, and any of the gold texts
may be predicted; ``label`` points at the first. A training example has its gold text and at most nine wrong ones.
A gold text that is no marked entity is added to the choices, so that there always is a right one.

FewGLUE's folder has no ``val.jsonl`` everywhere (it is large); without it only dev can be evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub, Source, split_name
from .metrics import record as measure
from .reading import items, number, pick, raw_text, texts

PLACEHOLDER = "@placeholder"
TRAIN_CHOICES = 10


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A passage with its queries, or the Hub's row for one query (``entities`` and ``answers`` are texts there)."""
    passage = pick(record, "passage")
    if isinstance(passage, str):
        return [_example(passage, record, texts(items(record, "entities"), "entities"))]
    # Not stripped: the entities are positions in it.
    body = raw_text(passage, "text")
    spans = [(number(entity, "start"), number(entity, "end")) for entity in items(passage, "entities")]
    if any(not 0 <= start <= end < len(body) for start, end in spans):
        raise UserError(f"an entity lies outside the passage of {len(body)} characters")
    entities = [body[start : end + 1] for start, end in spans]  # "end" is the last character, not the one after
    return [_example(body, query, entities) for query in items(record, "qas")]


def _example(passage: str, query: Mapping[str, Any], entities: list[str]) -> Example:
    before, placeholder, after = raw_text(query, "query").partition(PLACEHOLDER)
    if not placeholder:
        raise UserError(f"the query has no {PLACEHOLDER}: {before[:40]!r}")
    answers = [answer if isinstance(answer, str) else raw_text(answer, "text") for answer in items(query, "answers")]
    gold = tuple(dict.fromkeys(answers))
    if not gold:
        raise UserError("the query has no answer")
    choices = tuple(dict.fromkeys(entities))
    if not set(gold) & set(choices):
        choices = (*choices, gold[0])
    label = next(choices.index(answer) for answer in gold if answer in choices)
    bullets = " ".join(re.sub(r"@highlight\s*", "- ", passage).split())
    return Example({"passage": bullets, "before": before, "after": after}, label, choices=choices, gold=gold)


def narrowed(example: Example, generator: np.random.RandomState) -> Example:
    """The example with its gold text and a draw of wrong ones, in their order in the passage."""
    assert example.choices is not None
    right = example.choices[example.label]
    wrong = [choice for choice in example.choices if choice not in example.gold]
    drawn = {wrong[i] for i in generator.permutation(len(wrong))[: TRAIN_CHOICES - 1]}
    choices = tuple(choice for choice in example.choices if choice == right or choice in drawn)
    return replace(example, choices=choices, label=choices.index(right))


DATA = Dataset(
    "superglue/record",
    folders=("ReCoRD",),
    classes=(),
    examples=examples,
    hub=Hub("aps/super_glue", "record", "validation"),
    one_class_train=True,
)


def load(split: str, source: Source, dataset: Dataset = DATA) -> list[Example]:
    """As any dataset's; training examples keep at most ten choices, drawn with the split's seed."""
    loaded = dataset.load(split, source)
    if split_name(split) != "train":
        return loaded
    generator = np.random.RandomState(source.seed)
    return [narrowed(example, generator) for example in loaded]


TASK = Task(
    name=DATA.name,
    classes=(),
    prompts={
        "masked": Prompt("{passage} {before}{mask}{after}"),
        # A causal model reads nothing behind the answer, so the rest of the query is scored with it.
        "causal": Prompt("{passage} {before}{mask}", answer="{choice}{after}"),
        "seq2seq": Prompt("{passage} {before}{mask}{after}"),
        "encoder": Prompt("{passage}", answer="{before}{choice}{after}"),
    },
    load=load,
    measure=measure,
    shorten="passage",
    one_class_train=True,
)
