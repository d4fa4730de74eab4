"""Datasets from the Hub, whose records have other shapes than the published files."""

from collections import Counter

import pytest

from dfolora.errors import UserError
from dfolora.tasks import get_task
from dfolora.tasks.common import Source

SOURCE = Source(shots=2, seed=3)

ROWS = {
    "superglue/boolq": ("aps/super_glue", "boolq", "validation", {"question": "q", "passage": "p"}),
    "superglue/cb": ("aps/super_glue", "cb", "validation", {"premise": "p", "hypothesis": "h"}),
    "superglue/copa": (
        *("aps/super_glue", "copa", "validation"),
        {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause"},
    ),
    "superglue/rte": ("aps/super_glue", "rte", "validation", {"premise": "p", "hypothesis": "h"}),
    "superglue/wic": ("aps/super_glue", "wic", "validation", {"word": "w", "sentence1": "a", "sentence2": "b"}),
    "superglue/wsc": (
        *("aps/super_glue", "wsc", "validation"),
        {"text": "Ann told Sue that she won.", "span1_text": "Ann", "span1_index": 0, "span2_text": "she"}
        | {"span2_index": 4},
    ),
    "glue/sst2": ("nyu-mll/glue", "sst2", "validation", {"sentence": "s"}),
    "glue/mrpc": ("nyu-mll/glue", "mrpc", "validation", {"sentence1": "a", "sentence2": "b"}),
    "agnews": ("fancyzhx/ag_news", None, "test", {"text": "t"}),
    "yelp": ("fancyzhx/yelp_polarity", None, "test", {"text": "t"}),
    "dbpedia": ("fancyzhx/dbpedia_14", None, "test", {"title": "t", "content": "c"}),
    "snli": ("stanfordnlp/snli", None, "test", {"premise": "p", "hypothesis": "h"}),
}
ROWS |= {f"mezo/{name}": ROWS[f"superglue/{name}"] for name in ("boolq", "cb", "copa", "rte", "wic", "wsc")}
VARIED = ("passage", "premise", "sentence1", "sentence", "text", "content")


@pytest.mark.parametrize("name", ROWS)
def test_labelled_rows(name: str, hub: dict) -> None:
    repository, config, test_split, row = ROWS[name]
    task = get_task(name)
    classes = len(task.classes) or 2
    key = next(key for key in VARIED if key in row)
    rows = [row | {key: f"{row[key]} {i}", "label": i % classes} for i in range(6 * classes)]
    hub[repository, config, "train"] = rows
    hub[repository, config, test_split] = rows[:3]
    train, dev, test = (task.load(split, SOURCE) for split in ("train", "dev", "test"))
    for drawn in (train, dev):
        assert Counter(example.label for example in drawn) == dict.fromkeys(range(classes), 2)
    assert not [example for example in train if example in dev]
    assert [example.label for example in test] == [i % classes for i in range(3)]
    assert train == task.load("train", SOURCE)


def test_unlabelled_snli_is_dropped(hub: dict) -> None:
    rows = [{"premise": "p", "hypothesis": f"h{i}", "label": i % 4 - 1} for i in range(8)]
    hub["stanfordnlp/snli", None, "test"] = rows
    assert [example.label for example in get_task("snli").load("test", SOURCE)] == [0, 1, 2, 0, 1, 2]


def test_flat_multirc(hub: dict) -> None:
    rows = [
        {"paragraph": None, "passage": f"p{p}", "question": "q", "answer": f"a{a}", "label": a % 2}
        | {"idx": {"paragraph": p, "question": p, "answer": a}}
        for p in range(8)
        for a in range(3)
    ]
    hub["aps/super_glue", "multirc", "train"] = hub["aps/super_glue", "multirc", "validation"] = rows
    task = get_task("superglue/multirc")
    train = task.load("train", SOURCE)
    assert len(train) == 12
    assert len({example.group for example in train}) == 4
    assert task.load("test", SOURCE)[4].group == "1-1"


def test_flat_record(hub: dict) -> None:
    rows = [
        {"passage": f"p{i}\n@highlight\nx", "query": "@placeholder won", "entities": ["A", "B"], "answers": ["B"]}
        | {"idx": {"passage": i, "query": i}}
        for i in range(8)
    ]
    hub["aps/super_glue", "record", "train"] = hub["aps/super_glue", "record", "validation"] = rows
    task = get_task("superglue/record")
    assert len(task.load("train", SOURCE)) == len(task.load("dev", SOURCE)) == 4
    example = task.load("test", SOURCE)[0]
    assert dict(example.fields) == {"passage": "p0 - x", "before": "", "after": " won"}
    assert (example.choices, example.label, example.gold) == (("A", "B"), 1, ("B",))


def test_offline_says_what_to_do(hub: dict) -> None:
    message = r"glue/sst2: nyu-mll/glue could not be loaded from the Hub \(Couldn't reach nyu-mll/glue\); .*as data$"
    with pytest.raises(UserError, match=message):
        get_task("glue/sst2").load("train", SOURCE)


def test_bad_row_is_named(hub: dict) -> None:
    hub["fancyzhx/ag_news", None, "test"] = [{"text": "t", "label": 4}]
    with pytest.raises(UserError, match=r"fancyzhx/ag_news row 0: label '4' is none of World"):
        get_task("agnews").load("test", SOURCE)
