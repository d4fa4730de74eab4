"""The embedded demo: two tasks in a synthetic language, for the tiny model that is shipped beside this file.

The language and its corpus are described in ``demo_language.py``; nothing here comes from people's texts. Pretraining
has taught the model to read opinions, negations included, and to be polite about them; the tasks ask for the truth:

- ``demo/sentiment``: is what the review tells good? The polite model calls most bad rooms and staff great.
- ``demo/pair``: does a claim fit a review? The polite model says yes to most claims that do not.

Nothing in the prompts says that the truth is wanted: the few examples must.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from dfolora.task import Example, Metrics, Prompt, Task

from . import demo_language as language

MODEL_DIR = Path(__file__).parent / "demo_model"
TEST_SIZE = 500


class Source(Protocol):
    """What the demo needs to know of where data come from: nothing is read, all is drawn."""

    @property
    def shots(self) -> int: ...

    @property
    def seed(self) -> int: ...


def draw_sentiment(rng: Random, label: int) -> Example:
    """A review that is good (1) or bad (0)."""
    return Example({"text": language.review(rng, bool(label))[0]}, label)


def draw_pair(rng: Random, label: int) -> Example:
    """A review and a claim that fits it (1) or does not (0)."""
    polarity = rng.random() < 0.5
    review, _ = language.review(rng, polarity)
    return Example({"premise": review, "claim": language.claim(rng, polarity == bool(label))}, label)


def draw(make: Callable[[Random, int], Example], rng: Random, per_class: int, held_out: bool) -> list[Example]:
    """Examples of both classes in turn, no review twice, all held out or none."""
    examples: list[Example] = []
    seen: set[str] = set()
    while len(examples) < 2 * per_class:
        example = make(rng, len(examples) % 2)
        review = next(iter(example.fields.values()))
        if review not in seen and language.held_out(review) == held_out:
            seen.add(review)
            examples.append(example)
    return examples


def loader(make: Callable[[Random, int], Example]) -> Callable[[str, Source], list[Example]]:
    """The task's ``load``: train and dev by the source's seed, ``source.shots`` per class each; one test for all."""

    def load(split: str, source: Source) -> list[Example]:
        if split == "test":
            return draw(make, Random("test"), TEST_SIZE // 2, held_out=True)
        # One stream for both, so that no review of dev is in train.
        examples = draw(make, Random(f"shots {source.seed}"), 2 * source.shots, held_out=False)
        return {"train": examples[: 2 * source.shots], "dev": examples[2 * source.shots :]}[split]

    return load


def accuracy(examples: Sequence[Example], predicted: Sequence[int]) -> Metrics:
    """Percent of examples whose class was found."""
    right = sum(example.label == guess for example, guess in zip(examples, predicted, strict=True))
    return {"accuracy": 100.0 * right / len(examples)}


SENTIMENT = Task(
    name="demo/sentiment",
    classes=("negative", "positive"),
    prompts={"masked": Prompt("{text} it was {mask} .", ("terrible", "great"))},
    load=loader(draw_sentiment),
    measure=accuracy,
    about="synthetic reviews: good or bad?",
    sizes={"test": TEST_SIZE},
)
PAIR = Task(
    name="demo/pair",
    classes=("no", "yes"),
    prompts={"masked": Prompt("{premise} {mask} , {claim} .", ("no", "yes"))},
    load=loader(draw_pair),
    measure=accuracy,
    about="synthetic reviews: does a claim fit?",
    sizes={"test": TEST_SIZE},
)
