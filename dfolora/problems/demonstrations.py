"""Training examples with their answers, as texts that stand in front of a prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from dfolora.errors import UserError
from dfolora.problems.answer_tokens import takes_a_space
from dfolora.problems.encode import PromptEncoder
from dfolora.seeds import seed_of
from dfolora.task import Example, Prompt
from dfolora.template import before, fill


def with_demonstrations(
    encoder: PromptEncoder, train: Sequence[Example], number: int, seed: int
) -> tuple[PromptEncoder, list[Example]]:
    """Put some training examples with their answers in front of every prompt.

    They leave the training set: a model that is shown an example's answer has nothing to learn from it.

    Args:
        encoder: of the plain prompts.
        train: the training set.
        number: how many, one of each class in turn.
        seed: of which, and of their order.

    Returns:
        The encoder of the longer prompts, and the training examples that are left.

    Raises:
        UserError: a sentence encoder, which cannot be shown anything, or too few training examples.
    """
    if encoder.kind == "encoder":
        raise UserError("demonstrations: a sentence encoder cannot be shown examples; leave them out")
    if number >= len(train):
        raise UserError(f"demonstrations: {number} leaves none of the {len(train)} training examples to learn from")
    chosen = in_turn(train, number, seed)
    shown = gap_of(encoder).join([*(demonstration(encoder, example) for example in chosen), ""])
    prompt, task = encoder.prompt, encoder.task
    longer = Prompt(_literal(shown) + prompt.template, prompt.words, prompt.answer)
    asked = replace(task, prompts={**task.prompts, encoder.kind: longer})
    left = [example for example in train if not any(example is other for other in chosen)]
    return PromptEncoder(encoder.language_model, asked, encoder.max_length), left


def gap_of(encoder: PromptEncoder) -> str:
    """What stands between demonstrations, and between the last one and the prompt."""
    return "\n\n" if encoder.kind == "causal" else " "


def in_turn(train: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Draw some examples, one of each class in turn, all in an order that the seed decides."""
    draw = Random(seed_of(seed, "demonstrations"))
    by_class: dict[int, list[Example]] = defaultdict(list)
    for example in draw.sample(list(train), len(train)):
        by_class[example.label].append(example)
    order: list[Example] = []
    while len(order) < min(number, len(train)):
        there = [label for label in sorted(by_class) if by_class[label]]
        order += [by_class[label].pop() for label in draw.sample(there, len(there))]
    return order[:number]


def demonstration(encoder: PromptEncoder, example: Example) -> str:
    """A training example as text: the prompt, cut as it always is, with its answer in the place of the mask."""
    fields, prompt = encoder.shortened(example).fields, encoder.prompt
    if prompt.words is not None:
        answer = prompt.words[example.label]
    elif encoder.task.new_tokens:
        answer = example.gold[0]
    else:
        classes = example.choice_class or range(len(example.choices or ()))
        choice = next(text for text, c in zip(example.choices or (), classes, strict=True) if c == example.label)
        answer = fill(prompt.answer, {**fields, "choice": choice})
    front = fill(before(prompt.template, "mask"), fields)
    space = " " if encoder.kind == "causal" and not front.endswith((" ", "\n")) and takes_a_space(front) else ""
    return fill(prompt.template, {**fields, "mask": space + answer}).strip()


def _literal(text: str) -> str:
    """A text as a template that gives just it."""
    return text.replace("{", "{{").replace("}", "}}")
