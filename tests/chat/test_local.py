"""Chats with a tiny local model: one text in whatever company, draws, stops, templates, adapters, bad input."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import tiny_models
import torch

from dfolora import load_model
from dfolora.chat import CallLimit, Message, Request, open_chat
from dfolora.chat.conversation import plain
from dfolora.chat.local import LocalChat
from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models.load import LanguageModel

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "Question : {{ m.content }} {% endfor %}{% if add_generation_prompt %}Answer :{% endif %}"
)


@cache
def language_model() -> LanguageModel:
    return load_model(tiny_models.model("causal"))


def ask(text: str, **settings: Any) -> Request:
    return Request((Message("user", text),), **{"max_tokens": 8, **settings})


REQUESTS = [
    ask("the old film"),
    ask("a very long way to the sea and the town where they were all glad", max_tokens=3),
    ask("warm", temperature=1.0, seed=4, n=2),
    ask("warm", temperature=1.0, seed=5),
    ask("the boat", temperature=0.7, top_p=0.5, seed=1, max_tokens=12),
]


@cache
def replies() -> list[tuple[str, ...]]:
    return [reply.texts for reply in LocalChat(language_model())(REQUESTS)]


def test_company_changes_nothing() -> None:
    chat = LocalChat(language_model(), batch_tokens=1)  # a batch each
    alone = [chat([request])[0] for request in REQUESTS]
    assert [reply.texts for reply in alone] == replies()
    assert chat.ledger.calls == 5
    assert len(set(replies()[2] + replies()[3])) == 3  # other seeds and numbers are other draws
    assert alone[1].finish == ("length",)
    assert alone[1].completion_tokens == 3


def test_the_likeliest_words_are_those_of_transformers() -> None:
    model = language_model()
    ids = torch.tensor([model.tokenizer(plain(REQUESTS[0].messages))["input_ids"]])
    with torch.inference_mode():
        new = model.model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
    assert replies()[0] == (model.tokenizer.decode(new, skip_special_tokens=True).strip(),)


def test_draws_have_their_probabilities() -> None:
    model = language_model()
    ids = torch.tensor([model.tokenizer(plain(REQUESTS[0].messages))["input_ids"]])
    with torch.inference_mode():
        likely, order = (model.model(ids).logits[0, -1] / 2).softmax(-1).sort(descending=True)
    (reply,) = LocalChat(model)([ask("the old film", max_tokens=1, temperature=2.0, top_p=0.3, n=300)])
    inside = int((likely.cumsum(-1) - likely < 0.3).sum())
    words = [model.tokenizer.decode([token]) for token in order[:inside].tolist()]
    assert set(reply.texts) <= set(words)
    wanted = float(likely[0] / likely[:inside].sum())
    assert reply.texts.count(words[0]) / 300 == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / 300) ** 0.5)


def test_a_text_ends_before_a_stop_text() -> None:
    words = replies()[0][0].split()
    assert words[3] not in words[:3]
    stopped, whole = LocalChat(language_model())([replace(REQUESTS[0], stop=("&", words[3])), REQUESTS[0]])
    assert stopped.texts == (" ".join(words[:3]),)
    assert (stopped.finish, stopped.completion_tokens) == (("stop",), 4)
    assert whole.texts == replies()[0]


def test_templates_and_what_the_cache_tells_apart() -> None:
    model = language_model()
    without = LocalChat(model)
    with pytest.raises(UserError, match=r"^template: '.*' has no chat template in its tokenizer; say plain"):
        LocalChat(model, template="chat")
    with pytest.raises(UserError, match="^template: unknown 'chta'; did you mean 'chat'"):
        LocalChat(model, template="chta")
    try:
        model.tokenizer.chat_template = TEMPLATE
        chat = LocalChat(model)
        assert chat([REQUESTS[0]])[0].prompt_tokens == 7  # Question : the old film Answer :
        assert without.chat is False
        assert chat.name != without.name == LocalChat(model, template="plain").name
        with pytest.raises(
            UserError, match=r"^messages: .* template does not take them \(no system here\); try plain$"
        ):
            chat([Request((Message("system", "Be kind"), Message("user", "hello")))])
    finally:
        model.tokenizer.chat_template = None
    talk = (Message("system", "Be."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert plain(talk) == "Be.\nQ: a\nA: b\nQ: c\nA:"
    assert plain((*talk, Message("assistant", "I"))).endswith("Q: c\nA: I")


def test_a_tuned_adapter_speaks(tmp_path: Any) -> None:
    model = load_model(tiny_models.model("causal"))
    base = LocalChat(model).name
    adapter = adapters.attach(model, 2)
    torch.manual_seed(0)
    for layer in adapter.layers:
        for module in layer.modules.values():
            for factor in module.factors():
                factor.normal_(0, 1.0)
    adapter.save(tmp_path / "adapter", {})
    chat = open_chat(tiny_models.model("causal"), adapter=tmp_path / "adapter")
    (reply,) = chat([REQUESTS[0]])
    assert reply.texts == LocalChat(model)([REQUESTS[0]])[0].texts != replies()[0]
    assert chat.name != base


def test_a_cap_answers_what_it_allows() -> None:
    chat = open_chat(language_model(), max_calls=2)
    with pytest.raises(CallLimit):
        chat(REQUESTS)
    assert [reply.texts for reply in chat(REQUESTS[:2])] == replies()[:2]
    assert (chat.ledger.calls, chat.ledger.cached) == (2, 2)


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"^model: '.*' is masked; what answers messages is causal$"):
        open_chat(tiny_models.model("masked"))
    with pytest.raises(UserError, match=r"^messages: \d+ tokens are too many for '.*', which has room for 264"):
        LocalChat(language_model())([ask("sea " * 300)])
    with pytest.raises(UserError, match="^adapter: a server loads its adapters itself"):
        open_chat("m", "http://127.0.0.1:9/v1", adapter="somewhere")
