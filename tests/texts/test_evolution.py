"""Optimizers of texts on a scripted model that mixes words, and a landscape that is known."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from dfolora.chat import CallLimit, Request, ScriptedChat
from dfolora.errors import UserError
from dfolora.texts import make_text_optimizer
from dfolora.texts.operators import LONGEST, crossed_and_mutated, crossover, difference, mutation, read, rewording
from dfolora.texts.optimizer import TextOptimizer

WORDS = "count check slowly twice aloud list sort draw guess skip jump sing".split()
GOOD = set(WORDS[:8])
SEEDS = ["please guess now", "please skip now"]


def loss(text: str) -> float:
    """What a text lacks of the eight good words, plus a little for each bad one: known, and with one optimum."""
    words = set(re.findall(r"\w+", text))
    return len(GOOD - words) + 0.5 * len(words & set(WORDS[8:]))


def mixer(request: Request) -> str:
    """Does as it is told with words alone: a rewording changes one word at random, a child mixes its parents'."""
    rng = random.Random(f"{request.seed}")
    yours = request.messages[-1].content.split("Now yours\n")[1]
    parents = [line.split(": ", 1)[1].split() for line in yours.splitlines() if line.startswith("Prompt")]
    child = list(dict.fromkeys(word for words in zip_longest(parents, rng) for word in words))
    child = [word for word in child if rng.random() < 0.9 or len(parents) == 1] or parents[0]
    child[rng.randrange(len(child))] = rng.choice(WORDS)
    return f"Here it is.\n<prompt>{' '.join(dict.fromkeys([*child, rng.choice(WORDS)]))}</prompt>"


def zip_longest(parents: list[list[str]], rng: random.Random) -> list[list[str]]:
    return [rng.sample(words, max(1, round(0.8 * len(words)))) if len(parents) > 1 else words for words in parents]


def search(name: str, seed: int, evaluations: int = 100, rule: Callable[[Request], str] = mixer) -> TextOptimizer:
    optimizer = make_text_optimizer(name, ScriptedChat(rule), SEEDS, seed)
    while len(optimizer.known) < evaluations:
        texts = optimizer.ask()
        optimizer.tell([loss(text) for text in texts])
    return optimizer


@pytest.mark.parametrize("name", ["evoprompt-ga", "evoprompt-de"])
def test_evolution_beats_as_many_random_rewordings(name: str) -> None:
    evolved = [search(name, seed) for seed in range(5)]
    reworded = [search("random", seed) for seed in range(5)]
    for one, other in zip(evolved, reworded, strict=True):
        # Both have scored 100 texts, to a generation; what counts is the best of the first 100.
        best, rival = (min(list(each.known.values())[:100]) for each in (one, other))
        assert best < rival - 1, (best, rival)


@pytest.mark.parametrize("name", ["evoprompt-ga", "evoprompt-de", "random"])
def test_a_search_is_repeated_by_telling_it_the_same(name: str) -> None:
    assert list(search(name, 3).known.items()) == list(search(name, 3).known.items())
    assert list(search(name, 3).known) != list(search(name, 4).known)


@pytest.mark.parametrize("name", ["evoprompt-ga", "evoprompt-de"])
def test_no_text_is_asked_for_twice_and_nan_is_the_worst(name: str) -> None:
    optimizer = make_text_optimizer(name, ScriptedChat(mixer), SEEDS, 1)
    asked: list[str] = []
    for generation in range(6):
        texts = optimizer.ask()
        asked += texts
        optimizer.tell([float("nan") if generation == 0 and k else loss(text) for k, text in enumerate(texts)])
    assert len(asked) == len(set(asked)) > 20
    assert optimizer.best_loss == min(optimizer.known.values()) < loss(SEEDS[0])


def test_a_model_that_makes_nothing_new_asks_for_nothing() -> None:
    optimizer = make_text_optimizer("evoprompt-ga", ScriptedChat(lambda request: "I cannot\ndo that."), SEEDS, 0)
    assert optimizer.ask() == SEEDS
    optimizer.tell([2.0, 1.0])
    assert optimizer.ask() == []
    optimizer.tell([])
    assert (optimizer.best, optimizer.best_loss) == (SEEDS[1], 1.0)


def test_a_search_goes_on_after_its_calls_were_used_up() -> None:
    broken = [True]

    def rule(request: Request) -> str:
        if broken[0] and "in two steps" in request.messages[-1].content:
            raise CallLimit("max_calls: 3 are used up")
        return mixer(request)

    optimizer = make_text_optimizer("evoprompt-ga", ScriptedChat(rule), SEEDS, 5)
    optimizer.tell([loss(text) for text in optimizer.ask()])
    with pytest.raises(CallLimit):
        optimizer.ask()
    broken[0] = False
    texts = optimizer.ask()
    again = make_text_optimizer("evoprompt-ga", ScriptedChat(rule), SEEDS, 5)
    again.tell([loss(text) for text in again.ask()])
    assert again.ask() == texts


@pytest.mark.parametrize(
    ("reply", "text", "how"),
    [
        ("1. So.\n2. <prompt>Count  all\nthings.</prompt> Good?", "Count all things.", "tags"),
        ("<prompt>Count it.</prompt> and <prompt>Count it twice.</prompt>", "Count it twice.", "tags"),
        ("<prompt>Count all things", "Count all things", "tags"),
        ("Reply: Count all things.", "Count all things.", "plain"),
        ('New prompt: "Count all things."', "Count all things.", "plain"),
        ("<prompt></prompt>", "old one", "fallback"),
        ("<prompt>...</prompt>", "old one", "fallback"),
        ("", "old one", "fallback"),
        ("I cannot do that.\nSorry.", "old one", "fallback"),
        ("word " * (LONGEST + 1), "old one", "fallback"),
    ],
)
def test_what_is_read_from_a_reply(reply: str, text: str, how: str) -> None:
    assert read(reply, "old one") == (text, how)


def test_the_example_of_an_instruction_is_no_result() -> None:
    for said in (crossover("a b", "c d"), mutation("a b"), rewording("a b"), crossed_and_mutated("a", "b"),
                 difference("a", "b", "c", "d")):  # fmt: skip
        example = re.findall(r"<prompt>[A-Z][^<]{5,}</prompt>", said)
        assert len(example) == 1
        assert read(example[0], "old one").how == "fallback"


def test_options_that_cannot_work_are_refused() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("evoprompt-de", {"population": 2}, "population: 2 is too few"),
        ("evoprompt-gs", {}, "evolve: unknown 'evoprompt-gs'; did you mean 'evoprompt-ga'"),
        ("random", {"sigma": 1}, "option: unknown 'sigma'"),
    ]
    for name, options, says in cases:
        with pytest.raises(UserError) as caught:
            make_text_optimizer(name, ScriptedChat(mixer), SEEDS, 0, options)
        assert str(caught.value).startswith(says)
    with pytest.raises(UserError, match="seeds: there is no text"):
        make_text_optimizer("random", ScriptedChat(mixer), [" "])
