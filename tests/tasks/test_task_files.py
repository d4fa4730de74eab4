"""A user's own files as a task."""

import re
from collections import Counter
from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.task import KINDS
from dfolora.tasks.common import Source
from dfolora.tasks.files import file_task, parse_label_words

TEMPLATE = "{text} It was {mask}."
SOURCE = Source(shots=2, seed=1)


@pytest.fixture
def csv_file(write) -> Path:
    return write("reviews.csv", "text,label\n", *(f'"no. {i}, fine",{i % 2}\n' for i in range(10)))


def test_split_of_one_file(csv_file: Path) -> None:
    task = file_task(csv_file, template=TEMPLATE)
    assert (task.name, task.classes, task.shorten) == ("file:reviews", ("0", "1"), "text")
    assert set(task.prompts) == set(KINDS)
    assert task.prompts["causal"].words == ("bad", "great")
    train, dev = task.load("train", SOURCE), task.load("dev", SOURCE)
    assert Counter(e.label for e in train) == Counter(e.label for e in dev) == {0: 2, 1: 2}
    assert not [example for example in train if example in dev]
    with pytest.raises(UserError, match="--test-file"):
        task.load("test", SOURCE)
    measured = task.measure(train, [example.label for example in train])
    assert measured == {"accuracy": 100.0, "macro_f1": 100.0}
    assert task.main({"accuracy": 70.0, "macro_f1": 10.0}) == 70.0


def test_three_files_are_used_whole(csv_file: Path, write) -> None:
    dev = write("dev.tsv", 'a\tlabel\ttext\nx\t1\t"open\n')
    test = write("test.jsonl", {"text": "t", "label": 0}, {"text": "t", "label": "1"})
    task = file_task(str(csv_file), dev, test, template=TEMPLATE)
    assert [len(task.load(split, SOURCE)) for split in ("train", "dev32", "val")] == [10, 1, 2]
    assert task.load("dev", SOURCE)[0].fields["text"] == '"open'


def test_several_columns_and_boolean_labels(write) -> None:
    train = write("p.jsonl", *({"a": "x", "b": f"y{i}", "same": i % 2 == 0} for i in range(8)))
    words = {False: "No", True: "Yes"}
    template = "{b} ? {mask} , {a}"
    task = file_task(
        train, text_columns=("a", "b"), label_column="same", template=template, label_words=words, shorten="a"
    )
    assert task.classes == ("false", "true")
    assert task.shorten == "a"
    assert set(task.load("train", SOURCE)[0].fields) == {"a", "b"}


def test_label_words() -> None:
    assert parse_label_words("0=It is bad\\, really., 1 = x=y") == {"0": "It is bad, really.", "1": "x=y"}
    assert parse_label_words({0: "bad", True: "good"}) == {"0": "bad", "true": "good"}
    for words in ("0=bad", "0=bad,0=good", "0=bad,1=", ""):
        with pytest.raises(UserError, match="--label-words"):
            parse_label_words(words)
    with pytest.raises(UserError, match="'great' is not label=word"):
        parse_label_words("0=bad,great")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"template": "{txt} {mask}"},
            "{txt} is none of the text columns, text; name it in --text-columns too (did you",
        ),
        ({"template": "It was {mask}."}, "it uses no text column; write e.g. '{text} It was {mask}.'"),
        ({"template": "{text} {"}, "--template '{text} {': "),
        ({"shorten": "label"}, "--shorten: 'label' is no column of the template; choose one of text"),
        ({"text_columns": ("mask",)}, "--text-columns: a column cannot be called 'mask'"),
        ({"dev_file": "nowhere.csv"}, "--dev-file nowhere.csv: no such file"),
        ({"test_file": "nowhere.csv"}, "--test-file nowhere.csv: no such file"),
    ],
)
def test_bad_arguments(csv_file: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        file_task(csv_file, **{"template": TEMPLATE, **arguments})


def test_missing_columns(csv_file: Path) -> None:
    task = file_task(csv_file, text_columns=("texts",), template="{texts} {mask}")
    with pytest.raises(
        UserError, match=r"--text-columns: no column 'texts' in .*csv:2, only text, label \(did you mean"
    ):
        task.load("train", SOURCE)
    task = file_task(csv_file, label_column="y", template=TEMPLATE)
    with pytest.raises(UserError, match=r"--label-column: no column 'y' in .*csv:2, only text, label$"):
        task.load("train", SOURCE)


def test_bad_rows(csv_file: Path, write) -> None:
    task = file_task(csv_file, template=TEMPLATE, label_words="0=bad,2=great")
    with pytest.raises(UserError, match=r"csv:3: label '1' is not in --label-words, which has 0, 2"):
        task.load("train", SOURCE)
    bad = write("bad.jsonl", {"text": None, "label": 0})
    with pytest.raises(UserError, match=r"bad.jsonl:1: field 'text' has to be text"):
        file_task(bad, bad, template=TEMPLATE).load("dev", SOURCE)


def test_sets_that_teach_nothing(csv_file: Path, write) -> None:
    one, none = write("one.csv", "text,label\na,0\nb,0\n"), write("none.csv", "text,label\n")
    with pytest.raises(UserError, match=r"one.csv: every example has the label '0'"):
        file_task(one, csv_file, template=TEMPLATE).load("train", SOURCE)
    with pytest.raises(UserError, match=r"none.csv: no examples"):
        file_task(csv_file, none, template=TEMPLATE).load("dev", SOURCE)
    with pytest.raises(UserError, match=r"one.csv: --shots 2: class '1' has 0 examples.*--dev-file"):
        file_task(one, template=TEMPLATE).load("train", SOURCE)
