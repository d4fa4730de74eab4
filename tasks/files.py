"""Tasks of one's own data, from csv, tsv and jsonl files or from lists of examples; and prompts of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dfolora import template as templates
from dfolora.errors import UserError
from dfolora.task import KINDS, Example, Measure, Prompt, Task

from .common import Source, split_name
from .draw import kshot, kshot_groups
from .metrics import accuracy, accuracy_and_macro_f1, squad
from .reading import path_of, read_rows, text
from .words import Words, class_of, parse_label_words

RESERVED = ("mask", "choice")


@dataclass(frozen=True)
class Splits:
    """Where the train, dev and test examples of a task come from. ``load`` is what the task needs of it.

    Attributes:
        name: the task's.
        read: split -> where its examples lie, for errors, and how to get them; ``train`` is there. Without ``dev``,
            train and dev are both drawn from the train examples: the first ``shots`` of each class in shuffled order
            train, the next ``shots`` are dev.
        classes: labels in class order; empty where each example has its own choices or its answer is generated.
    """

    name: str
    read: Mapping[str, tuple[str, Callable[[], list[Example]]]]
    classes: tuple[str, ...]

    def load(self, split: str, source: Source) -> list[Example]:
        """The examples of ``train``, ``dev`` or ``test``, or an alias of these."""
        split = split_name(split)
        if split == "test" and split not in self.read:
            raise UserError(f"{self.name}: there is no test set; give one with test_file, or tune with test_split dev")
        place, read = self.read.get(split, self.read["train"])
        examples = read()
        if "dev" not in self.read and split != "test":
            examples = self._drawn(place, examples, source)[0 if split == "train" else 1]
        if not examples:
            raise UserError(f"{place}: no examples")
        if split == "train" and self.classes and len({example.label for example in examples}) == 1:
            raise UserError(f"{place}: every example has the label {self.classes[examples[0].label]!r}; two are needed")
        return examples

    def _drawn(self, place: str, examples: list[Example], source: Source) -> tuple[list[Example], list[Example]]:
        try:
            if not self.classes:
                return kshot_groups(examples, source.shots, source.seed)
            return kshot(examples, source.shots, source.seed, self.classes)
        except UserError as error:
            raise UserError(f"{place}: {error}; or give dev examples of their own with dev_file") from None


def file_task(
    train_file: Path | str,
    dev_file: Path | str | None = None,
    test_file: Path | str | None = None,
    text_columns: str | Sequence[str] = ("text",),
    label_column: str = "label",
    template: str = "",
    label_words: Words = "0=bad,1=great",
    shorten: str | None = None,
    name: str = "",
    generated: bool = False,
) -> Task:
    """A task out of files. A csv file is quoted and has a header, so has a tsv file, in which quotes mean nothing.

    With a dev file, all of the train file is trained on. Without one, both are drawn from the train file.

    Args:
        train_file: labelled examples.
        dev_file: examples to select by.
        test_file: examples to report on; without it there is no test split.
        text_columns: columns that the template may use, or the name of the only one.
        label_column: the column with the label.
        template: text with ``{column}`` and, except for a sentence encoder, ``{mask}``; the same for every model.
        label_words: for a sentence encoder label sentences; see ``words.parse_label_words``.
        shorten: the column that is cut when a prompt is too long; None: the template's first.
        name: the task's name; empty: ``file:`` and the train file's name.
        generated: answers are generated. The label column, which need not be there, then holds the gold text, and there
            are no label words; without a template, the first column is the prompt.

    Returns:
        the task. It measures accuracy and macro F1 and selects by accuracy; generated answers by SQuAD's F1.

    Raises:
        UserError: no such file, a template that names other columns, words that are no label words.
    """
    files = {"train": _file("train_file", train_file)}
    if dev_file is not None:
        files["dev"] = _file("dev_file", dev_file)
    if test_file is not None:
        files["test"] = _file("test_file", test_file)
    columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
    for column in columns:
        if column in RESERVED:
            raise UserError(f"text_columns: a column cannot be called {column!r}, which means something in templates")
    template = template or (f"{{{columns[0]}}} {{mask}}" if generated else "")
    used = _columns(template, columns)
    if shorten is not None and shorten not in used:
        raise UserError(f"shorten: {shorten!r} is no column of the template; choose one of {', '.join(used)}")
    named = {} if generated else parse_label_words(label_words)
    classes = tuple(named)

    def read(file: Path) -> list[Example]:
        if generated:
            return [_asked(where, record, columns, label_column) for where, record in read_rows(file)]
        return [_example(where, record, columns, label_column, classes) for where, record in read_rows(file)]

    name = name or f"file:{files['train'].stem}"
    splits = Splits(name, {split: (str(file), partial(read, file)) for split, file in files.items()}, classes)
    return Task(
        name=name,
        classes=classes,
        prompts={kind: Prompt(template, tuple(named.values()) or None) for kind in KINDS},
        load=splits.load,
        measure=squad if generated else accuracy_and_macro_f1(len(classes)),
        selection=("f1",) if generated else ("accuracy",),
        shorten=shorten or used[0],
        one_class_train=generated,
        about=f"examples of {files['train'].name}",
    )


def example_task(
    train: Sequence[Example],
    dev: Sequence[Example] | None = None,
    test: Sequence[Example] | None = None,
    template: str = "{text} It was {mask}.",
    label_words: Words | None = None,
    shorten: str | None = None,
    name: str = "examples",
    measure: Measure | None = None,
    new_tokens: int = 0,
) -> Task:
    """A task out of lists of examples; see ``dfolora.Task.from_examples``."""
    named = parse_label_words(label_words) if label_words is not None else {}
    fields = _fields(template)
    if shorten and shorten not in fields:
        raise UserError(f"shorten: {shorten!r} is no field of the template; choose one of {', '.join(fields)}")
    lists = {"train": train, "dev": dev, "test": test}
    read: dict[str, tuple[str, Callable[[], list[Example]]]] = {
        split: (f"{name}: {split}", partial(list, _placed(split, examples, fields, len(named), new_tokens)))
        for split, examples in lists.items()
        if examples is not None
    }
    usual = squad if new_tokens else accuracy_and_macro_f1(len(named)) if named else accuracy
    return Task(
        name=name,
        classes=tuple(named),
        prompts={kind: Prompt(template, tuple(named.values()) or None) for kind in KINDS},
        load=Splits(name, read, tuple(named)).load,
        measure=measure or usual,
        selection=() if measure else ("f1",) if new_tokens else ("accuracy",),
        shorten=shorten if shorten is not None else next(iter(fields), ""),
        one_class_train=not named,
        new_tokens=new_tokens,
        about=f"{len(train)} examples given by a program",
        sizes={"test": len(test)} if test is not None else {},
    )


def with_prompt(task: Task, template: str = "", label_words: Words = "", shorten: str = "") -> Task:
    """A task with a template, label words or field to cut of one's own; empty ones stay as they are.

    Args:
        task: as registered.
        template: for every kind of model.
        label_words: one word per class, see ``words.parse_label_words``: ``"bad,great"`` in class order, or by name
            ``"negative=bad,positive=great"``.
        shorten: the field that is cut when a prompt is too long.
    """
    if not (template or label_words or shorten):
        return task
    named: tuple[str, ...] = ()
    if label_words:
        if not task.classes:
            raise UserError(f"label_words: {task.name} has none: each of its examples brings its own answers")
        named = tuple(parse_label_words(label_words, task.classes).values())
    templates.pieces(template)
    prompts = {
        kind: replace(prompt, template=template or prompt.template, words=named or prompt.words)
        for kind, prompt in task.prompts.items()
    }
    return replace(task, prompts=prompts, shorten=shorten or task.shorten)


def _file(option: str, file: Path | str) -> Path:
    path = path_of(option, file)
    if not path.is_file():
        raise UserError(f"{option}: {str(file)!r} is no file")
    return path


def _fields(template: str) -> list[str]:
    """The names of a template but ``mask``, each once."""
    return [name for name in dict.fromkeys(templates.names(template)) if name != "mask"]


def _columns(template: str, columns: Sequence[str]) -> list[str]:
    used = _fields(template)
    for name in used:
        if name not in columns:
            raise UserError(
                f"template: {templates.shown(template)} uses {{{name}}}, which is none of the text columns, "
                f"{', '.join(columns)}; name it in text_columns too{_near(name, columns)}"
            )
    if not used:
        raise UserError(
            f"template: {templates.shown(template)} uses no text column; write e.g. '{{{columns[0]}}} It was {{mask}}.'"
        )
    return used


def _example(
    where: str, record: Mapping[str, object], columns: Sequence[str], label_column: str, classes: Sequence[str]
) -> Example:
    for option, column in [("label_column", label_column), *(("text_columns", column) for column in columns)]:
        if column not in record:
            there = ", ".join(map(str, record))
            raise UserError(f"{option}: no column {column!r} in {where}, only {there:.200}{_near(column, record)}")
    label = class_of(record[label_column], classes)
    if label is None:
        shown = str(record[label_column])
        raise UserError(f"{where}: label {shown[:40]!r} is not in label_words, which has {', '.join(classes)}")
    try:
        return Example({column: text(record, column) for column in columns}, label, where=where)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _asked(where: str, record: Mapping[str, object], columns: Sequence[str], label_column: str) -> Example:
    """An example whose answer is generated; its gold text is in the label column, where there is one."""
    for column in columns:
        if column not in record:
            there = ", ".join(map(str, record))
            raise UserError(f"text_columns: no column {column!r} in {where}, only {there:.200}{_near(column, record)}")
    gold = str(record.get(label_column) if record.get(label_column) is not None else "").strip()
    try:
        fields = {column: text(record, column) for column in columns}
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Example(fields, 0, gold=(gold,) if gold else (), where=where)


def _placed(
    split: str, examples: Sequence[Example], fields: Sequence[str], classes: int, new_tokens: int
) -> list[Example]:
    """The examples, each told where it stands, once they have what the prompt needs."""
    placed = []
    for number, example in enumerate(examples):
        where = example.where or f"{split}[{number}]"
        for name in fields:
            if not isinstance(example.fields.get(name), str):
                raise UserError(f"{where}: no text {name!r} for the template; there are {', '.join(example.fields)}")
        if classes and not 0 <= example.label < classes:
            raise UserError(f"{where}: label {example.label} is none of 0 to {classes - 1}")
        if not (classes or new_tokens or example.choices):
            raise UserError(f"{where}: it has no choices, and there are no label words; give one or the other")
        placed.append(replace(example, where=where))
    return placed


def _near(name: str, known: Iterable[str]) -> str:
    similar = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {similar[0]!r}?)" if similar else ""
