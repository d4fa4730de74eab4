"""What is odd about each dataset's published files, one test a trap."""

from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.task import Example
from dfolora.tasks import agnews, copa, get_task, multirc, record, yelp
from dfolora.tasks.common import Source
from dfolora.tasks.dbpedia import CLASSES, DHIM_CLASSES


def load(name: str, split: str, data: Path) -> list[Example]:
    return get_task(name).load(split, Source(data, seed=13))


def test_boolq_booleans_and_question_marks(write, tmp_path) -> None:
    rows = [{"question": "is it so?", "passage": " p ", "label": label} for label in (False, True)]
    write("BoolQ/train.jsonl", *rows)
    examples = load("superglue/boolq", "train", tmp_path)
    assert [example.label for example in examples] == [0, 1]
    assert dict(examples[0].fields) == {"passage": "p", "question": "is it so"}


def test_cb_is_not_balanced_and_stays_so(write, tmp_path) -> None:
    labels = ["entailment", "entailment", "contradiction"]
    write("CB/train.jsonl", *({"premise": "p", "hypothesis": "h", "label": label} for label in labels))
    assert [example.label for example in load("superglue/cb", "train", tmp_path)] == [0, 0, 1]


def test_wic_spans_are_not_needed(write, tmp_path) -> None:
    row = {"word": "run", "sentence1": "She ran.", "sentence2": "A run.", "start1": 4, "end1": 7}
    write("WiC/val.jsonl", row | {"label": True})
    (example,) = load("superglue/wic", "val", tmp_path)
    assert (example.label, example.fields["word"]) == (1, "run")


def test_copa_clauses() -> None:
    row = {"premise": "It rained.", "choice1": "The sky was grey.", "choice2": "I'm wet.", "question": "effect"}
    (example,) = copa.examples(row | {"label": 1})
    assert example.choices == ("the sky was grey", "I'm wet")
    assert (example.label, example.choice_class) == (1, None)
    prompt = get_task("superglue/copa").prompts["masked"]
    assert prompt.template.format(mask=example.choices[1], **example.fields) == "It rained so I'm wet."
    with pytest.raises(UserError, match="question 'why' is none of cause, effect"):
        copa.examples(row | {"question": "why", "label": 0})


def test_copa_may_have_one_label(write, tmp_path) -> None:
    row = {"premise": "It rained.", "choice1": "A.", "choice2": "B.", "question": "cause", "label": 0}
    write("COPA/train.jsonl", row)
    assert len(load("superglue/copa", "train", tmp_path)) == 1


def test_multirc_is_flattened_and_grouped() -> None:
    answers = [{"text": "yes", "idx": 0, "label": 1}, {"text": "no", "idx": 1, "label": 0}]
    questions = [{"question": f"q{i}", "idx": i, "answers": answers} for i in (7, 8)]
    examples = multirc.examples({"idx": 3, "passage": {"text": "one\n two", "questions": questions}})
    assert [(e.group, e.fields["reply"], e.label) for e in examples] == [
        ("3-7", "yes", 1),
        ("3-7", "no", 0),
        ("3-8", "yes", 1),
        ("3-8", "no", 0),
    ]
    assert examples[0].fields["passage"] == "one two"


def record_row(names: list[str], gold: list[str]) -> dict:
    body = " " + ", ".join(names) + " met.\n@highlight\nThey met"
    spans = [(body.index(name), body.index(name) + len(name) - 1) for name in names]
    return {
        "passage": {"text": body, "entities": [{"start": start, "end": end} for start, end in spans]},
        "qas": [{"query": "Then @placeholder left.", "idx": 0, "answers": [{"text": text} for text in gold]}],
    }


def test_record_spans_bullets_and_repeated_golds() -> None:
    (example,) = record.examples(record_row(["Ann", "Bob", "Eve", "Bob"], ["Eve", "Eve", "Bob"]))
    assert example.choices == ("Ann", "Bob", "Eve")
    assert example.gold == ("Eve", "Bob")
    assert example.label == 2
    assert dict(example.fields) == {
        "passage": "Ann, Bob, Eve, Bob met. - They met",
        "before": "Then ",
        "after": " left.",
    }


def test_record_trains_on_ten_choices(write, tmp_path) -> None:
    names = [f"N{chr(65 + i)}" for i in range(15)]
    write("ReCoRD/train.jsonl", record_row(names, ["NL", "NB"]))
    write("ReCoRD/dev32.jsonl", record_row(names, ["NL", "NB"]))
    (train,) = load("superglue/record", "train", tmp_path)
    assert len(train.choices) == 10
    assert train.choices[train.label] == "NL"
    assert "NB" not in train.choices  # right as well, so it must not serve as a wrong one
    assert load("superglue/record", "train", tmp_path) == [train]
    assert load("superglue/record", "dev", tmp_path)[0].choices == tuple(names)
    with pytest.raises(UserError, match=r"val.jsonl is missing.*dev32.jsonl, train.jsonl; .*test_split dev"):
        load("superglue/record", "test", tmp_path)


def test_record_malformed() -> None:
    row = record_row(["Ann", "Bob"], ["Cid"])
    assert record.examples(row)[0].choices == ("Ann", "Bob", "Cid")
    row["qas"][0]["answers"] = []
    with pytest.raises(UserError, match="no answer"):
        record.examples(row)
    row["qas"][0]["query"] = "Who?"
    with pytest.raises(UserError, match="no @placeholder"):
        record.examples(row)
    row["passage"]["entities"] = [{"start": 5, "end": 500}]
    with pytest.raises(UserError, match="outside the passage"):
        record.examples(row)


def test_mrpc_byte_order_mark_and_quotes(write, tmp_path) -> None:
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    write("MRPC/16-13/train.tsv", header, '1\t1\t2\t" open\tone\r\n', "0\t3\t4\ttwo\tthree\r\n")
    examples = load("glue/mrpc", "train", tmp_path)
    assert [(e.fields["sentence1"], e.label) for e in examples] == [('" open', 1), ("two", 0)]


def test_mrpc_full_set_is_tested_on_its_own_test_set(write, tmp_path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write("MRPC/full_msr_train.tsv", header, *(f"{i % 2}\t1\t2\ta{i}\tb\n" for i in range(64)))
    write("MRPC/full_msr_test.tsv", header, "1\t1\t2\tfull\tb\n")
    write("MRPC/test.tsv", header, "1\t1\t2\tGLUE\tb\n")
    assert load("glue/mrpc", "test", tmp_path)[0].fields["sentence1"] == "full"
    (tmp_path / "MRPC/16-13").mkdir()
    assert load("glue/mrpc", "test", tmp_path)[0].fields["sentence1"] == "GLUE"


def test_snli_label_is_the_last_column(write, tmp_path) -> None:
    head = "\t".join(f"c{i}" for i in range(11)) + "\n"
    short = "\t".join([*"0123456", "p", "h", "neutral", "entailment"]) + "\n"
    long = "\t".join([*"0123456", "q", "i", *["entailment"] * 5, "contradiction"]) + "\n"
    none = "\t".join([*"0123456", "q", "i", "-", "-"]) + "\n"
    write("SNLI/16-13/train.tsv", head, short, long, none)
    examples = load("snli", "train", tmp_path)
    assert [(e.fields["premise"], e.fields["hypothesis"], e.label) for e in examples] == [("p", "h", 0), ("q", "i", 2)]
    write("SNLI/16-13/dev.tsv", head, "a\tb\n")
    with pytest.raises(UserError, match=r"dev.tsv:2: 2 columns"):
        load("snli", "dev", tmp_path)


def test_snli_test_files(write, tmp_path) -> None:
    write("SNLI/test_textfooler1000.tsv", "neutral\tp\th\n")
    assert [(e.fields["hypothesis"], e.label) for e in load("snli", "test", tmp_path)] == [("h", 1)]
    write("SNLI/test_dev9842.jsonl", {"premise": "p", "hypothesis": "dev", "label": "contradiction"})
    assert [(e.fields["hypothesis"], e.label) for e in load("snli", "test", tmp_path)] == [("dev", 2)]
    (tmp_path / "SNLI/test_dev9842.jsonl").unlink()
    write("SNLI/test_textfooler1000.tsv", "neutral\tp\n")
    with pytest.raises(UserError, match=r":1: label, premise and hypothesis are expected, not 2 columns"):
        load("snli", "test", tmp_path)


def test_yelp(write, tmp_path) -> None:
    assert yelp.clean('Good. \\n\\nSo \\"fine\\"') == 'Good. So "fine"'
    write("yelp-2/16-13/train.tsv", "text\tlabel\n", "a\\nb\t1\n", "c\td\t0\n")
    examples = load("yelp", "train", tmp_path)
    assert [(e.fields["text"], e.label) for e in examples] == [("a b", 1), ("c d", 0)]
    write("yelp-2/test_textfooler1000.txt", '0 "i ""love"" it"\n', "1 fine\n")
    examples = load("yelp", "test", tmp_path)
    assert [(e.fields["text"], e.label) for e in examples] == [('i "love" it', 0), ("fine", 1)]
    write("yelp-2/test_textfooler1000.txt", "fine\n")
    with pytest.raises(UserError, match=r":1: a label, a space and a text are expected"):
        load("yelp", "test", tmp_path)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Kalou #39;s goal", "Kalou's goal"),
        ("they said  #39;no #39; to it", "they said 'no' to it"),
        ("the players #39; union", "the players' union"),
        ("It is, quot;he said, quot; over", 'It is, "he said," over'),
        ("&lt;b&gt;AP&lt;/b&gt; R&amp;D #36;5 &#8212; x", "<b>AP</b> R&D $5 — x"),
        ("dwindling\\band", "dwindling band"),
        ("Trust #1; quota", "Trust #1; quota"),
    ],
)
def test_agnews_html(raw: str, clean: str) -> None:
    assert agnews.clean(raw) == clean


def test_blank_texts_are_kept(write, tmp_path) -> None:
    write("agnews/16-13/train.tsv", "text\tlabel\n", " \t0\n", "b\t1\n")
    assert load("agnews", "train", tmp_path)[0].fields["text"] == ""


def test_dbpedia_label_orders_and_leaks(write, tmp_path) -> None:
    write("dbpedia/16-13/train.tsv", "sentence\tlabel\n", " A firm.\t0\n", "A film.\t12\n")
    write("dbpedia/16-21/dev.tsv", "sentence\tlabel\n", " A  leak.\t3\n")
    rows = [f'"{label}","text {label}"\n' for label in range(1, 15)]
    write("dbpedia/test_dhim5000.csv", *rows, '"2","A firm."\n', '"13","A leak."\n')
    assert [example.label for example in load("dbpedia", "train", tmp_path)] == [0, 12]
    test = load("dbpedia", "test", tmp_path)
    assert [example.label for example in test] == [2, 0, 4, 6, 8, 10, 1, 9, 11, 13, 7, 5, 3, 12]
    assert sorted(CLASSES) == sorted(DHIM_CLASSES)
    write("dbpedia/test_dhim5000.csv", '"0","text"\n')
    with pytest.raises(UserError, match=r":1: label '0' is none of 1 to 14"):
        load("dbpedia", "test", tmp_path)
