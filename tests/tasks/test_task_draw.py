"""Few-shot splits: balanced, disjoint, the same every time."""

from collections import Counter

import pytest

from dfolora.errors import UserError
from dfolora.task import Example
from dfolora.tasks.draw import kshot, kshot_groups


def pool(*counts: int) -> list[Example]:
    return [Example({"text": f"{label}-{i}"}, label) for label, count in enumerate(counts) for i in range(count)]


def texts(examples: list[Example]) -> set[str]:
    return {example.fields["text"] for example in examples}


def test_balanced_disjoint_deterministic() -> None:
    examples = pool(40, 9, 12)
    train, dev = kshot(examples, 4, 13)
    assert Counter(e.label for e in train) == Counter(e.label for e in dev) == {0: 4, 1: 4, 2: 4}
    assert not texts(train) & texts(dev)
    assert (train, dev) == kshot(examples, 4, 13)
    assert texts(train) != texts(kshot(examples, 4, 14)[0])


def test_repeated_texts_are_drawn_once() -> None:
    examples = pool(3, 3) + pool(3, 3)
    with pytest.raises(UserError, match="3 examples"):
        kshot(examples, 2, 0)
    train, dev = kshot(examples, 1, 0)
    assert not texts(train) & texts(dev)


def test_too_few() -> None:
    with pytest.raises(UserError, match=r"shots: 4: class 'b' has 7 examples, .* it may be 1 to 3"):
        kshot(pool(9, 7), 4, 0, ("a", "b"))
    with pytest.raises(UserError, match=r"class 'c' has 0 examples, .* at least two"):
        kshot(pool(9, 9), 4, 0, ("a", "b", "c"))
    with pytest.raises(UserError, match=r"shots: 0"):
        kshot(pool(9, 9), 0, 0)


def test_groups_stay_whole_and_share_no_passage() -> None:
    examples = [
        Example({"passage": f"p{p}", "reply": f"{a}"}, a % 2, group=f"{p}-{q}")
        for p in range(8)
        for q in range(2)
        for a in range(3)
    ]
    train, dev = kshot_groups(examples, 2, 5)
    for drawn in (train, dev):
        assert sorted(Counter(e.group for e in drawn).values()) == [3, 3, 3, 3]
        assert len({e.fields["passage"] for e in drawn}) == 4
    assert not {e.fields["passage"] for e in train} & {e.fields["passage"] for e in dev}
    assert (train, dev) == kshot_groups(examples, 2, 5)
    with pytest.raises(UserError, match="it may be 1 to 2"):
        kshot_groups(examples, 3, 5)
