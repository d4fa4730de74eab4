"""A model that is loaded here: batches, templates, ends, draws, and an adapter that shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models_zoo import candidates, language_model
from tiny_models import model as folder_of

import dfolora
from dfolora.chat import Message, Request, open_chat
from dfolora.chat.local import LocalChat
from dfolora.errors import UserError
from dfolora.models import adapter as adapters

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<{{ m.role }}> {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)
WORDS = ("good film", "a bad plot and a dull film", "film", "the plot was good", "bad")


def ask(text: str, **more: Any) -> Request:
    return Request((Message("user", text),), **{"max_tokens": 6, **more})


@pytest.fixture(scope="module")
def loaded() -> Any:
    return dfolora.load_model(folder_of("causal"))


@pytest.fixture
def templated(loaded: Any) -> Any:
    loaded.tokenizer.chat_template = TEMPLATE
    yield loaded
    loaded.tokenizer.chat_template = None


def plainly(loaded: Any, prompt: str, steps: int = 6, special: bool = True) -> list[int]:
    """Greedy decoding, a step at a time, nothing cached or padded."""
    ids = loaded.tokenizer(prompt, add_special_tokens=special)["input_ids"]
    start = len(ids)
    for _ in range(steps):
        ids = [*ids, int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == loaded.tokenizer.eos_token_id:
            break
    return ids[start:]


def test_a_batch_says_what_each_alone_says(loaded: Any) -> None:
    found = LocalChat(loaded)([ask(text) for text in WORDS])
    for text, reply in zip(WORDS, found, strict=True):
        tokens = plainly(loaded, f"Q: {text}\nA:")
        said = loaded.tokenizer.decode(tokens, skip_special_tokens=True).split("\nQ:")[0].strip()
        assert reply.texts == (said,)
        assert reply.finish == ("stop" if len(tokens) < 6 or tokens[-1] == loaded.tokenizer.eos_token_id else "length",)
        assert reply.completion_tokens == len(tokens)
        assert reply.prompt_tokens == len(loaded.tokenizer(f"Q: {text}\nA:")["input_ids"])


def test_the_chat_template(templated: Any) -> None:
    chat = open_chat(templated)
    talk = (Message("system", "good"), Message("user", "a film"), Message("assistant", "bad"), Message("user", "plot"))
    (reply,) = chat([Request(talk, max_tokens=5)])
    said = "<system> good\n<user> a film\n<assistant> bad\n<user> plot\n<assistant> "
    tokens = plainly(templated, said, 5, special=False)
    assert reply.texts == (templated.tokenizer.decode(tokens, skip_special_tokens=True).strip(),)
    with pytest.raises(UserError, match="^template: it does not take these messages .*no tools"):
        chat([Request((Message("tool", "x"),))])


def test_draws_depend_on_the_request_alone(loaded: Any) -> None:
    chat = LocalChat(loaded)
    asked = [ask(text, temperature=1.0, seed=seed, n=2) for seed, text in enumerate(WORDS)]
    together = chat(asked)
    alone = [chat([request])[0] for request in reversed(asked)][::-1]
    assert [reply.texts for reply in together] == [reply.texts for reply in alone]
    assert any(one != two for one, two in (reply.texts for reply in together))
    other = chat([ask(text, temperature=1.0, seed=seed + 100, n=2) for seed, text in enumerate(WORDS)])
    assert [reply.texts for reply in other] != [reply.texts for reply in together]


def test_how_often_a_token_is_drawn(loaded: Any) -> None:
    """500 first tokens against the softmax of the logits."""
    ids = loaded.tokenizer("Q: film\nA:", return_tensors="pt")["input_ids"]
    likely = (loaded.model(input_ids=ids).logits[0, -1] / 0.3).softmax(-1)
    (reply,) = LocalChat(loaded)([ask("film", max_tokens=1, temperature=0.3, seed=1, n=500)])
    for token in likely.topk(3).indices.tolist():
        text = loaded.tokenizer.decode([token], skip_special_tokens=True).strip()
        same = [k for k in range(len(likely)) if loaded.tokenizer.decode([k], skip_special_tokens=True).strip() == text]
        share = float(likely[same].sum())
        assert reply.texts.count(text) / 500 == pytest.approx(share, abs=4 * (share * (1 - share) / 500) ** 0.5 + 0.01)


def test_a_stop_text_ends_an_answer(loaded: Any) -> None:
    chat = LocalChat(loaded)
    (whole,) = chat([ask(WORDS[1], max_tokens=8)])
    words = whole.texts[0].split()
    assert len(words) > 2, "the tiny model says something"
    (cut,) = chat([ask(WORDS[1], max_tokens=8, stop=(words[2],))])
    assert cut.texts[0] == whole.texts[0][: whole.texts[0].index(words[2])].strip()
    assert cut.finish == ("stop",)


def test_an_adapter_answers_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    """So that a cache does not answer for another model."""
    tuned = adapters.attach(dfolora.load_model(folder_of("causal")), 2, ["all-linear"])
    for layer in range(len(tuned.layers)):
        tuned.write(layer, candidates(tuned, layer, 1, seed=layer, size=1.0))
    tuned.save(tmp_path / "adapter", {})
    bare, changed = open_chat(folder_of("causal")), open_chat(folder_of("causal"), adapter=str(tmp_path / "adapter"))
    assert bare.name != changed.name
    request = ask(WORDS[1])
    assert bare([request])[0].texts != changed([request])[0].texts


def test_bad_input(loaded: Any, templated: Any) -> None:
    with pytest.raises(UserError, match="is no causal model"):
        open_chat(language_model("roberta"))
    with pytest.raises(
        UserError, match=r"^max_tokens: a prompt of \d+ tokens leaves \d+ of the model's \d+, not 99999"
    ):
        open_chat(loaded)([ask("film", max_tokens=99999)])
    templated.tokenizer.chat_template = None
    with pytest.raises(UserError, match="^template: the tokenizer of .* has no chat template"):
        open_chat(loaded, template=True)
