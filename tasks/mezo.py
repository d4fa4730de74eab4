"""The tasks of the zeroth-order papers as they ask causal models: MeZO's templates and label words for OPT.

After MeZO (arXiv 2305.17333), which the papers after it compare themselves with. The datasets are those of the tasks
without ``mezo/``: same files, same splits. Options score by their mean log-probability per token, and all but ReCoRD
report accuracy. What differs from there: a prompt that is too long loses the end of its passage, not its beginning;
MultiRC's passage is one line; ReCoRD trains on ten choices. The papers draw 1,000 training examples: ``shots``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from dfolora.task import Example, Measure, Prompt, Task

from . import boolq, cb, copa, multirc, record, rte, sst2, wic, wsc
from .common import Dataset
from .metrics import accuracy
from .reading import class_index, pick, text


def _task(
    task: Task,
    dataset: Dataset,
    prompt: Prompt,
    load: Callable[..., list[Example]] | None = None,
    measure: Measure = accuracy,
) -> Task:
    """A task with one prompt, for causal models, and accuracy as its metric."""
    return replace(
        task, name=dataset.name, prompts={"causal": prompt}, load=load or dataset.load, measure=measure, selection=()
    )


SST2 = _task(
    sst2.TASK,
    replace(sst2.DATA, name="mezo/sst2"),
    Prompt("{text} It was {mask}", ("terrible", "great")),
)

RTE = _task(
    rte.TASK,
    replace(rte.DATA, name="mezo/rte"),
    Prompt('{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n{mask}', ("Yes", "No")),
)

CB = _task(
    cb.TASK,
    replace(cb.DATA, name="mezo/cb"),
    Prompt('Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n{mask}', ("Yes", "No", "Maybe")),
)


def boolq_examples(row: Mapping[str, Any]) -> list[Example]:
    """BoolQ's, the question with a capital letter."""
    (example,) = boolq.examples(row)
    question = example.fields["question"]
    return [replace(example, fields={**example.fields, "question": question[:1].upper() + question[1:]})]


BOOLQ = _task(
    boolq.TASK,
    replace(boolq.DATA, name="mezo/boolq", examples=boolq_examples),
    Prompt("{passage} {question}?\n{mask}", ("No", "Yes")),
)


def wsc_examples(row: Mapping[str, Any]) -> list[Example]:
    """A yes/no question on the given noun phrase. FewGLUE's training examples are all true and teach "Yes" only."""
    target = row.get("target", row)
    fields = {
        "text": text(row, "text"),
        "pronoun": text(target, "span2_text").lower(),
        "phrase": text(target, "span1_text"),
    }
    return [Example(fields, class_index(pick(row, "label"), wsc.CLASSES))]


WSC = _task(
    wsc.TASK,
    replace(wsc.DATA, name="mezo/wsc", examples=wsc_examples),
    Prompt(
        '{text}\nIn the previous sentence, does the pronoun "{pronoun}" refer to {phrase}? Yes or No?\n{mask}',
        ("No", "Yes"),
    ),
)

WIC = _task(
    wic.TASK,
    replace(wic.DATA, name="mezo/wic"),
    Prompt(
        'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
        "{sentence1}\n{sentence2}\n{mask}",
        ("No", "Yes"),
    ),
)

MULTIRC = _task(
    multirc.TASK,
    replace(multirc.DATA, name="mezo/multirc"),
    Prompt(
        '{passage}\nQuestion: {question}\nI found this answer "{reply}". Is that correct? Yes or No?\n{mask}',
        ("No", "Yes"),
    ),
)


def copa_examples(row: Mapping[str, Any]) -> list[Example]:
    """COPA's, the choices whole sentences but for the first word, which is in lower case unless it is "I"."""
    (example,) = copa.examples(row)
    sentences = [text(row, name).partition(" ") for name in copa.CHOICES]
    choices = tuple((first if first == "I" else first.lower()) + space + rest for first, space, rest in sentences)
    return [replace(example, choices=choices)]


COPA = _task(
    copa.TASK, replace(copa.DATA, name="mezo/copa", examples=copa_examples), Prompt("{premise} {joiner} {mask}")
)


def record_examples(row: Mapping[str, Any]) -> list[Example]:
    """ReCoRD's, the lines of the passage kept and its highlights marked as a list."""
    passage = pick(row, "passage")
    body = passage if isinstance(passage, str) else text(passage, "text")
    lines = body.replace("@highlight\n", "- ")
    return [replace(example, fields={**example.fields, "passage": lines}) for example in record.examples(row)]


RECORD_DATA = replace(record.DATA, name="mezo/record", examples=record_examples)
# The query as one more highlight: all of it is scored.
RECORD = _task(
    record.TASK,
    RECORD_DATA,
    Prompt("{passage}\n- {mask}", answer="{before}{choice}{after}"),
    load=partial(record.load, dataset=RECORD_DATA),
    measure=record.measure,
)
