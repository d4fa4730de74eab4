"""Text to token rows: rendering, answer positions, label words, truncation; token by token for three tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_zoo import build
from toy_scorers import MAKES, TEMPLATE, WORDS, pieces, scorer, text
from toy_tokenizers import bert_like, gpt2_like, roberta_like, t5_like, words_only

from dfolora.engine import Engine, Rows
from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Kind, Prompt, Task


def refused(match: str, make: Any, *args: Any, **settings: Any) -> str:
    with pytest.raises(UserError, match=match) as caught:
        scorer(make, *args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- rendering and positions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected", "position", "labels"),
    [
        (roberta_like, "<s> the Ġfilm Ġit Ġwas <mask> . </s>", 5, ["Ġgreat", "Ġterrible"]),
        (bert_like, "[CLS] the film it was [MASK] . [SEP]", 5, ["great", "terrible"]),
        (gpt2_like, "the Ġfilm Ġit Ġwas", 3, ["Ġgreat", "Ġterrible"]),
        (t5_like, "▁the ▁film ▁it ▁was ▁ <extra_id_0> . </s>", 1, ["▁great", "▁terrible"]),
    ],
)
def test_label_words(make: Any, expected: str, position: int, labels: list[str]) -> None:
    it = scorer(make)
    rows = it.encode([text("the film"), text("the food and the staff")])
    assert [p for p in pieces(it, rows) if p != "▁"] == [p for p in expected.split() if p != "▁"]
    assert rows.positions[0].tolist() == [position]
    assert it.tokenizer.convert_ids_to_tokens(rows.columns.tolist()) == labels  # type: ignore[union-attr]
    assert rows.owner.tolist() == [[0, -1], [1, -1]]
    assert rows.classes.tolist() == [2, 2]
    assert rows.targets is None
    assert rows.inputs["input_ids"][0, -1] == it.tokenizer.pad_token_id  # the second text is longer
    assert rows.inputs["attention_mask"][0, -1] == 0
    assert it.labels([text("x", 1), text("y", 0)]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("make", "template", "labels"),
    [
        (roberta_like, "{text}:{mask}", ["great", "terrible"]),  # no space before it, so the word without one
        (roberta_like, "{mask}: {text}", ["great", "terrible"]),
        (roberta_like, "{text}\n {mask}", ["Ġgreat", "Ġterrible"]),
        (gpt2_like, "{text} it was{mask}", ["Ġgreat", "Ġterrible"]),
        (gpt2_like, "{mask}", ["great", "terrible"]),
    ],
)
def test_the_space_before_a_label_word(make: Any, template: str, labels: list[str]) -> None:
    it = scorer(make, template)
    assert it.tokenizer.convert_ids_to_tokens(it.label_tokens) == labels


def test_sentinels_and_decoder_inputs() -> None:
    it = scorer(t5_like)
    rows = it.encode([text("the film")])
    start = it.tokenizer.pad_token_id  # what T5 begins with; its configuration does not always say so
    sentinel = it.tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert rows.inputs["decoder_input_ids"].tolist() == [[start, sentinel]]
    assert (rows.inputs["input_ids"] == sentinel).sum() == 1


def test_without_sentinels_the_decoder_gives_the_whole_answer() -> None:
    tokenizer = t5_like(sentinels=False)
    language_model = models.wrap(build("bart", vocabulary=500), tokenizer, "seq2seq", "toy")
    prompt = Prompt("{text} it was {mask}", WORDS)
    it = PromptEncoder(language_model, Task("toy", (), {"seq2seq": prompt}, load=list, measure=lambda *_: {}))
    rows = it.encode([text("the film")])
    assert pieces(it, rows) == ["▁the", "▁film", "▁it", "▁was", "</s>"]
    assert rows.inputs["decoder_input_ids"].tolist() == [[language_model.model.config.decoder_start_token_id]]
    assert rows.positions.tolist() == [[0]]


@pytest.mark.parametrize("make", MAKES)
def test_what_stands_in_somebodys_text_is_only_text(make: Any) -> None:
    """A mask token or a brace in the user's text neither moves the answer position nor expands."""
    it = scorer(make)
    slot = it.slot or "<mask>"
    rows = it.encode([text(f"the {slot} film {slot}{slot} {{mask}} {{text}}")])
    plain = it.encode([text("the film")])
    if it.slot:
        token = it.tokenizer.convert_tokens_to_ids(slot)
        places = (rows.inputs["input_ids"][0] == token).nonzero().flatten().tolist()
        assert len(places) == 1
        if it.kind == "masked":
            assert rows.positions.tolist() == [places]
            assert pieces(it, rows)[places[0] - 1] == pieces(it, plain)[int(plain.positions) - 1]
    assert len(pieces(it, rows)) > len(pieces(it, plain))


# -- errors ----------------------------------------------------------------------------------------------------------


def test_label_words_that_cannot_serve() -> None:
    message = refused("'greatfilm'", roberta_like, TEMPLATE, ("greatfilm", "terrible"))
    assert "2 tokens" in message
    assert "toy-model" in message
    refused("'zyx' is unknown", words_only, TEMPLATE, ("great", "zyx"))
    refused("same token", bert_like, TEMPLATE, ("great", "GREAT"))
    assert "'Great'" in refused("tokens", t5_like, TEMPLATE, ("great", "Great"))


def test_templates_that_cannot_serve() -> None:
    refused("0 {mask}", roberta_like, "{text} it was great.")
    refused("2 {mask}", bert_like, "{mask} {text} {mask}")
    assert "{mask} last" in refused("causal", gpt2_like, "{mask} is what {text} was")
    assert scorer(gpt2_like, "{text} it was {mask}, really.").kind == "causal"  # plain words after it may stay


def test_a_task_without_a_prompt_for_the_kind() -> None:
    it = scorer(roberta_like)
    causal_only = Task("toy", (), {"causal": Prompt("{text} {mask}", WORDS)}, load=list, measure=lambda *_: {})
    with pytest.raises(UserError, match="'toy' has no prompt for a masked model, only causal"):
        PromptEncoder(it.language_model, causal_only)
    with pytest.raises(UserError, match="example 0: it has no choices, and there are no label words"):
        scorer(roberta_like, words=None).encode([text("the film")])


# -- choices ---------------------------------------------------------------------------------------------------------

CHOICES = Example({"text": "the film"}, 1, choices=("not really great", "fine"))


def test_masked_choices_repeat_the_mask() -> None:
    it = scorer(roberta_like, words=None)
    rows = it.encode([text_with_one_choice(), CHOICES])
    assert " ".join(pieces(it, rows, 1)) == "<s> the Ġfilm Ġit Ġwas <mask> <mask> <mask> . </s>"
    assert " ".join(pieces(it, rows, 2)) == "<s> the Ġfilm Ġit Ġwas <mask> . </s>"
    assert rows.positions[1].tolist() == [5, 6, 7]
    assert rows.positions[2, 0] == 5
    assert targets(it, rows, 1) == ["Ġnot", "Ġreally", "Ġgreat"]
    assert targets(it, rows, 2) == ["Ġfine"]
    assert rows.owner.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert rows.classes.tolist() == [1, 2]


def text_with_one_choice() -> Example:
    return Example({"text": "food"}, 0, choices=("bad",))


def targets(it: PromptEncoder, rows: Rows, row: int) -> list[str]:
    assert rows.targets is not None
    return it.tokenizer.convert_ids_to_tokens([t for t in rows.targets[row].tolist() if t != -100])


def test_causal_choices_follow_the_prompt() -> None:
    it = scorer(gpt2_like, words=None)
    rows = it.encode([CHOICES])
    assert " ".join(pieces(it, rows, 0)) == "the Ġfilm Ġit Ġwas Ġnot Ġreally"
    assert " ".join(pieces(it, rows, 1)) == "the Ġfilm Ġit Ġwas"
    assert rows.positions.tolist() == [[3, 4, 5], [3, 0, 0]]
    assert targets(it, rows, 0) == ["Ġnot", "Ġreally", "Ġgreat"]
    assert targets(it, rows, 1) == ["Ġfine"]


def test_seq2seq_choices_are_decoded() -> None:
    it = scorer(t5_like, words=None)
    rows = it.encode([CHOICES])
    assert pieces(it, rows, 0) == pieces(it, rows, 1)
    assert pieces(it, rows, 0, "decoder_input_ids")[1:] == ["<extra_id_0>", "▁not", "▁really"]
    assert rows.positions[0].tolist() == [1, 2, 3]
    assert targets(it, rows, 0) == ["▁not", "▁really", "▁great"]
    assert targets(it, rows, 1) == ["▁fine"]


def test_choice_classes() -> None:
    example = Example({"text": "food"}, 1, choices=("nice", "bad", "fine"), choice_class=(1, 0, 1))
    rows = scorer(bert_like, words=None).encode([CHOICES, example])
    assert rows.owner.tolist() == [[0, 0], [0, 1], [1, 1], [1, 0], [1, 1]]
    assert rows.classes.tolist() == [2, 2]


# -- sentence encoders -----------------------------------------------------------------------------------------------


def test_label_sentences() -> None:
    it = scorer(bert_like, "{text} it was {mask} .", ("it was great", "it was terrible"), kind="encoder")
    rows = it.encode([text("the film"), text("food")])
    assert rows.sentences
    assert " ".join(pieces(it, rows, 0)) == "[CLS] the film it was . [SEP]"
    assert " ".join(pieces(it, rows, 3)) == "[CLS] it was terrible [SEP]"
    assert rows.owner.tolist() == [[0, -1], [1, -1], [-1, 0], [-1, 1]]
    assert rows.classes.tolist() == [2, 2]
    with_choices = it.encode([CHOICES])  # label sentences win, as label words do
    assert with_choices.owner.tolist() == [[0, -1], [-1, 0], [-1, 1]]


def test_choice_sentences() -> None:
    it = scorer(bert_like, "{text}", None, kind="encoder", answer="{text} and {choice}")
    rows = it.encode([CHOICES])
    assert [" ".join(pieces(it, rows, row)[1:-1]) for row in range(3)] == [
        "the film",
        "the film and not really great",
        "the film and fine",
    ]
    assert rows.owner.tolist() == [[0, -1], [0, 0], [0, 1]]
    assert rows.targets is None


@pytest.mark.parametrize(
    ("make", "kind"),
    [*((make, kind) for make, (kind, _) in MAKES.items()), (bert_like, "encoder"), (words_only, "encoder")],
)
@pytest.mark.parametrize("template", [TEMPLATE, "{text} {mask}"])
def test_empty_texts_are_scored(make: Any, kind: Kind, template: str) -> None:
    it = scorer(make, template, kind=kind)
    rows = it.encode([text(""), text("the film"), text(" ")])
    assert rows.inputs["attention_mask"].sum(1).min() >= 1
    adapter = adapters.attach(it.language_model)
    scores = Engine(adapter, rows).incumbent_scores()
    assert scores.shape == (3, 2)
    assert scores.isfinite().all()
    assert torch.allclose(scores[0], scores[2], atol=1e-5)
    assert not torch.allclose(scores[0], scores[1], atol=1e-4)
