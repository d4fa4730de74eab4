"""What is measured: models of known size with random weights, and batches of known lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from dfolora.engine import Rows
from dfolora.models.load import Kind, LanguageModel

PAD, MASK, FIRST_WORD = 1, 4, 5  # token ids of RoBERTa's layout; any would do
LABEL_TOKENS = (205, 372)


def _roberta(layers: int, width: int, heads: int, vocabulary: int) -> PreTrainedConfig:
    return RobertaConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=514, type_vocab_size=1, pad_token_id=PAD,
    )  # fmt: skip


def _opt(layers: int, width: int, heads: int) -> PreTrainedConfig:
    return OPTConfig(
        vocab_size=50272, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * width,
        word_embed_proj_dim=width, pad_token_id=PAD,
    )  # fmt: skip


def _llama(layers: int, width: int, heads: int, feed_forward: int, vocabulary: int) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=feed_forward, pad_token_id=PAD,
    )  # fmt: skip


SHAPES: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "roberta12": lambda: _roberta(12, 256, 4, 12565),
    "llama12": lambda: _llama(12, 256, 4, 688, 12565),
    "roberta-large": lambda: _roberta(24, 1024, 16, 50265),
    "opt-1.3b": lambda: _opt(24, 2048, 32),
    "opt-13b": lambda: _opt(40, 5120, 40),
    "llama-7b": lambda: _llama(32, 4096, 32, 11008, 32000),
}
"""Configurations of published sizes; the weights are random, which costs the same."""

# Tokens per example of the 32 few-shot examples of three SuperGLUE tasks (FewGLUE's training files), taken as
# 1.1 x (words and punctuation) + 10 for the template, at most 256.
FEWGLUE_LENGTHS: Mapping[str, Sequence[int]] = {
    "rte": (
        164, 101, 56, 43, 96, 33, 87, 122, 90, 201, 45, 53, 203, 53, 126, 38,
        30, 70, 74, 127, 75, 29, 74, 44, 34, 47, 145, 66, 56, 141, 42, 40,
    ),
    "cb": (
        124, 55, 80, 91, 163, 108, 88, 162, 109, 115, 62, 97, 70, 109, 106, 83,
        75, 90, 74, 78, 69, 75, 75, 58, 161, 104, 57, 105, 232, 148, 82, 88,
    ),
    "boolq": (
        256, 186, 95, 92, 184, 94, 186, 90, 249, 253, 122, 65, 199, 92, 80, 205,
        162, 140, 222, 256, 86, 143, 256, 151, 256, 96, 189, 164, 110, 231, 141, 197,
    ),
}  # fmt: skip

CASES: Mapping[str, Mapping[str, Any]] = {
    "cpu-roberta12": {"shape": "roberta12", "examples": 6, "tokens": 48, "population": 8},
    "cpu-llama12": {"shape": "llama12", "examples": 6, "tokens": 48, "population": 8},
    "cpu-fewglue": {"shape": "roberta12", "lengths": "rte,cb,boolq", "population": 2, "layers": "1,4,7,10"},
    "gpu-roberta-large": {"shape": "roberta-large", "examples": 32, "tokens": 64, "population": 20},
    "gpu-opt-1.3b": {"shape": "opt-1.3b", "examples": 32, "tokens": 64, "population": 20},
    "gpu-llama-7b": {"shape": "llama-7b", "examples": 32, "tokens": 128, "population": 20},
}
"""Settings that are reported by name."""


def build(shape: str, dtype: torch.dtype, device: torch.device, seed: int = 0) -> LanguageModel:
    """A model of a known shape with random weights; the same weights, rounded, in every dtype."""
    torch.manual_seed(seed)
    config = SHAPES[shape]()
    kinds: dict[type[PreTrainedConfig], tuple[type[PreTrainedModel], Kind]] = {
        RobertaConfig: (RobertaForMaskedLM, "masked"),
        OPTConfig: (OPTForCausalLM, "causal"),
        LlamaConfig: (LlamaForCausalLM, "causal"),
    }
    model_class, kind = kinds[type(config)]
    with torch.device(device):
        model = model_class(config).eval().to(dtype)
    return LanguageModel(model, None, kind, shape)


def batch(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> Rows:
    """Random tokens of given lengths, padded on the right, the answer third from the end, two label words."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.tensor(lengths)
    real = torch.arange(int(length.max())) < length[:, None]
    ids = torch.where(real, torch.randint(FIRST_WORD, vocabulary, real.shape, generator=generator), PAD)
    positions = length[:, None] - min(3, int(length.min()))
    ids.scatter_(1, positions, MASK)
    count = len(lengths)
    owner = torch.stack([torch.arange(count), torch.full((count,), -1)], 1)
    inputs = {"input_ids": ids, "attention_mask": real.long()}
    return Rows(inputs, positions, owner, torch.full((count,), 2), torch.tensor(LABEL_TOKENS))


def labels(rows: Rows, seed: int = 0) -> Tensor:
    """(N,) right classes, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(len(rows.classes), generator=generator) * rows.classes).long()
