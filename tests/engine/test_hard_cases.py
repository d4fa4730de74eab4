"""Where a trial on a few rows could mislead: attention that has made up its mind, ends that are not, packed weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from models_zoo import VOCABULARY, ZOO, NoTokenizer, attached, candidates, word_rows
from plain_reading import farthest, one_by_one
from torch import nn

from dfolora.engine import Engine, Rows, memory
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter
from dfolora.models.load import LanguageModel

TWO_HEADS = {
    "t5": {"num_heads": 2, "d_kv": 16},
    "bart": {"encoder_attention_heads": 2, "decoder_attention_heads": 2},
}


def other(name: str, seed: int, **changes: Any) -> Adapter:
    """A model of the zoo with other weights and settings."""
    kind, model_class, config_class, settings = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, config_class)(vocab_size=VOCABULARY, **{**settings, **changes})
        model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    adapter = adapters.attach(LanguageModel(model, NoTokenizer(), kind, name), 4)  # type: ignore[arg-type]
    for layer in range(len(adapter.layers)):
        adapter.write(layer, candidates(adapter, layer, 1, seed=100 + layer))
    return adapter


def error(adapter: Adapter, rows: Rows, layer: int, seed: int = 0) -> float:
    """Of the scores' scale."""
    factors = candidates(adapter, layer, 3, seed=seed)
    expected = one_by_one(adapter, rows, factors)
    return farthest(Engine(adapter, rows).scores(factors), expected) / float(expected.abs().max())


@pytest.mark.parametrize("name", TWO_HEADS)
def test_a_decoder_of_two_tokens_and_two_heads(name: str) -> None:
    """Two keys, a saturated softmax: candidates often attend alike, and what follows looks as if all could share it."""
    worst = 0.0
    for seed in range(12):
        adapter, rows = other(name, seed, **TWO_HEADS[name]), word_rows("seq2seq")
        worst = max(worst, *(error(adapter, rows, layer, seed) for layer in (2, 3)))
    assert worst < 1e-4


def test_adapters_in_an_encoder_only() -> None:
    """Answers are read from the decoder: the encoder's last block is not the end, though no adapted one follows."""
    targets = tuple(f"encoder.layers.{layer}.self_attn.q_proj" for layer in (0, 1))
    adapter, rows = attached("bart", targets=targets), word_rows("seq2seq", (8,) * 6)
    assert Engine(adapter, rows).readout.thin == []
    assert error(adapter, rows, 0) < 1e-5
    assert error(adapter, rows, 1) < 1e-5


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("falcon", ("query_key_value", "dense_4h_to_h")),  # adds to its output in place
        ("llama", ("q_proj", "v_proj", "down_proj")),  # lies behind maps that give answers only
        ("roberta", ("query", "output.dense")),
        ("gpt2", ("c_attn", "mlp.c_proj")),
        ("opt", ("q_proj", "fc2")),
    ],
)
def test_other_targets(name: str, targets: tuple[str, ...]) -> None:
    adapter, rows = attached(name, targets=targets), word_rows(ZOO[name][0])
    for layer in (0, len(adapter.layers) - 1):
        assert error(adapter, rows, layer) < 1e-4


def test_memory_of_packed_weights() -> None:
    """bitsandbytes keeps 4-bit weights as (out in / 2, 1) bytes; what a token holds does not depend on that."""
    model = attached("llama").model
    plain = memory.bytes_per_token(model)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head and module.weight.shape[1] == 32:
            module.weight = nn.Parameter(torch.zeros(module.weight.numel() // 2, 1, dtype=torch.uint8), False)
    assert memory.bytes_per_token(model) == plain
    assert memory.bytes_per_token(attached("gpt2").model) == 4 * (2 * 128 + 8 * 32)  # its maps are no nn.Linear
