"""A user's own files as a task."""

import re
from collections import Counter
from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.task import KINDS, Example, Prompt, Task
from dfolora.tasks import get_task
from dfolora.tasks.common import Source
from dfolora.tasks.files import file_task, with_prompt
from dfolora.tasks.words import parse_label_words
from dfolora.template import fill

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
    with pytest.raises(UserError, match="test_file"):
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
    assert parse_label_words({0: "Poor, not worth it.", "no": "x=y"}) == {"0": "Poor, not worth it.", "no": "x=y"}
    assert parse_label_words(["Poor, really.", "good"]) == {"0": "Poor, really.", "1": "good"}
    assert parse_label_words(["no=Poor, really.", "yes=good"]) == {"no": "Poor, really.", "yes": "good"}
    for words in ("0=bad", "0=bad,0=good", "0=bad,1=", "", {0: "bad", "0": "good"}, {0: "bad", 1: None}, ["bad"], {}):
        with pytest.raises(UserError, match=r"^label_words: "):
            parse_label_words(words)
    with pytest.raises(UserError, match="'great' is not label=word"):
        parse_label_words("0=bad,great")


RTE = ("entailment", "not_entailment")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bad,great", ("bad", "great")),
        ("Yes\\, it is.,No\\, it is not.", ("Yes, it is.", "No, it is not.")),
        ("not_entailment=No\\, never.,entailment = Yes", ("Yes", "No, never.")),
        (["Yes, it is.", "No, it is not."], ("Yes, it is.", "No, it is not.")),
        (("entailment=a, b", "not_entailment=c"), ("a, b", "c")),
        ({"not_entailment": "No", "entailment": "Yes, =."}, ("Yes, =.", "No")),
        ("x=y,z", ("x=y", "z")),
        ([False, 1], ("false", "1")),
    ],
)
def test_label_words_of_a_registered_task(words: object, expected: tuple[str, str]) -> None:
    task = with_prompt(get_task("superglue/rte"), label_words=words)
    assert {prompt.words for prompt in task.prompts.values()} == {expected}
    assert task.prompts["masked"].template == get_task("superglue/rte").prompts["masked"].template


@pytest.mark.parametrize(
    "words",
    ["Yes", "Yes,No,Maybe", "Yes,", "entailment=Yes,No", "entailment=Yes", ["Yes", None], {"entailment": "Yes"},
     {"entailment": "Yes", "other": "No"}, [["Yes"], "No"], "entailment=a,entailment=b"],
)  # fmt: skip
def test_label_words_that_do_not_fit_a_registered_task(words: object) -> None:
    with pytest.raises(UserError, match=r"^label_words: ") as caught:
        with_prompt(get_task("superglue/rte"), label_words=words)
    assert "\n" not in str(caught.value)


def test_prompts_of_ones_own() -> None:
    task = with_prompt(get_task("superglue/copa"), template="{premise} so {mask}", shorten="premise")
    assert task.prompts["causal"].template == "{premise} so {mask}"
    assert with_prompt(task) is task
    with pytest.raises(UserError, match="label_words: superglue/copa has none"):
        with_prompt(get_task("superglue/copa"), label_words="a,b")
    with pytest.raises(UserError, match=r"template: .* lone"):
        with_prompt(task, template="{premise {mask}")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (("False", "True"), {False: "No", True: "Yes"}),  # as pandas writes them, and as Python has them
        (("False", "True"), {"False": "No", "True": "Yes"}),
        (("false", "true"), {"False": "No", "True": "Yes"}),
        (("0", "1"), {0: "No", 1: "Yes"}),
        (("no", "yes"), {"no": "No", "yes": "Yes"}),
        (("0", "1"), ["No", "Yes"]),
        (("no", "yes"), "no=No,yes=Yes"),
    ],
)
def test_labels_are_compared_as_text(written: tuple[str, str], words: object, write) -> None:
    file = write("own.csv", "text,label\n", *(f"t{i},{written[i % 2]}\n" for i in range(4)))
    task = file_task(file, file, template=TEMPLATE, label_words=words)
    assert [example.label for example in task.load("train", SOURCE)] == [0, 1, 0, 1]
    assert task.prompts["masked"].words == ("No", "Yes")


@pytest.mark.parametrize(
    ("text_column", "label_column"), [("reviews.text", "reviews.rating"), ("1", "0"), ("a b", "{}")]
)
def test_columns_may_have_any_name(text_column: str, label_column: str, write) -> None:
    file = write("own.csv", f"{label_column},{text_column}\n", "1,warm\n", "0,dull\n")
    template = "{" + text_column + "} It was {mask}."
    task = file_task(file, file, text_columns=text_column, label_column=label_column, template=template)
    train = task.load("train", SOURCE)
    assert [fill(template, {**example.fields, "mask": "M"}) for example in train] == [
        "warm It was M.",
        "dull It was M.",
    ]
    assert [example.where for example in train] == [f"{file}:2", f"{file}:3"]


def test_from_files(csv_file: Path) -> None:
    task = Task.from_files(csv_file, csv_file, words={0: "poor", 1: "fine"}, name="mine")
    assert (task.name, task.prompts["encoder"], task.shorten) == ("mine", Prompt(TEMPLATE, ("poor", "fine")), "text")
    assert [len(task.load(split, SOURCE)) for split in ("train", "dev", "test")] == [4, 4, 10]
    assert Task.from_files(csv_file).name == "file:reviews"
    with pytest.raises(UserError, match="test_file"):
        Task.from_files(csv_file).load("test", SOURCE)


def examples(count: int, **more: object) -> list[Example]:
    return [Example({"text": f"t{i}"}, i % 2, **more) for i in range(count)]


def test_from_examples() -> None:
    task = Task.from_examples(examples(8), test=examples(3), words=["bad", "great"])
    train, dev = task.load("train", SOURCE), task.load("dev", SOURCE)
    assert Counter(e.label for e in train) == Counter(e.label for e in dev) == {0: 2, 1: 2}
    assert not [example for example in train if example in dev]
    assert task.load("test", SOURCE) == examples(3)
    assert (task.classes, dict(task.sizes)) == (("0", "1"), {"test": 3})
    assert set(task.measure(train, [0, 1, 0, 1])) == {"accuracy", "macro_f1"}
    whole = Task.from_examples(examples(8), examples(2), words={"bad": "poor", "good": "fine"}, name="mine")
    assert whole.load("train", SOURCE) == examples(8)
    assert whole.load("dev", SOURCE) == examples(2)
    assert [example.where for example in whole.load("dev", SOURCE)] == ["dev[0]", "dev[1]"]
    with pytest.raises(UserError, match="mine: there is no test set"):
        whole.load("test", SOURCE)


def test_from_examples_with_choices_and_with_generated_answers() -> None:
    chosen = Task.from_examples(examples(8, choices=("a", "b")), template="{text} so {mask}")
    assert (chosen.classes, chosen.prompts["causal"].words, chosen.one_class_train) == ((), None, True)
    assert len(chosen.load("train", Source(shots=1))) == len(chosen.load("dev", Source(shots=1))) == 2
    assert set(chosen.measure(examples(2), [0, 1])) == {"accuracy"}

    def shouting(asked: object, texts: list[str]) -> dict[str, float]:
        return {"capitals": float(sum(text.isupper() for text in texts))}

    free = Task.from_examples(examples(2), examples(2), template="{text}: {mask}", measure=shouting, new_tokens=5)
    assert free.main(free.measure(examples(2), ["A", "b"])) == 1.0


@pytest.mark.parametrize(
    ("train", "settings", "message"),
    [
        ([Example({"txt": "a"}, 0)], {"words": ["a", "b"]}, "train[0]: no text 'text' for the template; there are txt"),
        ([Example({"text": 5}, 0)], {"words": ["a", "b"]}, "train[0]: no text 'text'"),
        ([Example({"text": "a"}, 2)], {"words": ["a", "b"]}, "train[0]: label 2 is none of 0 to 1"),
        ([Example({"text": "a"}, 0)], {}, "train[0]: it has no choices, and there are no label words"),
        ([Example({"text": "a"}, 0)], {"words": ["a"]}, "label_words: "),
        ([Example({"text": "a"}, 0)], {"words": ["a", "b"], "shorten": "x"}, "shorten: 'x' is no field"),
        ([Example({"text": "a"}, 0)], {"words": ["a", "b"], "template": "{text:d}"}, "template: "),
    ],
)
def test_examples_that_cannot_serve(train: list[Example], settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Task.from_examples(train, **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"template": "{txt} {mask}"},
            "uses {txt}, which is none of the text columns, text; name it in text_columns",
        ),
        ({"template": "It was {mask}."}, "uses no text column; write e.g. '{text} It was {mask}.'"),
        ({"template": "{text} {"}, "template: '{text} {' has a lone '{'"),
        ({"shorten": "label"}, "shorten: 'label' is no column of the template; choose one of text"),
        ({"text_columns": ("mask",)}, "text_columns: a column cannot be called 'mask'"),
        ({"dev_file": "nowhere.csv"}, "dev_file: 'nowhere.csv' is no file"),
        ({"test_file": "nowhere.csv"}, "test_file: 'nowhere.csv' is no file"),
    ],
)
def test_bad_arguments(csv_file: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        file_task(csv_file, **{"template": TEMPLATE, **arguments})


def test_missing_columns(csv_file: Path) -> None:
    task = file_task(csv_file, text_columns=("texts",), template="{texts} {mask}")
    with pytest.raises(UserError, match=r"text_columns: no column 'texts' in .*csv:2, only text, label \(did you mean"):
        task.load("train", SOURCE)
    task = file_task(csv_file, label_column="y", template=TEMPLATE)
    with pytest.raises(UserError, match=r"label_column: no column 'y' in .*csv:2, only text, label$"):
        task.load("train", SOURCE)


def test_bad_rows(csv_file: Path, write) -> None:
    task = file_task(csv_file, template=TEMPLATE, label_words="0=bad,2=great")
    with pytest.raises(UserError, match=r"csv:3: label '1' is not in label_words, which has 0, 2"):
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
    with pytest.raises(UserError, match=r"one.csv: shots: 2: class '1' has 0 examples.*dev_file"):
        file_task(one, template=TEMPLATE).load("train", SOURCE)
