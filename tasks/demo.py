"""The embedded demo: two tasks in a synthetic language, for the tiny model that is shipped beside this file.

The language and its corpus are described in ``demo_language.py``; nothing here comes from people's texts.
Each task is a change of point of view. Pretraining has taught the model to read both opinions of a review and, where
nothing says which one counts, to answer for the one that the corpus cares for. The tasks ask for the other one and do
not say so; the examples must:

- ``demo/sentiment``: a visit, with something said about the staff and something about the food or the room.
  The label is the opinion of the *staff*; the corpus speaks of it least.
- ``demo/pair``: something then and now, and a claim. The label is whether the claim fits *today*; the corpus usually
  compares it with the past.

The two opinions agree in 55% of the reviews, so a model with the corpus' habit scores a little above half.
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
    """A review with an opinion of the staff (the label) and one of the food or the room."""
    opinions = language.two_opinions(rng, "staff", rng.choice(("food", "room")), bool(label))
    return Example({"text": language.review(rng, opinions)}, label)


def draw_pair(rng: Random, label: int) -> Example:
    """A review of the food and the room with a claim that fits (1) or does not fit (0) the room."""
    polarity = rng.random() < 0.5
    review = language.review(rng, language.two_opinions(rng, "room", "food", polarity))
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
    about="synthetic reviews: is the opinion of the staff good?",
)
PAIR = Task(
    name="demo/pair",
    classes=("no", "yes"),
    prompts={"masked": Prompt("{premise} {mask} , {claim} .", ("no", "yes"))},
    load=loader(draw_pair),
    measure=accuracy,
    about="synthetic then-and-now reviews: does the claim fit today?",
)
