"""Official metrics, in percent, from the predicted class of each example (for some tasks: the predicted choice,
or the text that was generated)."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Sequence

from dfolora.errors import UserError
from dfolora.task import Example, Measure, Metrics


def accuracy(examples: Sequence[Example], predictions: Sequence[int]) -> Metrics:
    """Share of examples whose class is right."""
    labels = _labels(examples, predictions)
    return {"accuracy": 100 * sum(a == b for a, b in zip(labels, predictions, strict=True)) / len(labels)}


def accuracy_and_macro_f1(classes: int) -> Measure:
    """A measure with accuracy and the unweighted mean of F1 over all classes, also those that do not occur (CB)."""

    def measure(examples: Sequence[Example], predictions: Sequence[int]) -> Metrics:
        labels = _labels(examples, predictions)
        return {**accuracy(examples, predictions), "macro_f1": _f1(labels, predictions, list(range(classes)))}

    return measure


def f1_and_accuracy(examples: Sequence[Example], predictions: Sequence[int]) -> Metrics:
    """F1 of class 1, and accuracy (MRPC, where class 1 is a paraphrase)."""
    return {"f1": _f1(_labels(examples, predictions), predictions, [1]), **accuracy(examples, predictions)}


def multirc(examples: Sequence[Example], predictions: Sequence[int]) -> Metrics:
    """MultiRC: F1 of right answers over all answers pooled (f1a), and questions with every answer judged right (em)."""
    labels = _labels(examples, predictions)
    whole: dict[str, bool] = defaultdict(lambda: True)
    for example, prediction in zip(examples, predictions, strict=True):
        whole[example.group] &= example.label == prediction
    return {"f1a": _f1(labels, predictions, [1]), "em": 100 * sum(whole.values()) / len(whole)}


def record(examples: Sequence[Example], predictions: Sequence[int]) -> Metrics:
    """ReCoRD: exact match and token F1 of the predicted choice's text, each the best over the gold texts."""
    _labels(examples, predictions)
    chosen = [(example.choices or ())[prediction] for example, prediction in zip(examples, predictions, strict=True)]
    scores = squad(examples, chosen)
    return {"em": scores["em"], "f1": scores["f1"]}


def squad(examples: Sequence[Example], texts: Sequence[str]) -> Metrics:
    """SQuAD v1.1: token F1 and exact match of the texts that answer the examples, each the best over the gold texts."""
    _labels(examples, texts)
    em = f1 = 0.0
    for example, text in zip(examples, texts, strict=True):
        answer = squad_tokens(text)
        golds = [squad_tokens(gold) for gold in example.gold]
        em += any(answer == gold for gold in golds)
        f1 += max(_token_f1(answer, gold) for gold in golds)
    return {"f1": 100 * f1 / len(examples), "em": 100 * em / len(examples)}


def squad_tokens(text: str) -> list[str]:
    """The words that SQuAD's metric compares: lower-cased, without punctuation and articles."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _token_f1(answer: list[str], gold: list[str]) -> float:
    common = (Counter(answer) & Counter(gold)).total()
    return 2 * common / (len(answer) + len(gold)) if common else 0.0


def _f1(labels: Sequence[int], predictions: Sequence[int], classes: list[int]) -> float:
    # Imported here: it takes a second, and most tasks need accuracy alone.
    from sklearn.metrics import f1_score

    return 100 * float(f1_score(labels, predictions, labels=classes, average="macro", zero_division=0))


def _labels(examples: Sequence[Example], predictions: Sequence[int] | Sequence[str]) -> list[int]:
    if not examples:
        raise UserError("no examples to measure")
    if len(examples) != len(predictions):
        raise ValueError(f"{len(examples)} examples, but {len(predictions)} predictions")
    return [example.label for example in examples]
