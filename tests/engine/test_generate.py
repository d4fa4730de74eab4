"""A population generates, token for token, what every candidate generates alone: its weights set, one plain prompt."""

from __future__ import annotations

import pytest
import torch
import transformers
from models_zoo import PAD, VOCABULARY, attached, candidates, sequences, word_rows

from dfolora.engine import Engine, Generator, SequentialEngine
from dfolora.models.adapter import Adapter, Factors

ARCHITECTURES = ["gpt2", "opt", "llama", "qwen3", "gemma3", "phi3", "gpt_neox"]
NEW = 5
STOP = tuple(range(5, VOCABULARY, 8))
PROMPTS = sequences([9, 4, 12, 1, 7], seed=5)


def alone(adapter: Adapter, factors: Factors, prompts: list[list[int]] = PROMPTS) -> list[list[list[int]]]:
    """By candidate and prompt: the plain PEFT model's own ``generate`` on the prompt without padding."""
    modules = dict(adapter.model.named_modules())
    before = {name: [part.clone() for part in (own(modules, name))] for name in factors}
    settings = transformers.GenerationConfig(
        max_new_tokens=NEW, do_sample=False, eos_token_id=list(STOP), pad_token_id=PAD
    )
    found = []
    for p in range(len(next(iter(factors.values()))[0])):
        for name, pair in factors.items():
            set_weights(modules, name, [part[p] for part in pair])
        rows = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            output = adapter.peft_model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
            rows.append(output[0, len(prompt) :].tolist())
        found.append(rows)
    for name, pair in before.items():
        set_weights(modules, name, pair)
    return found


def own(modules: dict, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return modules[name].lora_A["default"].weight, modules[name].lora_B["default"].weight


def set_weights(modules: dict, name: str, pair: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for part, value in zip(own(modules, name), pair, strict=True):
            part.copy_(value)


def generator(adapter: Adapter, chunk_tokens: int = 0, kind: type[Engine] = Engine) -> Generator:
    return Generator(kind(adapter, word_rows("causal"), chunk_tokens), PROMPTS, NEW, STOP, PAD)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_layer_and_all_at_once(name: str) -> None:
    """Prompts of different lengths, chunks that do not divide the population, adapters in all other layers."""
    adapter = attached(name)
    many = generator(adapter, chunk_tokens=200)
    assert len(many._buckets) > 1
    for layer in (1, None):
        factors = candidates(adapter, layer, 3, seed=2)
        expected = alone(adapter, factors)
        found = many(factors)
        assert found.tokens == expected
        assert not found.broken.any()
        assert len({str(rows) for rows in found.tokens}) == 3  # the adapters matter


def test_population_of_one_and_the_incumbents() -> None:
    adapter = attached("llama")
    many = generator(adapter)
    factors = candidates(adapter, 0, 1)
    assert many(factors).tokens == alone(adapter, factors)
    assert many({}).tokens == alone(adapter, adapter.read(1))  # the weights as they stand
    adapter.write(0, factors)
    assert many({}).tokens == alone(adapter, factors)


@pytest.mark.parametrize("kind", [Engine, SequentialEngine])
@pytest.mark.parametrize("chunk_tokens", [1, 90, 0])
def test_any_chunks_give_the_same(kind: type[Engine], chunk_tokens: int) -> None:
    adapter = attached("llama")
    factors = candidates(adapter, 1, 4, seed=3)
    before = adapter.state()
    many = generator(adapter, chunk_tokens, kind)
    expected = alone(adapter, factors)
    assert many(factors).tokens == expected
    kept = torch.tensor([4, 0, 3])
    assert many(factors, kept).tokens == [[rows[i] for i in kept.tolist()] for rows in expected]
    for old, new in zip(before, adapter.state(), strict=True):
        assert all(torch.equal(a, b) for name in old for a, b in zip(old[name], new[name], strict=True))


def test_what_it_costs_is_counted() -> None:
    adapter = attached("llama")
    many = generator(adapter)
    assert len(many._buckets) == 1
    calls, tokens = 0, 0

    def count(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal calls, tokens
        calls, tokens = calls + 1, tokens + kwargs["input_ids"].numel()

    handle = adapter.model.register_forward_pre_hook(count, with_kwargs=True)
    many.engine.reset_counts()
    found = many(candidates(adapter, 0, 3))
    handle.remove()
    steps = max(len(ids) for rows in found.tokens for ids in rows)
    assert many.engine.forwards == calls == steps
    assert tokens == 3 * 5 * (12 + steps - 1)  # padding included
    assert many.engine.token_layers == 3 * tokens  # three blocks


def test_numbers_that_are_none_are_told() -> None:
    adapter = attached("gpt2")
    many = generator(adapter)
    factors = candidates(adapter, 1, 3)
    whole = many(factors)
    next(iter(factors.values()))[1][1] = torch.nan
    found = many(factors)
    assert found.broken.tolist() == [[False] * 5, [True] * 5, [False] * 5]
    assert [found.tokens[p] for p in (0, 2)] == [whole.tokens[p] for p in (0, 2)]


def test_the_models_own_settings_are_left_out_and_left_alone() -> None:
    adapter = attached("llama")
    factors = candidates(adapter, 1, 2)
    many = generator(adapter)
    expected = many(factors).tokens
    own = transformers.GenerationConfig(repetition_penalty=5.0, do_sample=True, top_k=3, max_length=3)
    adapter.model.generation_config = own
    assert many(factors).tokens == expected
    assert adapter.model.generation_config is own


def test_bfloat16_and_grouped_heads_run() -> None:
    adapter = attached("qwen3")
    adapter.model.to(torch.bfloat16)
    found = generator(adapter)(candidates(adapter, None, 2))
    assert not found.broken.any()
