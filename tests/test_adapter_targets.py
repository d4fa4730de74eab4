"""Which modules are adapted by default, by role and by name; which rows of a fused projection; what reads text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from models_zoo import ZOO, NoTokenizer, attached, build, candidates, word_rows
from plain_reading import farthest, plain_scores

from dfolora.engine import Engine
from dfolora.models import adapter as adapters
from dfolora.models.load import LanguageModel
from dfolora.models.probe import features, fused_parts
from dfolora.models.targets import block_names, block_of, colliding, targets_of

# PEFT alone, as a stranger would use it, asks transformers for a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# Per architecture: number of adapted layers, modules of a layer, and the rows searched where query, key and value are
# one matrix of 96 rows (Phi-3 and Falcon: 64, with two key-value heads for four query heads).
DEFAULTS: dict[str, tuple[int, set[str], list[int] | None]] = {
    "roberta": (3, {"attention.self.query", "attention.self.key"}, None),
    "bert": (3, {"attention.self.query", "attention.self.key"}, None),
    "bert-encoder": (3, {"attention.self.query", "attention.self.key"}, None),
    "deberta": (3, {"attention.self.query_proj", "attention.self.key_proj"}, None),
    "distilbert": (3, {"attention.q_lin", "attention.k_lin"}, None),
    "albert": (1, {"albert_layers.0.attention.query", "albert_layers.0.attention.key"}, None),
    "modernbert": (3, {"attn.Wqkv"}, list(range(64))),
    "mpnet": (3, {"attention.attn.q", "attention.attn.k"}, None),
    "mpnet-mlm": (3, {"attention.attn.q", "attention.attn.k"}, None),
    "gpt2": (3, {"attn.c_attn"}, list(range(64))),
    "gpt_neox": (3, {"attention.query_key_value"}, [24 * head + i for head in range(4) for i in range(16)]),
    "opt": (3, {"self_attn.q_proj", "self_attn.k_proj"}, None),
    "llama": (3, {"self_attn.q_proj", "self_attn.k_proj"}, None),
    "qwen3": (3, {"self_attn.q_proj", "self_attn.k_proj"}, None),
    "gemma2": (4, {"self_attn.q_proj", "self_attn.k_proj"}, None),
    "gemma3": (4, {"self_attn.q_proj", "self_attn.k_proj"}, None),
    "phi3": (3, {"self_attn.qkv_proj"}, list(range(48))),
    "falcon": (2, {"self_attention.query_key_value"}, [*range(24), *range(32, 56)]),  # a group: two queries, key, value
    "t5": (4, {"layer.0.SelfAttention.q", "layer.0.SelfAttention.k"}, None),
    "bart": (4, {"self_attn.q_proj", "self_attn.k_proj"}, None),
}


@pytest.mark.parametrize("name", ZOO)
def test_default_targets(name: str) -> None:
    count, expected, rows = DEFAULTS[name]
    adapter = attached(name, incumbents=False)
    assert len(adapter.layers) == count
    for layer in adapter.layers:
        modules = {key.removeprefix(layer.name + "."): module for key, module in layer.modules.items()}
        assert set(modules) == expected
        for key, module in layer.modules.items():
            assert adapter.model.get_submodule(key) is module.lora
            assert (None if module.rows is None else module.rows.tolist()) == rows
            assert module.weight.shape == (module.out_features, module.in_features)
    wrapped = {key for key, module in adapter.model.named_modules() if hasattr(module, "lora_A")}
    assert wrapped == {key for layer in adapter.layers for key in layer.modules}  # nothing else, no cross-attention


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3", "modernbert", "falcon"])
def test_searched_rows_are_query_and_key(name: str) -> None:
    """Noise on the rows left out (values) changes a one-token text; noise on the searched rows cannot."""
    for searched in (True, False):
        adapter = attached(name, incumbents=False)
        rows = word_rows(ZOO[name][0], lengths=(1, 1))  # one token attends to itself, whatever query and key
        before = plain_scores(adapter, rows)
        for index, layer in enumerate(adapter.layers):
            factors = candidates(adapter, index, 1)
            for key, module in layer.modules.items():
                assert module.rows is not None
                keep = torch.zeros(module.out_features)
                keep[module.rows] = 1
                factors[key][1].mul_((keep if searched else 1 - keep)[:, None])
            adapter.write(index, factors)
        changed = farthest(plain_scores(adapter, rows), before)
        assert (changed < 1e-6) if searched else (changed > 1e-2)


@pytest.mark.parametrize(
    ("name", "targets", "per_layer"),
    [
        ("bert", ("value",), 1),
        ("bert", ("output.dense", "query"), 3),
        ("llama", ("gate_proj", "self_attn.v_proj"), 2),
        ("gpt2", ("c_fc", "mlp.c_proj"), 2),
        ("bert", ("encoder.layer.1.attention.self.value",), 1),
    ],
)
def test_named_targets(name: str, targets: tuple[str, ...], per_layer: int) -> None:
    adapter = attached(name, targets=targets)
    assert {len(layer.modules) for layer in adapter.layers} == {per_layer}
    assert len(adapter.layers) == (1 if "layer.1" in targets[0] else 3)


# What a role means in each architecture of the zoo: the ends of the modules of one layer.
Q_K_V_O_DOWN = {
    "roberta": ("self.query", "self.key", "self.value", "attention.output.dense", "output.dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "ffn.lin2"),
    "albert": ("attention.query", "attention.key", "attention.value", "attention.dense", "ffn_output"),
    "modernbert": ("Wqkv", "Wqkv", "Wqkv", "attn.Wo", "mlp.Wo"),
    "deberta": ("query_proj", "key_proj", "value_proj", "attention.output.dense", "output.dense"),
    "mpnet": ("attn.q", "attn.k", "attn.v", "attn.o", "output.dense"),
    "gpt2": ("c_attn", "c_attn", "c_attn", "attn.c_proj", "mlp.c_proj"),
    "gpt_neox": (*["query_key_value"] * 3, "attention.dense", "dense_4h_to_h"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc2"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj"),
    "phi3": ("qkv_proj", "qkv_proj", "qkv_proj", "o_proj", "down_proj"),
    "falcon": (*["query_key_value"] * 3, "self_attention.dense", "dense_4h_to_h"),
    "t5": ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o", "DenseReluDense.wo"),
    "bart": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc2"),
}
Q_K_V_O_DOWN |= dict.fromkeys(("bert", "bert-encoder"), Q_K_V_O_DOWN["roberta"])
Q_K_V_O_DOWN |= {"mpnet-mlm": Q_K_V_O_DOWN["mpnet"]}
Q_K_V_O_DOWN |= dict.fromkeys(("qwen3", "gemma2", "gemma3"), Q_K_V_O_DOWN["llama"])


@pytest.mark.parametrize("name", ZOO)
def test_roles(name: str) -> None:
    q, k, v, o, down = Q_K_V_O_DOWN[name]
    model = build(name)
    blocks = len(block_names(model))
    for role, ends in {"qk": {q, k}, "qv": {q, v}, "qkv": {q, k, v}, "o": {o}, "down": {down}}.items():
        names = targets_of(model, (role,))
        assert len(names) == blocks * len(ends), role
        assert all(any(name.endswith(end) for end in ends) for name in names), role
        assert not any("EncDec" in name or "encoder_attn" in name for name in names)
    both = targets_of(model, ("qk", "down"))
    assert set(both) == {*targets_of(model), *targets_of(model, ("down",))}
    every = targets_of(model, ("all-linear",))
    assert {*both, *targets_of(model, ("qkv",)), *targets_of(model, ("o",))} <= set(every)
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    inside = [name for name, module in model.named_modules() if isinstance(module, kinds) and block_of(model, name)]
    assert list(every) == inside


FUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "CodeGenForCausalLM": ("CodeGenConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8}),
    "BloomForCausalLM": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "MptForCausalLM": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4}),
    "GPTBigCodeForCausalLM": ("GPTBigCodeConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "multi_query": True}),
}


def groups(count: int, step: int, start: int, size: int) -> list[int]:
    return [step * group + start + i for group in range(count) for i in range(size)]


LAYOUTS = {
    # Four groups of [query | value | key].
    "CodeGenForCausalLM": {"q": groups(4, 48, 0, 16), "k": groups(4, 48, 32, 16)},
    # [query | key | value] of each head.
    "BloomForCausalLM": {"q": groups(4, 24, 0, 8), "k": groups(4, 24, 8, 8)},
    "MptForCausalLM": {"q": list(range(32)), "k": list(range(32, 64))},
    # One key and one value for all queries.
    "GPTBigCodeForCausalLM": {"q": list(range(32)), "k": list(range(32, 40))},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", FUSED)
def test_the_layout_of_a_fused_projection_is_found(architecture: str, dtype: torch.dtype) -> None:
    config, settings = FUSED[architecture]
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(getattr(transformers, config)(vocab_size=60, **ends, **settings))
    model.to(dtype).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    (first, *_), expected = targets_of(model), LAYOUTS[architecture]
    parts = fused_parts(model, first, str(block_of(model, first)))
    assert parts is not None
    assert {part: rows.tolist() for part, rows in parts.items() if part != "v"} == expected
    total = features(model.get_submodule(first))[1]
    assert parts["v"].tolist() == [row for row in range(total) if row not in expected["q"] + expected["k"]]
    adapter = adapters.attach(LanguageModel(model, NoTokenizer(), "causal", architecture), 2)
    for layer in adapter.layers:
        for module in layer.modules.values():
            assert module.rows is not None
            assert module.rows.tolist() == sorted(expected["q"] + expected["k"])
    assert torch.equal(torch.get_rng_state(), random_state)
    base = adapter.peft_model.unload()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3", "modernbert", "falcon"])
def test_parts_of_a_fused_projection_by_role(name: str) -> None:
    model = build(name)
    (first, *_) = targets_of(model)
    parts = fused_parts(model, first, str(block_of(model, first)))
    assert parts is not None
    query, key, value = (set(parts[part].tolist()) for part in "qkv")
    rows = {
        role: next(iter(attached(name, incumbents=False, targets=(role,)).layers[0].modules.values())).rows
        for role in ("qk", "qv", "qkv")
    }
    assert rows["qk"] is not None
    assert rows["qv"] is not None
    assert set(rows["qk"].tolist()) == query | key
    assert set(rows["qv"].tolist()) == query | value
    assert rows["qkv"] is None


def picture_and_text() -> Any:
    """A model whose image encoder has projections of the same names, which a text never meets."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(
        text_config={"vocab_size": 60, **ZOO["gemma3"][3]}, vision_config=vision, mm_tokens_per_image=4,
        image_token_index=3, boi_token_index=3, eoi_token_index=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.Gemma3ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("targets", [(), ("q_proj",), ("all-linear",)])
def test_only_blocks_that_read_text_are_adapted(targets: tuple[str, ...], tmp_path: Path) -> None:
    model = picture_and_text()
    assert any("vision" in name and name.endswith("q_proj") for name, _ in model.named_modules())
    adapter = adapters.attach(LanguageModel(model, NoTokenizer(), "causal", "pictures"), 2, targets)
    assert len(adapter.layers) == len(block_names(model)) == 4
    assert not any("vision" in name for layer in adapter.layers for name in layer.modules)
    assert not any("vision" in name for name, _ in adapter.peft_model.named_parameters() if "lora_" in name)
    for index in range(4):
        adapter.write(index, candidates(adapter, index, 1, seed=index))
    rows = word_rows("causal")
    assert farthest(Engine(adapter, rows).incumbent_scores(), plain_scores(adapter, rows)) < 1e-4
    adapter.save(tmp_path / "a", {})
    assert not re.search(r"vision_|\\.vision", (tmp_path / "a" / "adapter_config.json").read_text())
    again = adapters.load(LanguageModel(picture_and_text(), NoTokenizer(), "causal", "pictures"), str(tmp_path / "a"))
    assert farthest(plain_scores(again, rows), plain_scores(adapter, rows)) < 1e-5


def test_a_strangers_adapter_on_an_image_encoder_too(tmp_path: Path) -> None:
    """PEFT adapts every q_proj; the image encoder's does nothing to a text and is no layer here."""
    theirs = peft.get_peft_model(picture_and_text(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    theirs.save_pretrained(str(tmp_path))
    adapter = adapters.load(LanguageModel(picture_and_text(), NoTokenizer(), "causal", "p"), str(tmp_path))
    assert len(adapter.layers) == 4
    assert not any("vision" in name for layer in adapter.layers for name in layer.modules)


def test_no_more_is_adapted_than_is_named() -> None:
    """PEFT adapts what ends in a name; the path of one module may be the end of another's."""
    model = torch.nn.Module()
    model.inner = torch.nn.Module()
    model.layers, model.inner.layers = (torch.nn.ModuleList([torch.nn.Linear(2, 2)]) for _ in range(2))
    assert colliding(["layers.0"], model) == ["inner.layers.0"]
    assert colliding(["layers.0", "inner.layers.0"], model) == []
