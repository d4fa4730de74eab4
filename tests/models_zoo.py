"""Tiny models with random weights, one per architecture, with LoRA attached and rows to score."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

from dfolora.engine import Rows
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter, Factors
from dfolora.models.load import LanguageModel

VOCABULARY, PAD = 60, 1
HEADS = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
STACK = {**HEADS, "num_hidden_layers": 3}
GROUPED = {**STACK, "num_key_value_heads": 2}
SLIDING = {**GROUPED, "num_hidden_layers": 4, "head_dim": 8, "sliding_window": 4}
ALTERNATING = ["sliding_attention", "full_attention"] * 2
ENDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": PAD}
BART_HALF = {
    f"{half}_{what}": n
    for half in ("encoder", "decoder")
    for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
}

# name: (kind, model class, config class, settings)
ZOO: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "roberta": ("masked", "RobertaForMaskedLM", "RobertaConfig", {**STACK, "pad_token_id": PAD}),
    "bert": ("masked", "BertForMaskedLM", "BertConfig", STACK),
    "distilbert": (
        "masked", "DistilBertForMaskedLM", "DistilBertConfig",
        {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
    ),
    "albert": ("masked", "AlbertForMaskedLM", "AlbertConfig", {**STACK, "embedding_size": 16}),
    "modernbert": (
        "masked", "ModernBertForMaskedLM", "ModernBertConfig", {**STACK, **ENDS, "cls_token_id": 0, "sep_token_id": 2},
    ),
    "deberta": (
        "masked", "DebertaV2ForMaskedLM", "DebertaV2Config",
        {**STACK, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"],
         "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "pad_token_id": PAD},
    ),
    "mpnet-mlm": ("masked", "MPNetForMaskedLM", "MPNetConfig", STACK),
    "gpt2": (
        "causal", "GPT2LMHeadModel", "GPT2Config",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0},
    ),
    "gpt_neox": ("causal", "GPTNeoXForCausalLM", "GPTNeoXConfig", STACK),
    "opt": (
        "causal", "OPTForCausalLM", "OPTConfig",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64,
         "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    ),
    "llama": ("causal", "LlamaForCausalLM", "LlamaConfig", GROUPED),
    "qwen3": ("causal", "Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 8}),
    "gemma3": ("causal", "Gemma3ForCausalLM", "Gemma3TextConfig", {**SLIDING, "layer_types": ALTERNATING}),
    "gemma2": ("causal", "Gemma2ForCausalLM", "Gemma2Config", SLIDING),
    "phi3": ("causal", "Phi3ForCausalLM", "Phi3Config", {**GROUPED, **ENDS}),
    "falcon": (
        "causal", "FalconForCausalLM", "FalconConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2,
         "new_decoder_architecture": True, "max_position_embeddings": 64, **ENDS},
    ),
    "t5": (
        "seq2seq", "T5ForConditionalGeneration", "T5Config",
        {"d_model": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 64},
    ),
    "bart": (
        "seq2seq", "BartForConditionalGeneration", "BartConfig",
        {"d_model": 32, "max_position_embeddings": 64, **BART_HALF},
    ),
    "mpnet": ("encoder", "MPNetModel", "MPNetConfig", STACK),
    "bert-encoder": ("encoder", "BertModel", "BertConfig", STACK),
}  # fmt: skip


class NoTokenizer:
    """Stands where a tokenizer would; the engine works on ids."""

    model_max_length = 64


def build(name: str, vocabulary: int = VOCABULARY) -> nn.Module:
    """The unmodified model, in evaluation mode; weights three times the usual, so that they matter."""
    _, model_class, config_class, settings = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(tf, model_class)(getattr(tf, config_class)(vocab_size=vocabulary, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()


def language_model(name: str) -> LanguageModel:
    return LanguageModel(build(name), NoTokenizer(), ZOO[name][0], name)


def attached(name: str, rank: int = 4, incumbents: bool = True, targets: tuple[str, ...] = ()) -> Adapter:
    """LoRA on a model of the zoo, every layer holding an adapter of its own unless told otherwise."""
    adapter = adapters.attach(language_model(name), rank, targets)
    if incumbents:
        for layer in range(len(adapter.layers)):
            adapter.write(layer, candidates(adapter, layer, 1, seed=100 + layer))
    return adapter


def candidates(adapter: Adapter, layer: int | None, population: int, seed: int = 0, size: float = 0.3) -> Factors:
    """Random factors of one layer, or of all."""
    generator = torch.Generator().manual_seed(seed)
    layers = adapter.layers if layer is None else [adapter.layers[layer]]
    return {
        name: tuple(size * torch.randn(population, *part.shape, generator=generator) for part in module.factors())
        for chosen in layers
        for name, module in chosen.modules.items()
    }  # type: ignore[misc]


def inputs_of(sequences: list[list[int]]) -> dict[str, Tensor]:
    """Sequences padded on the right, with their mask."""
    longest = max(map(len, sequences))
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    return {"input_ids": padded(sequences, PAD), "attention_mask": mask}


def padded(lists: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, lists))
    return torch.tensor([part + [value] * (longest - len(part)) for part in lists])


def sequences(lengths: list[int], seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def word_rows(kind: str, lengths: tuple[int, ...] = (12, 7, 9, 5, 12, 10)) -> Rows:
    """One row per example, in shuffled order, read at one position for three label tokens."""
    texts = sequences(list(lengths))
    inputs = inputs_of(texts)
    positions = [[len(text) // 2 if kind == "masked" else len(text) - 1] for text in texts]
    if kind == "seq2seq":
        inputs["decoder_input_ids"] = torch.tensor([[0, 7]] * len(texts))
        positions = [[1]] * len(texts)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(2))
    owner = torch.stack([order, torch.full_like(order, -1)], 1)
    return Rows(inputs, torch.tensor(positions), owner, torch.full((len(texts),), 3), torch.tensor([9, 33, 20]))


def choice_rows(kind: str) -> Rows:
    """Choices of one to three answer tokens; example 1 has three, example 2 has two that speak for class 0."""
    owner = [(1, 2), (0, 0), (2, 0), (0, 1), (1, 0), (2, 1), (1, 1), (2, 0)]
    lengths, sizes = (11, 6, 9, 5, 11, 8, 12, 9), (1, 3, 2, 1, 2, 3, 1, 2)
    texts, answers = sequences(list(lengths)), sequences(list(sizes), seed=3)
    decoder: list[list[int]] = []
    positions = []
    for text, answer in zip(texts, answers, strict=True):
        first = len(text) - 1
        if kind == "causal":
            text += answer[:-1]
        elif kind == "masked":
            first = 1
        else:
            decoder.append([0, 7, *answer[:-1]])
            first = 1
        positions.append([first + k for k in range(len(answer))])
    inputs = inputs_of(texts)
    if decoder:
        inputs["decoder_input_ids"] = padded(decoder, PAD)
    targets = padded(answers, -100)
    return Rows(inputs, padded(positions, 0), torch.tensor(owner), torch.tensor([2, 3, 2]), targets=targets)


def sentence_rows(shared_labels: bool, pooling: str = "mean") -> Rows:
    """Three texts in shuffled order with two label sentences for all, or with choices of their own (2, 3, 2)."""
    if shared_labels:
        owner = [(-1, 1), (2, -1), (0, -1), (-1, 0), (1, -1)]
    else:
        owner = [(1, -1), (1, 2), (0, 0), (2, -1), (0, 1), (1, 0), (0, -1), (2, 1), (1, 1), (2, 0)]
    texts = sequences([5 + 3 * (i % 3) + i // 3 for i in range(len(owner))])
    classes = torch.tensor([2, 2, 2] if shared_labels else [2, 3, 2])
    positions = torch.zeros(len(owner), 1, dtype=torch.long)
    return Rows(inputs_of(texts), positions, torch.tensor(owner), classes, sentences=True, pooling=pooling)


READINGS = {
    "words": word_rows,
    "choices": choice_rows,
    "label sentences": lambda kind: sentence_rows(True),
    "choice sentences": lambda kind: sentence_rows(False),
}


def cases() -> list[tuple[str, str]]:
    """Every architecture with every reading that its kind has."""
    return [
        (name, reading)
        for name, (kind, *_) in ZOO.items()
        for reading in READINGS
        if ("sentences" in reading) == (kind == "encoder")
    ]
