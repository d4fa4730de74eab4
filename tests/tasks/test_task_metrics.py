"""Metrics against numbers worked out by hand, and against known majority baselines of the real data."""

from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.task import Example
from dfolora.tasks import get_task, metrics
from dfolora.tasks.common import Source


def labelled(*labels: int) -> list[Example]:
    return [Example({}, label) for label in labels]


def test_accuracy() -> None:
    assert metrics.accuracy(labelled(0, 1, 1, 0), [0, 1, 0, 0]) == {"accuracy": 75.0}
    with pytest.raises(UserError, match="no examples"):
        metrics.accuracy([], [])
    with pytest.raises(ValueError, match="2 examples, but 1 predictions"):
        metrics.accuracy(labelled(0, 1), [0])


def test_macro_f1_counts_absent_classes() -> None:
    measured = metrics.accuracy_and_macro_f1(3)(labelled(0, 0, 1, 1), [0, 0, 1, 0])
    assert measured == {"accuracy": 75.0, "macro_f1": pytest.approx(100 * (0.8 + 2 / 3 + 0) / 3)}


def test_f1_of_the_positive_class() -> None:
    assert metrics.f1_and_accuracy(labelled(1, 1, 0), [1, 0, 1]) == pytest.approx({"f1": 50, "accuracy": 100 / 3})
    assert metrics.f1_and_accuracy(labelled(0, 0), [0, 0]) == {"f1": 0.0, "accuracy": 100.0}


def test_multirc_pools_f1_and_groups_em() -> None:
    examples = [Example({}, label, group=group) for group, label in [("a", 1), ("a", 0), ("b", 1), ("b", 1)]]
    assert metrics.multirc(examples, [1, 0, 1, 0]) == pytest.approx({"f1a": 80.0, "em": 50.0})


def test_record_takes_the_best_gold() -> None:
    example = Example({}, 0, choices=("the U.S.", "John Smith", "Paris"), gold=("US", "John A. Smith Jr"))
    assert metrics.record([example], [0]) == {"em": 100.0, "f1": 100.0}
    # "a" is an article, so "john smith jr" is what is compared.
    assert metrics.record([example], [1]) == pytest.approx({"em": 0.0, "f1": 80.0})
    assert metrics.record([example, example], [0, 2]) == {"em": 50.0, "f1": 50.0}


@pytest.mark.parametrize(
    ("name", "predicted", "expected"),
    [
        ("superglue/boolq", 1, {"accuracy": 62.17}),
        ("superglue/cb", 1, {"accuracy": 50.00, "macro_f1": 22.2}),
        ("superglue/copa", 0, {"accuracy": 55.00}),
        ("superglue/multirc", 0, {"f1a": 0.0, "em": 0.31}),
        ("superglue/multirc", 1, {"f1a": 59.95, "em": 0.84}),
        ("superglue/rte", 0, {"accuracy": 52.71}),
        ("superglue/wic", 0, {"accuracy": 50.00}),
        ("superglue/wsc", 0, {"accuracy": 63.46}),
        ("glue/sst2", 1, {"accuracy": 50.92}),
        ("glue/mrpc", 1, {"f1": 81.22, "accuracy": 68.38}),
        ("agnews", 2, {"accuracy": 25.00}),
        ("yelp", 0, {"accuracy": 51.80}),
        ("snli", 0, {"accuracy": 33.83}),
    ],
)
def test_majority_baselines(name: str, predicted: int, expected: dict[str, float], shared: Path) -> None:
    task = get_task(name)
    examples = task.load("val", Source(shared))
    measured = task.measure(examples, [predicted] * len(examples))
    assert measured == pytest.approx(expected, abs=0.05)


def test_answer_accuracy_of_multirc(shared: Path) -> None:
    examples = get_task("superglue/multirc").load("test", Source(shared))
    assert metrics.accuracy(examples, [0] * len(examples))["accuracy"] == pytest.approx(57.20, abs=0.005)
    assert len({example.group for example in examples}) == 953
