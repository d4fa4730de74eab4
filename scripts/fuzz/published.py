"""Small made-up records in the layouts of published data sets."""

from __future__ import annotations

from typing import Any

_PAIRS = [
    {"premise": "The soup was warm.", "hypothesis": "It was hot.", "label": "entailment", "idx": 0},
    {"premise": "The hall was dark.", "hypothesis": "It was lit.", "label": "not_entailment", "idx": 1},
]
_FEWGLUE = ("train.jsonl", "dev32.jsonl", "val.jsonl")


def _files(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in _FEWGLUE]


# Task -> files, and records of which each file is made; a file that ends in .json is the first record.
RECORDS: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    "superglue/rte": (_files("RTE"), _PAIRS),
    "superglue/cb": (
        _files("CB"),
        [{**_PAIRS[0], "label": name} for name in ("entailment", "contradiction", "neutral")],
    ),
    "superglue/boolq": (
        _files("BoolQ"),
        [{"passage": "Rain fell.", "question": f"did rain fall {n}", "label": bool(n)} for n in range(2)],
    ),
    "superglue/copa": (
        _files("COPA"),
        [{"premise": "He ran.", "choice1": "It rained.", "choice2": "He slept.", "question": "cause", "label": n}
         for n in range(2)],
    ),
    "superglue/wic": (
        _files("WiC"),
        [{"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "label": bool(n)} for n in range(2)],
    ),
    "superglue/wsc": (
        _files("WSC"),
        [{"text": "Ann saw her dog.", "label": True,
          "target": {"span1_text": "Ann", "span1_index": 0, "span2_text": "her", "span2_index": 2}}],
    ),
    "superglue/multirc": (
        _files("MultiRC"),
        [{"idx": 0, "passage": {"text": "He ran.", "questions": [{"idx": 0, "question": "Who?", "answers": [
            {"idx": 0, "text": "he", "label": 1}, {"idx": 1, "text": "she", "label": 0}]}]}}],
    ),
    "superglue/record": (
        _files("ReCoRD"),
        [{"idx": 0, "passage": {"text": "Anna met Bob.", "entities": [{"start": 0, "end": 3}, {"start": 9, "end": 11}]},
          "qas": [{"idx": 0, "query": "@placeholder met", "answers": [{"text": "Anna", "start": 0, "end": 3}]}]}],
    ),
    "squad": (
        ["SQuAD/train-v1.1.json", "SQuAD/dev-v1.1.json"],
        [{"data": [{"title": "t", "paragraphs": [{"context": "He ran.", "qas": [
            {"id": "1", "question": "Who?", "answers": [{"text": "He", "answer_start": 0}]}]}]}]}],
    ),
    "drop": (
        ["DROP/drop_dataset_train.json", "DROP/drop_dataset_dev.json"],
        [{"p": {"passage": "He ran.", "qa_pairs": [{"question": "Who?", "query_id": "1", "answer": {
            "number": "", "spans": ["he"]}, "validated_answers": [{"spans": ["he"]}]}]}}],
    ),
}  # fmt: skip
QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [{"question": f"What is {n} and 2?", "answer": f"It is {n + 2}.\n#### {n + 2}"} for n in range(3)],
    "svamp": [{"Body": "Ann has 3 pens", "Question": "How many pens?", "Answer": 3.0}],
    "multiarith": [{"iIndex": 1, "sQuestion": "What is 1 and 2?", "lSolutions": [3.0]}],
    "aqua": [{"question": "What is 1 and 2?", "options": ["A)1", "B)2", "C)3", "D)4", "E)5"], "correct": "C"}],
    "commonsenseqa": [{"answerKey": "B", "question": {"stem": "Where is a bed?", "choices": [
        {"label": "A", "text": "sea"}, {"label": "B", "text": "room"}]}}],
    "strategyqa": [{"input": "Is snow cold?", "target_scores": {"Yes": 1, "No": 0}}],
    "last-letters": [{"question": "Last letters of Ann Bo?", "answer": "no"}],
    "coin-flip": [{"question": "Heads up. Ann flips. Still heads up?", "answer": "no"}],
}  # fmt: skip
