"""What a tokenizer adds around a prompt and its answer, or does not: tokens are those of the text as it is written."""

from __future__ import annotations

from typing import Any

import pytest
from models_zoo import build
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from toy_scorers import MAKES, pieces, scorer, text
from toy_tokenizers import WORDS, bert_like, gpt2_like, roberta_like, t5_like, toy
from transformers import PreTrainedTokenizerFast

from dfolora.errors import UserError
from dfolora.models import load as loading
from dfolora.problems.answer_tokens import AnswerTokens, takes_a_space
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Prompt, Task


@pytest.mark.parametrize(
    ("before", "space"),
    [
        ("It was", True), ("It was:", True), ("Really?", True), ("(so)", True), ("50%", True), ("{text}", True),
        ("été", True), ("영화", True), ("это", True), ("כן", True), ("हाँ", True),
        ('It was "', False), ("It was (", False), ("It was “", False), ("it's '", False), ("- ", False), ("/", False),
        ("这部电影", False), ("评价：", False), ("映画は", False), ("カ", False), ("หนัง", False), ("", False),
    ],
)  # fmt: skip
def test_where_running_text_has_a_space(before: str, space: bool) -> None:
    assert takes_a_space(before) is space


@pytest.mark.parametrize(
    ("template", "labels"),
    [
        ('{text} it was "{mask}', ["great", "bad"]),
        ('{text} it was "{mask}"', ["great", "bad"]),
        ("{text} it was ({mask})", ["great", "bad"]),
        ("{text} it was “{mask}”", ["great", "bad"]),
        ("{text} 是：{mask}", ["great", "bad"]),
        ('{text} it was " {mask}"', ["Ġgreat", "Ġbad"]),
        ("{text} it was{mask}", ["Ġgreat", "Ġbad"]),
        ("{text}{mask}", ["Ġgreat", "Ġbad"]),
        ("{text}\n{mask}", ["great", "bad"]),
    ],
)
def test_label_words_of_a_causal_model(template: str, labels: list[str]) -> None:
    it = scorer(gpt2_like, template, ("great", "bad"))
    assert it.tokenizer.convert_ids_to_tokens(it.label_tokens) == labels
    # ... which are the tokens of the whole text, as a model reads it.
    rows = it.encode([text("the film")])
    written = template.split("{mask}")[0].replace("{text}", "the film")
    for word, label in zip(("great", "bad"), it.label_tokens or (), strict=True):
        gap = " " if template in ("{text} it was{mask}", "{text}{mask}") else ""
        whole = it.tokenizer(written + gap + word)["input_ids"]
        assert whole == [*rows.inputs["input_ids"][0].tolist(), label]


def test_sentencepiece_behind_a_quotation_mark() -> None:
    """Alone a word begins with the mark of a space, which is not there."""
    it = AnswerTokens(toy(t5_like), "causal")
    tokens = it.tokenizer.convert_ids_to_tokens(it.tokens("great", 'it was "'))
    assert not any("▁" in token for token in tokens)
    assert "".join(tokens) == "great"
    assert it.tokenizer.convert_ids_to_tokens(it.tokens("great", "it was ")) == ["▁great"]
    assert it.end == [it.tokenizer.eos_token_id]


@pytest.mark.parametrize("make", MAKES)
def test_a_choice_is_spaced_as_the_text_before_it_says(make: Any) -> None:
    """By what stands there in each example, not by the template alone."""
    it = scorer(make, "{text} it was {before}{mask}", None)
    examples = [Example({"text": "a", "before": before}, 0, choices=("great",)) for before in ("really ", '"', "")]
    rows = it.encode(examples)
    assert rows.targets is not None
    tokens = [it.tokenizer.convert_ids_to_tokens([t for t in row.tolist() if t >= 0]) for row in rows.targets]
    if make in (gpt2_like, roberta_like):
        assert tokens == [["Ġgreat"], ["great"], ["Ġgreat"]]
    if make is bert_like:
        assert tokens == [["great"]] * 3


def bert_like_for_a_decoder() -> Any:
    """[CLS] text [SEP], no end token: what Chinese GPT-2 checkpoints bring."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=60, **names)


def two_at_the_end() -> Any:
    tokenizer = bert_like_for_a_decoder()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [PAD]", special_tokens=[("[SEP]", 3), ("[PAD]", 0)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("make", "front"), [(bert_like_for_a_decoder, ["[CLS]"]), (two_at_the_end, []), (t5_like, []), (gpt2_like, [])]
)
def test_nothing_stands_behind_a_causal_prompt(make: Any, front: list[str]) -> None:
    """The answer is read at the prompt's last token, whatever the tokenizer puts behind every text."""
    tokenizer = make()
    language_model = loading.wrap(build("gpt2", vocabulary=700), tokenizer, "causal", "toy")
    task = Task("toy", (), {"causal": Prompt("{text} it was {mask}", ("good", "bad"))}, list, lambda *_: {})
    it = PromptEncoder(language_model, task)
    for words in ("the film", ""):
        rows = it.encode([text(words)])
        plain = tokenizer(f"{words} it was".strip(), add_special_tokens=False)["input_ids"]
        assert pieces(it, rows) == [*front, *tokenizer.convert_ids_to_tokens(plain)]
        assert rows.positions.tolist() == [[len(front) + len(plain) - 1]]


# -- checks ----------------------------------------------------------------------------------------------------------


def refused(it: PromptEncoder, examples: list[Example]) -> str:
    with pytest.raises(UserError) as caught:
        it.check(examples)
    with pytest.raises(UserError) as again:
        it.encode(examples)
    assert str(again.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", MAKES)
def test_a_bad_example_is_named(make: Any) -> None:
    it = scorer(make, "{text} {note} it was {mask}", max_length=20)
    fine = text("the film " * 30, note="short")
    it.check([fine])
    long = {"text": "the film", "note": "good " * 50}
    assert refused(it, [fine, Example(long, 0)]).startswith("example 1: max_length: 20 tokens cannot hold its prompt")
    assert refused(it, [fine, Example(long, 0, where="test.csv:7")]).startswith("test.csv:7: max_length: 20")
    assert "has {note}, but the fields are text" in refused(it, [fine, text("a")])
    assert "cannot be tokenised" in refused(it, [text("a \ud800 b", note="")])
    nothing = scorer(make, "{text} it was {mask}", None)
    assert refused(nothing, [text("a")]) == "example 0: it has no choices, and there are no label words"
    generating = Task("t", (), {it.kind: Prompt("{text} {mask}")}, list, lambda *_: {}, new_tokens=3)
    assert "no gold text" in refused(PromptEncoder(it.language_model, generating), [text("a", note="")])


def test_tokens_without_an_embedding_are_named() -> None:
    """A token that was added to the tokenizer and not to the model: in a text, in a label word."""
    tokenizer = gpt2_like()
    small = len(tokenizer)
    tokenizer.add_tokens(["newword"])
    language_model = loading.wrap(build("gpt2", vocabulary=small), tokenizer, "causal", "toy")

    def encoder(words: tuple[str, str] | None) -> PromptEncoder:
        return PromptEncoder(
            language_model, Task("t", (), {"causal": Prompt("{text} {mask}", words)}, list, lambda *_: {})
        )

    message = refused(encoder(("good", "bad")), [text("a"), text("a newword")])
    assert message.startswith(f"example 1: the tokenizer of 'toy' has 'newword' (token {small}), for which the model")
    assert "no embedding" in refused(encoder(None), [Example({"text": "a"}, 0, choices=("newword", "b"))])
    with pytest.raises(UserError, match="label_words: 'newword' is a token that 'toy' has no embedding for"):
        PromptEncoder(
            language_model,
            Task("t", (), {"causal": Prompt('{text} "{mask}', ("good", "newword"))}, list, lambda *_: {}),
        )


def test_no_warning_of_texts_that_are_cut_here(capfd: pytest.CaptureFixture[str]) -> None:
    it = scorer(bert_like, "{text} it was {mask}", max_length=30)
    it.encode([text("the film " * 200)])
    assert "longer" not in "".join(capfd.readouterr())


def test_which_article_a_kind_has() -> None:
    it = scorer(bert_like, kind="encoder", words=("a", "b"))
    causal_only = Task("toy", (), {"causal": Prompt("{text} {mask}")}, load=list, measure=lambda *_: {})
    with pytest.raises(UserError, match="no prompt for an encoder model, only causal"):
        PromptEncoder(it.language_model, causal_only)
