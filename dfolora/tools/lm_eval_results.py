"""What the task files beside this one need: their examples, and how results are read. Copied into their folder."""

import json
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any


def rows(file: str, **_: Any) -> Any:
    """The examples of a task: ``file`` lies beside this one, a JSON object a line."""
    import datasets

    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return datasets.DatasetDict({"test": datasets.Dataset.from_list([json.loads(line) for line in lines])})


def choice(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Accuracy where an example brings its choices: the one of the highest mean log-probability per token wins."""
    scores = [log_probability / count for (log_probability, _), count in zip(results, doc["tokens"], strict=True)]
    best = scores.index(max(scores))
    return {"acc": float(doc["classes"][best] in doc["right"])}


def text(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Token F1 and exact match of a generated text, as SQuAD v1.1 defines them, each the best over the gold texts."""
    answer = _words(results[0].split("\n")[0])
    golds = [_words(gold) for gold in doc["gold"]]
    return {"f1": max(_f1(answer, gold) for gold in golds), "em": float(answer in golds)}


def _words(text: str) -> list[str]:
    plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _f1(answer: list[str], gold: list[str]) -> float:
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold)) if common else 0.0
