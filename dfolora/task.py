"""What a task is: examples as text, a prompt per kind of model, a metric. No torch, no tokenizer, no files.

The datasets themselves live in ``tasks/`` (installed as ``dfolora.tasks``); the library never imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["masked", "causal", "seq2seq", "encoder"]
KINDS: tuple[Kind, ...] = ("masked", "causal", "seq2seq", "encoder")
AUTO_CLASSES = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}
"""The class of transformers that loads each kind."""


@dataclass(frozen=True)
class Example:
    """One labelled text.

    Attributes:
        fields: what the template's ``{name}`` placeholders stand for.
        label: index of the right class; for an example with ``choices`` and no ``choice_class``, of the right choice.
        choices: answer texts of this example alone (COPA, ReCoRD, WSC); None where the prompt's label words serve.
        choice_class: the class that each choice speaks for; a class scores as its best choice. None: every choice is
            a class of its own.
        group: examples that are scored together share it (MultiRC: the question).
        gold: every right answer text, where a metric compares texts (ReCoRD, SQuAD). Where the answer is generated, the
            first one is what is taught, and ``label`` is 0.
    """

    fields: Mapping[str, str]
    label: int
    choices: tuple[str, ...] | None = None
    choice_class: tuple[int, ...] | None = None
    group: str = ""
    gold: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """How one kind of model is asked.

    Attributes:
        template: text with ``{field}`` placeholders and, except for a sentence encoder, exactly one ``{mask}``: where
            the answer stands. A causal model reads what is left of ``{mask}`` only.
        words: label words in class order, one token each (for a sentence encoder: label sentences); None: each
            example brings its own ``choices``, or the answer is generated.
        answer: the text that is scored for a choice, with ``{choice}`` and fields. Only a sentence encoder needs more
            than the choice itself: it compares whole sentences.
    """

    template: str
    words: tuple[str, ...] | None = None
    answer: str = "{choice}"


Metrics = dict[str, float]
Measure = Callable[[Sequence[Example], Sequence[Any]], Metrics]
"""(examples, the predicted class of each; where answers are generated, the text of each) -> metrics in percent."""


@dataclass(frozen=True)
class Task:
    """A dataset with its prompts and its official metric.

    Attributes:
        name: as the user types it, e.g. ``superglue/boolq``.
        classes: class names in label order; empty where each example has its own choices.
        prompts: one per kind of model it supports.
        load: ``(split, source) -> examples``; split is ``train``, ``dev`` or ``test``; see ``tasks/common.py``.
        measure: (examples, predicted class per example) -> metrics in percent, official ones, main one first. Where
            answers are generated: (examples, text per example).
        selection: the metrics whose mean selects adapters; empty: all of them.
        shorten: the field that is cut when a prompt is too long (the passage, never the question).
        one_class_train: True where a training set of a single class is still informative (WSC: choices differ).
        new_tokens: most tokens of an answer that the model generates, up to the end of a line; 0: it does not, a class
            or choice is predicted.
    """

    name: str
    classes: tuple[str, ...]
    prompts: Mapping[Kind, Prompt]
    load: Callable[..., list[Example]]
    measure: Measure
    selection: tuple[str, ...] = ()
    shorten: str = ""
    one_class_train: bool = False
    new_tokens: int = 0
    about: str = field(default="", compare=False)

    def main(self, metrics: Metrics) -> float:
        """The one number that selection maximises: the mean of the selected metrics."""
        names = self.selection or tuple(metrics)
        return sum(metrics[name] for name in names) / len(names)
