"""Answers that are drawn, where they end, chat templates: against what is written here by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_questions import model

from dfolora import load_model
from dfolora.engine import Draw, Engine, Generator
from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter
from dfolora.models.load import LanguageModel
from dfolora.problems.answers import Answers, stop_tokens
from dfolora.problems.encode import PromptEncoder
from dfolora.settings.build import settings
from dfolora.settings.model import EvaluateSettings
from dfolora.task import Decoding, Example, Task

TEXTS = ["Tom saw the boat", "the river was red and slow", "Mary read in town", "where was it"]
EXAMPLES = [Example({"text": text}, 0, gold=("the hall",)) for text in TEXTS]
TASK = Task.from_examples(EXAMPLES, template="{text} {mask}", new_tokens=7)
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Answer:\n"
CHAT += "{% endif %}"


@pytest.fixture(scope="module")
def reader() -> tuple[LanguageModel, Adapter]:
    language_model = load_model(model("llama"))
    return language_model, adapters.attach(language_model, 2)


def answers(reader: tuple[LanguageModel, Adapter], chunk: int = 0, samples: int | None = None, **how: Any) -> Answers:
    language_model, adapter = reader
    encoder = PromptEncoder(language_model, replace(TASK, decoding=Decoding(**how)))
    return Answers(Engine(adapter, encoder.encode(EXAMPLES), chunk), encoder, EXAMPLES, samples)


def factors(adapter: Adapter, population: int, size: float = 1.0) -> Any:
    generator = torch.Generator().manual_seed(5)
    return {
        name: tuple(torch.randn(population, *factor.shape, generator=generator) * size for factor in module.factors())
        for name, module in adapter.layers[1].modules.items()
    }


def test_equal_candidates_say_the_same_however_they_are_cut(reader: tuple[LanguageModel, Adapter]) -> None:
    """Common random numbers: what is drawn is the example's, the step's and the sample's, not the candidate's."""
    drawn = answers(reader, temperature=1.0, seed=4, samples=2)
    changes = factors(reader[1], 3)
    changes = {name: tuple(torch.cat([part, part[:1]]) for part in pair) for name, pair in changes.items()}
    found = drawn.population(changes)
    texts = [each.texts for each in found]
    assert texts[0] == texts[3]
    assert texts[0] != texts[1]
    assert texts[0][:4] != texts[0][4:]  # the second sample of each example
    small = answers(reader, chunk=40, temperature=1.0, seed=4, samples=2)
    assert [each.texts for each in small.population(changes)] == texts
    some = drawn.population(changes, torch.tensor([1, 3]))
    assert some[1].texts == [texts[1][i] for i in (1, 3, 5, 7)]
    assert len(drawn.examples) == 8
    assert drawn.losses(changes, torch.tensor([1, 3])).shape == (4,)
    other = answers(reader, temperature=1.0, seed=5, samples=2)
    assert other.population(changes)[0].texts != texts[0]


def test_tokens_are_drawn_by_their_probability(reader: tuple[LanguageModel, Adapter]) -> None:
    """The first token of 3,000 draws against softmax(logits / T); with top-p only from the likeliest."""
    language_model, adapter = reader
    encoder = PromptEncoder(language_model, TASK)
    (prompt,) = encoder.prompts(EXAMPLES[:1])
    logits = language_model.model(torch.tensor([prompt])).logits[0, -1].float()
    engine = Engine(adapter, encoder.encode(EXAMPLES[:1]))
    count = 3000
    for temperature, top_p in ((0.7, 1.0), (1.5, 0.5)):
        expected = (logits / temperature).softmax(-1)
        if top_p < 1:
            ordered, index = expected.sort(descending=True)
            kept = index[: int((ordered.cumsum(0) < top_p).sum()) + 1]
            expected = torch.zeros_like(expected).index_copy_(0, kept, expected[kept])
            expected /= expected.sum()
        draw = Draw(temperature, top_p, range(count))
        found = Generator(engine, [prompt] * count, 1, [], 1, draw)({}).tokens[0]
        shares = torch.bincount(torch.tensor(found).flatten(), minlength=len(logits)) / count
        assert float((shares - expected).abs().sum()) / 2 < 0.06  # total variation; by chance about 0.03
        assert not shares[expected == 0].any()


def test_low_temperature_is_greedy(reader: tuple[LanguageModel, Adapter]) -> None:
    greedy, cold = answers(reader), answers(reader, temperature=1e-4)
    changes = factors(reader[1], 2)
    assert [each.texts for each in cold.population(changes)] == [each.texts for each in greedy.population(changes)]
    assert [len(answers(reader, samples=n, temperature=1.0).incumbent().texts) for n in (1, None)] == [4, 4]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_prompts_run_once_through_the_blocks_below_the_searched_one(architecture: str, temperature: float) -> None:
    """4 prompts of up to 6 tokens, 3 candidates, 7 steps, 2 blocks: the same texts for 40 token-layers less."""
    language_model = load_model(model(architecture))
    shared = answers((language_model, adapters.attach(language_model, 2)), temperature=temperature)
    engine, generator = shared.generator.engine, shared.generator
    changes = factors(engine.adapter, 3)  # type: ignore[arg-type]
    texts = [each.texts for each in shared.population(changes)]
    assert generator._goes_on
    prefill = 4 * 5 * 1 + 12 * 5 * 1
    steps, rest = divmod(engine.token_layers - prefill, 12 * 2)
    assert rest == 0
    assert steps <= 7
    some = [each.texts for each in shared.population(changes, torch.tensor([0, 2]))]
    generator._goes_on = False
    engine.reset_counts()
    assert [each.texts for each in shared.population(changes)] == texts
    assert engine.token_layers == 12 * (6 + steps - 1) * 2 == prefill + 12 * steps * 2 + 40
    assert some == [[each[0], each[2]] for each in texts]


def test_a_model_that_cannot_go_on_from_a_shared_prompt_reads_it_whole(
    reader: tuple[LanguageModel, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfolora.engine import generate

    changes = factors(reader[1], 3)
    expected = [each.texts for each in answers(reader).population(changes)]
    right = generate.SharedPrefill.cache_of

    def moved(*arguments: Any) -> Any:
        cache = right(*arguments)
        cache.layers[0].values.neg_()
        return cache

    def impossible(*arguments: Any) -> Any:
        raise TypeError("position_ids")

    for spoilt in (moved, impossible):
        monkeypatch.setattr(generate.SharedPrefill, "cache_of", spoilt)
        whole = answers(reader)
        assert [each.texts for each in whole.population(changes)] == expected
        assert whole.generator._goes_on is False


def test_where_an_answer_ends(reader: tuple[LanguageModel, Adapter]) -> None:
    """At a stop text, which is no part of it; one that hits no limit and no end is cut short, and that is told."""
    whole = answers(reader, stop=())
    assert stop_tokens(reader[0], ()) == {1}
    changes = factors(reader[1], 1)
    texts = whole.population(changes)[0].texts
    word = texts[0].split()[2]
    cut = answers(reader, stop=(f"{word}",)).population(changes)[0].texts
    assert cut == [text.partition(word)[0].strip() for text in texts]
    two = " ".join(texts[0].split()[1:3])  # no token has it
    assert answers(reader, stop=(two,)).population(changes)[0].texts[0] == texts[0].partition(two)[0].strip()
    ids = [[5] * 7, [5] * 6 + [1], [5, 1]]
    assert [whole._is_truncated(each) for each in ids] == [True, False, False]


def test_a_chat_template(reader: tuple[LanguageModel, Adapter], monkeypatch: pytest.MonkeyPatch) -> None:
    language_model = reader[0]
    chat = replace(TASK, prompts={"causal": replace(TASK.prompts["causal"], chat=True, system="read slow")})
    with pytest.raises(UserError, match=r"^chat: .* has no chat template"):
        PromptEncoder(language_model, chat)
    monkeypatch.setattr(language_model.tokenizer, "chat_template", CHAT, raising=False)
    encoder = PromptEncoder(language_model, chat, max_length=40)
    words = language_model.tokenizer.decode(encoder.prompts(EXAMPLES[:1])[0])
    asked = language_model.tokenizer("system: read slow\nuser: Tom saw the boat\nAnswer:\n")["input_ids"]
    assert encoder.prompts(EXAMPLES[:1])[0] == asked, words
    rows = encoder.encode(EXAMPLES[:1])
    assert rows.inputs["input_ids"][0, : len(asked)].tolist() == asked
    assert rows.targets is not None
    assert rows.targets[0, :2].tolist() == language_model.tokenizer("the hall")["input_ids"]
    long = Example({"text": "the old boat " * 30}, 0, gold=("it",))
    (cut,) = encoder.prompts([long])
    assert 25 <= len(cut) <= 33  # the message is cut, not what the template puts around it
    assert cut[-3:] == asked[-3:]
    monkeypatch.setattr(language_model.tokenizer, "chat_template", "{{ raise_exception('no system') }}")
    with pytest.raises(UserError, match=r"^chat: the template of .* refuses it \(no system\)"):
        encoder.prompts(EXAMPLES)


def test_options_that_go_together() -> None:
    for values, said in (
        ({"system": "Hi"}, "system: 'Hi' is a message of a chat"),
        ({"top_p": 0.5}, "top_p: 0.5 is for answers that are drawn"),
        ({"samples": 2}, "samples: 2 is for answers that are drawn"),
        ({"temperature": -1}, "temperature: -1.0 cannot work"),
    ):
        with pytest.raises(UserError, match=f"^{said}"):
            settings(EvaluateSettings, **values)
    for stop, chat, stops in (
        (None, False, ("\n",)), (None, True, ()), ("", False, ()), ("\\n\\n|Q:", True, ("\n\n", "Q:")),
        (["|"], True, ("|",)),
    ):  # fmt: skip
        assert settings(EvaluateSettings, stop=stop, chat=chat).stops == stops
