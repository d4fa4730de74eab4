"""Few-shot splits, drawn out of a full training set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from dfolora.errors import UserError
from dfolora.task import Example


def kshot(
    examples: Sequence[Example], shots: int, seed: int, classes: Sequence[str] = ()
) -> tuple[list[Example], list[Example]]:
    """Draw a balanced few-shot split: in shuffled order, the first k of each class train, the next k of each are dev.

    Args:
        examples: the full training set.
        shots: k.
        seed: of a private generator; the same seed draws the same split.
        classes: class names in label order; without them the classes are those that occur.

    Returns:
        train and dev, disjoint.

    References:
        Sun et al., Black-Box Tuning (arXiv 2201.03514), whose protocol this is.
    """
    names = classes or [str(label) for label in range(1 + max((example.label for example in examples), default=0))]
    order = np.random.RandomState(seed).permutation(len(examples))
    return fill((examples[i] for i in order), shots, names)


def fill(walk: Iterable[Example], shots: int, classes: Sequence[str]) -> tuple[list[Example], list[Example]]:
    """Take from ``walk`` until every class is full; it need not be walked to its end, so it may be read lazily.

    A repeated text is taken once: data sets hold some, and one must not be in both train and dev.
    """
    train: list[Example] = []
    dev: list[Example] = []
    seen = [0] * len(classes)
    texts = set()
    for example in walk:
        content = (*example.fields.values(), example.choices)
        if seen[example.label] < 2 * shots and content not in texts:
            texts.add(content)
            (train if seen[example.label] < shots else dev).append(example)
            seen[example.label] += 1
            if min(seen) == 2 * shots:
                break
    if shots < 1 or min(seen) < 2 * shots:
        short = min(range(len(seen)), key=seen.__getitem__)
        can = f"it may be 1 to {seen[short] // 2}" if seen[short] > 1 else "at least two are needed"
        raise UserError(
            f"shots: {shots}: class {classes[short]!r} has {seen[short]} examples, and train and dev take {shots} "
            f"each; {can}"
        )
    return train, dev


def kshot_groups(examples: Sequence[Example], shots: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Draw whole groups, twice ``shots`` of them for train and for dev, where examples cannot be balanced one by one.

    FewGLUE takes 32 questions of MultiRC with all their answers, and 32 queries of ReCoRD, in the same way: no two of
    them about one passage, so that train and dev share none. An example without a group is one by itself.
    """
    order = np.random.RandomState(seed).permutation(len(examples))
    chosen: dict[str, str] = {}  # passage -> the group that stands for it
    for i in order:
        chosen.setdefault(examples[i].fields.get("passage", f"#{i}"), examples[i].group or f"#{i}")
    groups: dict[str, list[Example]] = {group: [] for group in chosen.values()}
    for i, example in enumerate(examples):
        if (group := example.group or f"#{i}") in groups:
            groups[group].append(example)
    if not 1 <= shots <= len(groups) // 4:
        raise UserError(
            f"shots: {shots}: there are {len(groups)} passages, and train and dev take {2 * shots} each; "
            f"it may be 1 to {len(groups) // 4}"
        )
    drawn = list(groups.values())
    return list(chain(*drawn[: 2 * shots])), list(chain(*drawn[2 * shots : 4 * shots]))


def some_of(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many examples, the same ones every time; groups stay whole, and the order is kept.

    Args:
        examples: a test set.
        most: examples that remain at most; where the first group is larger, that group.
    """
    if len(examples) <= most:
        return list(examples)
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(example.group or f"#{i}", []).append(i)
    members = list(groups.values())
    chosen: list[int] = []
    for place in np.random.RandomState(0).permutation(len(members)):
        if not chosen or len(chosen) + len(members[place]) <= most:
            chosen += members[place]
    return [examples[i] for i in sorted(chosen)]
