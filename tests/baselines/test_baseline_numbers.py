"""What single baselines compute, against numbers that are worked out otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import csv_files, given, model

from dfolora.baselines.calibrated import Calibrated, offsets
from dfolora.baselines.few_shot import FewShot
from dfolora.baselines.hidden_states import hidden_states
from dfolora.baselines.in_context import InContext, in_turn
from dfolora.baselines.logistic_regression import LogisticRegression
from dfolora.baselines.majority import Majority
from dfolora.models.bare import Bare
from dfolora.models.load import load
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Task

TEXTS = ["a funny story", "a very dull and boring film", "the sweet old song", "cold"]
EXAMPLES = [Example({"text": text}, index % 2) for index, text in enumerate(TEXTS)]
TEMPLATE = "{text} It was {mask}."


def few_shot(kind: str, train: list[Example], dev: list[Example] | None = None, seed: int = 0) -> FewShot:
    task = Task.from_examples(train, template=TEMPLATE, words=["bad", "great"])
    return FewShot(PromptEncoder(load(model(kind)), task), train, dev or train, seed)


# -- majority -------------------------------------------------------------------------------------------------------


def test_ties_go_to_the_lowest_class() -> None:
    for labels, expected in (([1, 0], 0), ([1, 1, 0], 1)):
        plain = Majority()
        train = [Example({"text": "a"}, label) for label in labels]
        plain.fit(SimpleNamespace(encoder=SimpleNamespace(prompt=SimpleNamespace(words=("a", "b"))), train=train))  # type: ignore[arg-type]
        assert plain.predict(EXAMPLES).predicted == [expected] * 4


# -- calibrated -----------------------------------------------------------------------------------------------------


def test_offsets_of_scores_that_say_nothing_are_the_logarithms_of_the_shares() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    b = offsets(np.zeros((10, 3)), labels, 1e-9)
    assert b - b[2] == pytest.approx(np.log([6, 3, 1]), abs=1e-3)


def test_offsets_undo_a_bias_and_the_ridge_holds_them_back() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    scores = rng.standard_normal((300, 3)) + 2 * np.eye(3)[labels]
    bias = np.array([3.0, -1.0, -2.0])
    plain, biased = offsets(scores, labels, 1e-6), offsets(scores + bias, labels, 1e-6)
    assert biased == pytest.approx(plain - bias, abs=1e-3)
    assert np.abs(offsets(scores + bias, labels, 10.0)).max() < 0.1
    # At the optimum of a convex function its slope is 0.
    probabilities = np.exp(scores + bias + biased)
    probabilities /= probabilities.sum(1, keepdims=True)
    assert (probabilities - np.eye(3)[labels]).mean(0) + 1e-6 * biased == pytest.approx(np.zeros(3), abs=1e-7)


def test_contextual_divides_by_what_is_said_of_no_content() -> None:
    """Calibrated probabilities are p / p_free, renormalised, with p_free the mean over the three inputs."""
    shot = few_shot("masked", EXAMPLES)
    plain = Calibrated(by="contextual")
    plain.fit(shot)
    blank = [Example({"text": text}, 0) for text in ("N/A", "[MASK]", "")]
    free = torch.stack(shot.zero_shot(blank).scores).double().softmax(1).mean(0)
    before = torch.stack(shot.zero_shot(EXAMPLES).scores).double().softmax(1)
    after = torch.stack(plain.predict(EXAMPLES).scores).double().softmax(1)
    expected = before / free
    assert torch.allclose(after, expected / expected.sum(1, keepdim=True), atol=1e-6)


# -- hidden states --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq"])
def test_hidden_states_are_those_that_transformers_gives(kind: str) -> None:
    language_model = load(model(kind))
    task = Task.from_examples(EXAMPLES, template=TEMPLATE, words=["bad", "great"])
    encoder = PromptEncoder(language_model, task)
    found, token_layers, forwards = hidden_states(Bare(language_model), encoder, EXAMPLES)
    assert len(found) == 2  # blocks
    assert token_layers > 0
    assert forwards >= 1
    for index, example in enumerate(EXAMPLES):
        rows = encoder.encode([example])
        output = language_model.model(**rows.inputs, output_hidden_states=True)
        states = output.decoder_hidden_states if kind == "seq2seq" else output.hidden_states
        expected = states[1][0, rows.positions[0, 0]]  # the last one has passed a norm in some models
        assert torch.allclose(found[0][index], expected, atol=1e-5)
        assert not torch.allclose(found[1][index], expected, atol=1e-2)


def test_a_sentence_encoder_gives_the_mean_over_its_tokens() -> None:
    language_model = load(model("encoder"))
    task = Task.from_examples(EXAMPLES, template="{text}", words=["It is bad.", "It is great."])
    encoder = PromptEncoder(language_model, task)
    (found,), _, _ = hidden_states(Bare(language_model), encoder, EXAMPLES)
    for index, text in enumerate(TEXTS):
        inputs = language_model.tokenizer(text, return_tensors="pt")
        states = language_model.model(input_ids=inputs["input_ids"]).last_hidden_state[0]
        assert torch.allclose(found[index], states.mean(0), atol=1e-5)


# -- logistic regression --------------------------------------------------------------------------------------------


class States(FewShot):
    """Hidden states that are made up: those of a given layer tell the class, others do not."""

    def __init__(self, telling: int, layers: int = 3, count: int = 40) -> None:
        labels = [index % 2 for index in range(count)]
        self.train = [Example({"text": "a"}, label) for label in labels]
        self.dev = [Example({"text": "a"}, label) for label in labels]
        self.encoder: Any = few_shot("causal", EXAMPLES).encoder
        self.telling, self.layers, self.asked = telling, layers, 0

    def hidden_states(self, examples: Any) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.asked)
        self.asked += 1
        signs = torch.tensor([2.0 * example.label - 1 for example in examples])
        found = []
        for layer in range(self.layers):
            states = torch.randn(len(examples), 8, generator=generator)
            if layer == self.telling:
                states[:, 3] += 4 * signs
            found.append(states * 100 + 7)  # standardised, no scale matters
        return found

    def stage(self, text: str) -> None: ...


@pytest.mark.parametrize("telling", [0, 2])
def test_the_layer_that_tells_is_chosen(telling: int) -> None:
    plain, shot = LogisticRegression(), States(telling)
    assert plain.fit(shot)["layer"] == telling
    others = [dataclasses.replace(example) for example in shot.dev]
    right = [g == e.label for g, e in zip(plain.predict(others).predicted, others, strict=True)]
    assert sum(right) >= 38
    assert shot.asked == 3  # once for train, once for dev, once for these
    plain.predict(shot.dev)
    assert shot.asked == 3  # the dev set's are there


def test_a_class_that_was_not_there_is_never_predicted() -> None:
    train = [Example({"text": text}, 2 * (index % 2)) for index, text in enumerate(TEXTS)]
    task = Task.from_examples(train, template=TEMPLATE, words=["bad", "good", "great"])
    shot = FewShot(PromptEncoder(load(model("causal")), task), train, train, 0)
    plain = LogisticRegression()
    plain.fit(shot)
    scores = torch.stack(plain.predict(train).scores)
    assert bool((scores[:, 1] == -torch.inf).all())
    assert torch.allclose(scores.exp().sum(1), torch.ones(4), atol=1e-6)


# -- in context -----------------------------------------------------------------------------------------------------


def shown(shot: FewShot, number: int, example: Example) -> str:
    """The text that the model is asked."""
    plain = InContext(demonstrations=number)
    plain.fit(shot)
    return plain.encoder.texts([plain.prompt(example)])[0]


def test_the_prompt_is_demonstrations_then_the_text() -> None:
    shot = few_shot("causal", EXAMPLES, seed=5)
    answers = {0: "bad", 1: "great"}
    parts = [f"{e.fields['text']} It was {answers[e.label]}." for e in in_turn(EXAMPLES, 2, 5)]
    asked = shown(shot, 2, Example({"text": "a new film"}, 0))
    assert asked == "\n\n".join([*parts, "a new film It was"])
    masked = shown(few_shot("masked", EXAMPLES, seed=5), 2, Example({"text": "a new film"}, 0))
    assert masked == " ".join([*parts, "a new film It was <mask>."])


def test_demonstrations_are_balanced_and_drawn_by_the_seed() -> None:
    many = [Example({"text": str(index)}, index % 3) for index in range(30)]
    for number in (3, 6, 9):
        labels = [example.label for example in in_turn(many, number, 1)]
        assert all(labels.count(label) == number // 3 for label in range(3))
    assert in_turn(many, 6, 1) == in_turn(many, 6, 1) == in_turn(many, 9, 1)[:6]
    assert in_turn(many, 6, 1) != in_turn(many, 6, 2)
    assert len({example.fields["text"] for example in in_turn(many, 30, 1)}) == 30


def test_the_first_that_fit_are_shown() -> None:
    """264 positions: each demonstration has 4 + 60 tokens, so that three fit beside a short text and one beside 150."""
    long = [Example({"text": "good " * 59 + "film"}, index % 2) for index in range(4)]
    shot = few_shot("causal", long)
    assert shown(shot, 4, Example({"text": "bad"}, 0)).count("film") == 4
    assert shown(shot, 4, Example({"text": "bad " * 60}, 0)).count("film") == 3
    assert shown(shot, 4, Example({"text": "bad " * 150}, 0)).count("film") == 1


# -- cost -----------------------------------------------------------------------------------------------------------


def test_forwards_on_the_test_set_cost_nothing_and_train_and_dev_are_counted_apart() -> None:
    dev = EXAMPLES[:2]
    shot = few_shot("causal", EXAMPLES, dev)
    shot.zero_shot(EXAMPLES[1:])
    assert (shot.token_layers, shot.dev_token_layers, shot.forwards) == (0, 0, 0)
    shot.zero_shot(shot.dev)
    tokens = sum(len(ids) for ids in shot.encoder.prompts(dev))
    assert shot.token_layers == 0
    assert shot.dev_token_layers >= 2 * tokens  # two blocks, and padding
    first = shot.dev_token_layers
    shot.zero_shot(shot.dev)
    assert shot.dev_token_layers == first  # it is known
    shot.zero_shot(shot.train)
    assert shot.token_layers > first


def test_files_and_examples_agree(tmp_path: Path) -> None:
    """The same rows as a table and as objects: the same numbers."""
    import dfolora

    options = given(csv_files(tmp_path))
    from_files = dfolora.baseline("calibrated", model("masked"), output=str(tmp_path / "a"), **options)
    task = dfolora.Task.from_files(
        options["train_file"], options["test_file"], options["dev_file"], template=TEMPLATE, words="0=bad,1=great"
    )
    loaded = load(model("masked"))
    by_object = dfolora.baseline("calibrated", loaded, task, output=str(tmp_path / "b"))
    assert by_object["tuned"] == from_files["tuned"]
    assert by_object["details"] == from_files["details"]
