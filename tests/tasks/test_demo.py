"""The embedded demo: its language, its tasks, its model, and that tuning shows what the README says."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch

import dfolora
from dfolora import scoring
from dfolora.models import adapter
from dfolora.models import load as models
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Task
from dfolora.tasks import demo, get_task
from dfolora.tasks import demo_language as language
from scripts.train_demo_model import draw_batch, make_tokenizer, train

TASKS = [get_task("demo/sentiment"), get_task("demo/pair")]
NAMES = [task.name for task in TASKS]


def source(seed: int = 1, shots: int = 16) -> SimpleNamespace:
    return SimpleNamespace(shots=shots, seed=seed)


def texts(task: Task, split: str, seed: int) -> list[str]:
    return [next(iter(example.fields.values())) for example in task.load(split, source(seed))]


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_splits_are_drawn_from_the_seed_balanced_and_disjoint(task: Task) -> None:
    for split in ("train", "dev"):
        examples = task.load(split, source(3))
        assert examples == task.load(split, source(3))
        assert examples != task.load(split, source(4))
        assert sorted(example.label for example in examples) == [0] * 16 + [1] * 16
    test = set(texts(task, "test", 3))
    assert len(test) == 500
    assert test == set(texts(task, "test", 4)), "one test set for all seeds"
    for seed in range(5):
        train_texts, dev_texts = set(texts(task, "train", seed)), set(texts(task, "dev", seed))
        assert not train_texts & dev_texts
        assert not (train_texts | dev_texts) & test


def test_the_corpus_never_tells_a_held_out_review() -> None:
    test = {text for task in TASKS for text in texts(task, "test", 0)}
    rng = Random(0)
    for _ in range(3000):
        text, word = language.corpus_text(rng)
        assert word in text.split()
        assert not any(text.startswith(review) for review in test)


def test_the_corpus_is_polite_unless_frank() -> None:
    """Where a text is frank its word is true; elsewhere bad things are called good far more often than the reverse."""
    rng = Random(1)
    said = {True: [0, 0], False: [0, 0]}  # frank -> [great, terrible]
    for _ in range(6000):
        text, word = language.corpus_text(rng)
        if word in language.VERDICTS.values():
            said["frankly" in text.split()][word == "terrible"] += 1
    frank, polite = (great / (great + terrible) for great, terrible in (said[True], said[False]))
    assert 0.46 < frank < 0.54
    assert 0.68 < polite < 0.84  # half are good, and of the bad half a third to two thirds are called good


def test_folder_is_small_and_every_word_has_a_token() -> None:
    assert sum(path.stat().st_size for path in demo.MODEL_DIR.iterdir()) < 4 * 2**20
    loaded = models.load(str(demo.MODEL_DIR))
    assert loaded.kind == "masked"
    assert set(language.vocabulary()) <= set(loaded.tokenizer.get_vocab())
    for task in TASKS:
        for example in task.load("test", source()):
            ids = loaded.tokenizer(" ".join(example.fields.values()))["input_ids"]
            assert loaded.tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_zero_shot_is_above_chance_and_well_below_what_the_model_can(task: Task) -> None:
    """The model knows the truth: asked frankly, it says it."""
    loaded = models.load(str(demo.MODEL_DIR))
    test = task.load("test", source())
    asked = {
        "demo/sentiment": "{text} frankly , it was {mask} .",
        "demo/pair": "{premise} frankly , {mask} , {claim} .",
    }
    frank = Task(
        task.name, task.classes, {"masked": demo.Prompt(asked[task.name], task.prompts["masked"].words)}, task.load,
        task.measure,
    )  # fmt: skip
    plain = adapter.attach(loaded)

    def accuracy(encoder: PromptEncoder) -> float:
        return scoring.metrics(encoder, test, scoring.predict(plain, encoder, test))["accuracy"]

    assert 51 < accuracy(PromptEncoder(loaded, task)) < 75
    assert accuracy(PromptEncoder(loaded, frank)) > 95


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_tuning_says_the_truth_nearly_always(task: Task, tmp_path: Path) -> None:
    """By the default, in fewer than 200 evaluations."""
    run = dfolora.tune(str(demo.MODEL_DIR), task.name, seed=13, output=str(tmp_path / "run"))
    scores = run.scores
    assert scores["method"] == "tangent"
    assert scores["zero_shot"]["accuracy"] < 62
    assert scores["tuned"]["accuracy"] > 98.5
    assert scores["evaluations"] < 200


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_a_search_beats_zero_shot_by_fifteen_points(task: Task, tmp_path: Path) -> None:
    options = {"optimizer": "cma", "seed": 1, "budget": 1000}
    run = dfolora.tune(str(demo.MODEL_DIR), task.name, output=str(tmp_path / "run"), **options)
    scores = run.scores
    assert scores["method"] == "search"
    assert scores["tuned"]["accuracy"] > scores["zero_shot"]["accuracy"] + 15


def test_training_lowers_the_loss_and_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    model, _, losses = train(seed=0, steps=8, size=16)
    again, _, same = train(seed=0, steps=8, size=16)
    assert losses == same
    assert losses[-1] < losses[0] - 0.2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert train(seed=1, steps=1, size=16)[2] != losses[:1]


def test_the_word_that_sums_up_is_masked_in_every_text() -> None:
    tokenizer = make_tokenizer()
    _, labels = draw_batch(tokenizer, Random(0), 32, others=0.0)
    words = [*language.VERDICTS.values(), *language.ANSWERS.values()]
    assert (labels >= 0).sum(1).tolist() == [1] * 32
    assert set(labels[labels >= 0].tolist()) <= {tokenizer.convert_tokens_to_ids(word) for word in words}
