"""What a task is: examples as text, a prompt per kind of model, a metric. No torch, no tokenizer, no files.

The datasets themselves live in ``tasks/`` (installed as ``dfolora.tasks``), which nothing here imports before a task is
made of somebody's own data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
    """A labelled example: its text fields and the index of its right answer.

    Attributes:
        fields: what the template's ``{name}`` placeholders stand for.
        label: index of the right class; for an example with ``choices`` and no ``choice_class``, of the right choice.
        choices: answer texts of this example alone (COPA, ReCoRD, WSC); None where the prompt's label words serve.
        choice_class: the class that each choice speaks for; a class scores as its best choice. None: every choice is
            a class of its own.
        group: examples that are scored together share it (MultiRC: the question).
        gold: every right answer text, where a metric compares texts (ReCoRD, SQuAD). Where the answer is generated, the
            first one is what is taught, and ``label`` is 0.
        where: file and line that it comes from, or its place in a list; for errors.
    """

    fields: Mapping[str, str]
    label: int
    choices: tuple[str, ...] | None = None
    choice_class: tuple[int, ...] | None = None
    group: str = ""
    gold: tuple[str, ...] = ()
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Prompt:
    """A prompt for one kind of model: template, label words and answers.

    Attributes:
        template: text with ``{field}`` placeholders (``template.py``) and, except for a sentence encoder, exactly one
            ``{mask}``: where the answer stands. A causal model reads what is left of ``{mask}`` only.
        words: label words in class order, one token each (for a sentence encoder: label sentences); None: each
            example brings its own ``choices``, or the answer is generated.
        answer: the text that is scored for a choice, with ``{choice}`` and fields. Only a sentence encoder needs more
            than the choice itself: it compares whole sentences.
        chat: whether the template, up to ``{mask}``, is a user's message in the model's own chat template.
        system: the system's message in front of it; '': none is given, and some models put in one of their own.
    """

    template: str
    words: tuple[str, ...] | None = None
    answer: str = "{choice}"
    chat: bool = False
    system: str = ""


@dataclass(frozen=True)
class Decoding:
    """How an answer is generated, and where it ends.

    Attributes:
        temperature: 0 takes the likeliest token every time; T > 0 draws tokens from softmax(logits / T).
        top_p: only from the likeliest tokens that together have this probability (arXiv 1904.09751).
        samples: answers that are drawn to each prompt, whose rewards are averaged.
        stop: texts that end an answer, which are no part of it; beside them the model's own end token does.
        seed: of what is drawn.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    stop: tuple[str, ...] = ("\n",)
    seed: int = 0


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
        new_tokens: most tokens of an answer that the model generates; 0: it does not, a class or choice is predicted.
        decoding: how such an answer is generated.
        rewarded: whether a reward measures it, so that a gold text's likelihood says nothing of an answer.
        about: what it is, in one line.
        sizes: split -> number of examples, of those splits whose size is known without loading.
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
    decoding: Decoding = Decoding()
    rewarded: bool = False
    about: str = field(default="", compare=False)
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def main(self, metrics: Metrics) -> float:
        """The one number that selection maximises: the mean of the selected metrics."""
        names = self.selection or tuple(metrics)
        return sum(metrics[name] for name in names) / len(names)

    @classmethod
    def from_files(
        cls,
        train: str | Path,
        test: str | Path | None = None,
        dev: str | Path | None = None,
        *,
        text_columns: str | Sequence[str] = "text",
        label_column: str = "label",
        template: str = "{text} It was {mask}.",
        words: str | Mapping[Any, Any] | Sequence[Any] = "0=bad,1=great",
        shorten: str | None = None,
        name: str = "",
    ) -> Task:
        """A task out of csv, tsv or jsonl files.

        Args:
            train: labelled examples. Without ``dev``, training and dev examples are both drawn from it, as many per
                class as the run's ``shots`` say; with it, all of them are trained on.
            test: examples to report on; None: there is no test set.
            dev: examples to select by.
            text_columns: the columns that the template uses, or the only one.
            label_column: the column with the label.
            template: text with ``{column}`` and ``{mask}``, the same for every kind of model.
            words: label -> word, or words in class order for the labels 0, 1 and so on.
            shorten: the column that is cut when a prompt is too long; None: the template's first.
            name: the task's name; empty: ``file:`` and the train file's name.

        Raises:
            UserError: a file that is not there, a template or words that cannot serve.
        """
        from dfolora.tasks.files import file_task

        return file_task(train, dev, test, text_columns, label_column, template, words, shorten, name)

    @classmethod
    def from_examples(
        cls,
        train: Sequence[Example],
        dev: Sequence[Example] | None = None,
        test: Sequence[Example] | None = None,
        *,
        template: str = "{text} It was {mask}.",
        words: str | Mapping[Any, Any] | Sequence[Any] | None = None,
        shorten: str | None = None,
        name: str = "examples",
        measure: Measure | None = None,
        new_tokens: int = 0,
    ) -> Task:
        """A task out of examples made in Python.

        Args:
            train: labelled examples. Without ``dev``, training and dev examples are both drawn from it.
            dev: examples to select by.
            test: examples to report on; None: there is no test set.
            template: text with ``{field}`` and ``{mask}``, the same for every kind of model.
            words: words in class order, or class name -> word; None: each example has ``choices``, or the answer is
                generated.
            shorten: the field that is cut when a prompt is too long; None: the template's first.
            name: the task's name.
            measure: (examples, predicted class or generated text of each) -> metrics; None: accuracy and macro F1, for
                choices accuracy, for generated answers SQuAD's F1 and exact match.
            new_tokens: most tokens of a generated answer; 0: a class or choice is predicted.

        Raises:
            UserError: an example without a field, label or choices that the prompt needs.
        """
        from dfolora.tasks.files import example_task

        return example_task(train, dev, test, template, words, shorten, name, measure, new_tokens)
