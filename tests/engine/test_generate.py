"""A population generates, token for token, what every candidate generates alone: its weights set, one plain prompt."""

from __future__ import annotations

import pytest
import torch
import transformers
from models_zoo import PAD, VOCABULARY, attached, candidates, sequences, word_rows

from dfolora.adapter import Adapter, Factors
from dfolora.engine import Engine, Generator, SequentialEngine

ARCHITECTURES = ["gpt2", "opt", "llama", "qwen3", "gemma3", "gemma2", "phi3", "gpt_neox", "falcon"]
NEW = 6
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
