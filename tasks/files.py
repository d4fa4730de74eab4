"""A user's own csv, tsv or jsonl files as a task."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Formatter

from dfolora.errors import UserError
from dfolora.task import KINDS, Example, Prompt, Task

from .common import Source, split_name
from .draw import kshot
from .metrics import accuracy_and_macro_f1
from .reading import read_rows, text

RESERVED = ("mask", "choice")


def file_task(
    train_file: Path | str,
    dev_file: Path | str | None = None,
    test_file: Path | str | None = None,
    text_columns: Sequence[str] = ("text",),
    label_column: str = "label",
    template: str = "",
    label_words: str | Mapping[object, str] = "0=bad,1=great",
    shorten: str | None = None,
) -> Task:
    """A task out of files. A csv file is quoted and has a header, so has a tsv file, in which quotes mean nothing.

    With a dev file, all of the train file is trained on. Without one, both are drawn from the train file: the first
    ``shots`` examples of each class in shuffled order train, the next ``shots`` of each are dev.

    Args:
        train_file: labelled examples.
        dev_file: examples to select by.
        test_file: examples to report on; without it there is no test split.
        text_columns: columns that the template may use.
        label_column: the column with the label.
        template: text with ``{column}`` and, except for a sentence encoder, ``{mask}``; the same for every model.
        label_words: ``"label=word,label=word"`` in class order (for a sentence encoder: label sentences), a comma
            inside a word written ``\\\\,``; or a mapping.
        shorten: the column that is cut when a prompt is too long; None: the template's first.

    Returns:
        the task, named ``file:`` and the train file's name. It measures accuracy and macro F1 and selects by accuracy.
    """
    files = {"train": _file("--train-file", train_file)}
    if dev_file is not None:
        files["dev"] = _file("--dev-file", dev_file)
    if test_file is not None:
        files["test"] = _file("--test-file", test_file)
    columns = tuple(text_columns)
    for column in columns:
        if column in RESERVED:
            raise UserError(f"--text-columns: a column cannot be called {column!r}, which means something in templates")
    used = _template_columns(template, columns)
    if shorten is not None and shorten not in used:
        raise UserError(f"--shorten: {shorten!r} is no column of the template; choose one of {', '.join(used)}")
    words = parse_label_words(label_words)
    classes = tuple(words)
    name = f"file:{files['train'].stem}"

    def read(file: Path) -> list[Example]:
        return [_example(where, record, columns, label_column, classes) for where, record in read_rows(file)]

    def load(split: str, source: Source) -> list[Example]:
        split = split_name(split)
        if split == "test" and split not in files:
            raise UserError(f"{name}: there is no test set; give one with --test-file, or tune with --test-split dev")
        file = files.get(split, files["train"])
        found = read(file)
        if "dev" not in files and split != "test":
            try:
                found = kshot(found, source.shots, source.seed, classes)[0 if split == "train" else 1]
            except UserError as error:
                raise UserError(f"{file}: {error}; or give dev examples of their own with --dev-file") from None
        if not found:
            raise UserError(f"{file}: no examples")
        if split == "train" and len({example.label for example in found}) == 1:
            raise UserError(f"{file}: every example has the label {classes[found[0].label]!r}; two are needed")
        return found

    return Task(
        name=name,
        classes=classes,
        prompts={kind: Prompt(template, tuple(words.values())) for kind in KINDS},
        load=load,
        measure=accuracy_and_macro_f1(len(classes)),
        selection=("accuracy",),
        shorten=shorten or used[0],
        about=f"examples of {files['train'].name}",
    )


def with_prompt(task: Task, template: str = "", label_words: str = "", shorten: str = "") -> Task:
    """A registered task with the user's own template, label words or field to cut; empty ones stay as they are.

    Args:
        task: as registered.
        template: for every kind of model.
        label_words: one word per class in class order, ``"bad,great"``, or ``"negative=bad,positive=great"`` by name.
        shorten: the field that is cut when a prompt is too long.
    """
    if not (template or label_words or shorten):
        return task
    words: tuple[str, ...] | None = None
    if label_words:
        pairs = [part.partition("=")[::2] for part in label_words.split(",")] if "=" in label_words else []
        named = {name.strip(): word for name, word in pairs}
        given = [named.get(name, "") for name in task.classes] if named else label_words.split(",")
        words = tuple(word.strip() for word in given)
        if len(words) != len(task.classes) or not all(words) or len(named) not in (0, len(words)):
            raise UserError(
                f"--label-words {label_words!r}: {task.name} needs one word for each of {', '.join(task.classes)}"
            )
    if template:
        _check_braces(template)
    prompts = {
        kind: replace(prompt, template=template or prompt.template, words=words or prompt.words)
        for kind, prompt in task.prompts.items()
    }
    return replace(task, prompts=prompts, shorten=shorten or task.shorten)


def _check_braces(template: str) -> None:
    try:
        list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"--template {template!r}: {error}") from None


def parse_label_words(words: str | Mapping[object, str]) -> dict[str, str]:
    """Label -> word, in class order, from ``"0=bad,1=great"`` or a mapping (whose keys YAML may have made numbers)."""
    if isinstance(words, Mapping):
        pairs = [(_label_text(label), str(word)) for label, word in words.items()]
    else:
        pairs = []
        for part in re.split(r"(?<!\\),", words):
            label, equals, word = part.replace("\\,", ",").partition("=")
            if not equals:
                raise UserError(f"--label-words {words!r}: {part.strip()!r} is not label=word")
            pairs.append((label.strip(), word.strip()))
    named = dict(pairs)
    if len(named) < len(pairs) or len(named) < 2 or not all(named.values()):
        raise UserError(f"--label-words {words!r}: two or more different labels are needed, each with its word")
    return named


def _file(flag: str, file: Path | str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"{flag} {file}: no such file")
    return path


def _template_columns(template: str, columns: Sequence[str]) -> list[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"--template {template!r}: {error}") from None
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if name != "mask" and name not in columns:
            raise UserError(
                f"--template {template!r}: {{{name}}} is none of the text columns, {', '.join(columns)}; "
                f"name it in --text-columns too{_near(name, columns)}"
            )
    used = list(dict.fromkeys(name for name in names if name != "mask"))
    if not used:
        raise UserError(
            f"--template {template!r}: it uses no text column; write e.g. '{{{columns[0]}}} It was {{mask}}.'"
        )
    return used


def _example(
    where: str, record: Mapping[str, object], columns: Sequence[str], label_column: str, classes: Sequence[str]
) -> Example:
    for flag, column in [("--label-column", label_column), *(("--text-columns", column) for column in columns)]:
        if column not in record:
            raise UserError(f"{flag}: no column {column!r} in {where}, only {', '.join(record)}{_near(column, record)}")
    label = _label_text(record[label_column])
    if label not in classes:
        raise UserError(f"{where}: label {label!r} is not in --label-words, which has {', '.join(classes)}")
    try:
        return Example({column: text(record, column) for column in columns}, classes.index(label))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _label_text(label: object) -> str:
    # JSON and YAML write true where a csv file has the word.
    return str(label).lower() if isinstance(label, bool) else str(label).strip()


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
