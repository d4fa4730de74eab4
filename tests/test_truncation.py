"""Prompts that are too long: the named field is cut, the rest stands whole, and the result fits."""

from __future__ import annotations

from typing import Any

import pytest
from toy_scorers import MAKES, pieces, scorer, text
from toy_tokenizers import bert_like, gpt2_like, roberta_like

from dfolora.errors import UserError
from dfolora.task import Example

QUESTION = "is it true and not a story"


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("limit", [20, 30])
def test_only_the_named_field_is_cut(make: Any, limit: int) -> None:
    it = scorer(make, "{text} question: {question} answer: {mask}", max_length=limit)
    long = " ".join(["the film is great"] * 30)
    examples = [text(long, question=QUESTION), text("the film", question=QUESTION)]
    rows = it.encode(examples)
    assert rows.inputs["input_ids"].shape[1] <= limit
    assert rows.inputs["attention_mask"][0].sum() > limit - 6  # no more is cut than has to be
    uncut = it.encode(examples[1:])
    tail = len(pieces(it, uncut)) - 3  # all but the text and what stands before it
    assert pieces(it, rows)[-tail:] == pieces(it, uncut)[-tail:]
    if it.kind == "masked":
        assert rows.inputs["input_ids"][0, rows.positions[0, 0]] == it.tokenizer.mask_token_id
    kept = it.tokenizer.decode(rows.inputs["input_ids"][0], skip_special_tokens=True)
    assert kept.split(" question")[0].strip() in long


@pytest.mark.parametrize("make", [roberta_like, gpt2_like])
def test_a_text_of_one_endless_word_is_cut_too(make: Any) -> None:
    """As in languages without spaces."""
    rows = scorer(make, max_length=12).encode([text("z" * 400)])
    assert 9 <= rows.inputs["attention_mask"].sum() <= 12


def test_causal_answers_are_counted_in_the_limit() -> None:
    it = scorer(gpt2_like, "{text} because {mask}", None, max_length=16)
    example = Example({"text": "the film is great " * 30}, 0, choices=("the staff was nice and fine", "no"))
    rows = it.encode([example])
    assert 13 <= rows.inputs["attention_mask"].sum(1).max() <= 16
    assert (rows.targets[0] >= 0).sum() == 6  # type: ignore[index]


def test_what_cannot_be_cut_is_refused() -> None:
    it = scorer(roberta_like, max_length=5)
    with pytest.raises(UserError, match="example 0: max_length: 5 tokens cannot hold its prompt"):
        it.encode([text("the film")])
    nothing = scorer(roberta_like, max_length=12, shorten="")
    with pytest.raises(UserError, match="'none' cut"):
        nothing.encode([text("the film " * 20)])
    with pytest.raises(UserError, match="61 is more than the 60 positions"):
        scorer(bert_like, max_length=61)
    assert scorer(roberta_like).max_length == 60
