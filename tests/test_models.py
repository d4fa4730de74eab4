"""Loading a folder: kinds, dtypes, devices, limits, and one line for everything that cannot be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models_zoo import STACK, ZOO, build, candidates, word_rows
from tiny_models import model
from toy_tokenizers import bert_like, gpt2_like, roberta_like, t5_like, toy, words_only

from dfolora.engine import Engine, SequentialEngine
from dfolora.errors import UserError
from dfolora.models import load as models
from dfolora.models.adapter import attach
from dfolora.models.probe import needed
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Prompt, Task

MAKES: dict[str, Any] = {
    "roberta": roberta_like,
    "bert": bert_like,
    "mpnet": bert_like,
    "bert-encoder": bert_like,
    "gpt2": gpt2_like,
    "opt": gpt2_like,
    "t5": t5_like,
    "bart": roberta_like,
}


def saved(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> str:
    """A folder as ``save_pretrained`` leaves it."""
    build(name, vocabulary=500).to(dtype).save_pretrained(str(folder))  # type: ignore[attr-defined]
    toy(MAKES[name]).save_pretrained(str(folder))
    return str(folder)


def refused(match: str, *args: Any, **settings: Any) -> str:
    with pytest.raises(UserError, match=match) as caught:
        models.load(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", MAKES)
def test_kinds_are_recognised(name: str, tmp_path: Path) -> None:
    loaded = models.load(saved(tmp_path, name))
    assert loaded.kind == ZOO[name][0]
    assert type(loaded.model).__name__ == ZOO[name][1]
    assert loaded.name == str(tmp_path)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.pad_token_id is not None
    assert loaded.tokenizer.padding_side == "right"
    assert loaded.device == torch.device("cpu")
    expected = build(name, vocabulary=500).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.model.state_dict().items())


def test_a_kind_can_be_asked_for(tmp_path: Path) -> None:
    loaded = models.load(saved(tmp_path, "bert"), kind="encoder")
    assert (loaded.kind, type(loaded.model).__name__) == ("encoder", "BertModel")
    assert "did you mean 'causal'" in refused("kind: unknown 'casual'", str(tmp_path), kind="casual")


def test_a_folder_may_be_relative_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "tiny", "bert")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [models.load(name).name for name in ("tiny", "./tiny", "~/tiny")] == ["tiny", "./tiny", "~/tiny"]


def test_what_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("there is no folder './nowhere'", "./nowhere")
    refused("there is no folder", str(tmp_path / "nowhere"))
    refused("model: cannot load 'no-such-model-at-all'", "no-such-model-at-all")
    refused("model: cannot load", str(tmp_path))  # an empty folder
    (tmp_path / "config.json").write_text("{}")
    refused("model: cannot load", str(tmp_path))
    (tmp_path / "config.json").write_text("not json")
    refused("model: cannot load", str(tmp_path))


def test_a_model_of_no_known_kind(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text())
    for architectures in (["BertForSequenceClassification"], None):
        (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
        refused("kind: cannot tell the kind .* say kind masked, causal, seq2seq or encoder", folder)
    assert models.load(folder, kind="masked").kind == "masked"


@pytest.mark.parametrize(
    ("architecture", "encoder_decoder", "kind"),
    [
        ("BertForPreTraining", False, "masked"),
        ("GPT2LMHeadModel", False, "causal"),
        ("OPTForCausalLM", False, "causal"),
        ("BartModel", True, "seq2seq"),
        ("MPNetModel", False, "encoder"),
    ],
)
def test_kind_by_architecture(architecture: str, encoder_decoder: bool, kind: str) -> None:
    config = type("Config", (), {"architectures": [architecture], "is_encoder_decoder": encoder_decoder})
    assert models.kind_of(config) == kind


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    """A pickle can run code when it is read, so weights in one are refused, and the pickle is never opened."""
    folder = saved(tmp_path, "bert")
    state = build("bert", vocabulary=500).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert "safetensors" in refused("model: cannot load", folder)


def test_a_spoiled_weight_file_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("model: cannot load", folder)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "llama", "mpnet"])
def test_no_tokenizer(name: str, tmp_path: Path) -> None:
    """transformers would go on with a made-up tokenizer for some of these."""
    build(name, vocabulary=500).save_pretrained(str(tmp_path))  # type: ignore[operator]
    refused("tokenizer", str(tmp_path), kind="encoder" if name == "mpnet" else "auto")


def test_a_masked_model_needs_a_mask_token() -> None:
    with pytest.raises(UserError, match="'toy' has no mask token"):
        models.wrap(build("bert"), toy(t5_like), "masked", "toy")
    assert models.wrap(build("bert"), toy(words_only), "masked", "toy").kind == "masked"


def test_a_pad_token_is_found() -> None:
    tokenizer = gpt2_like()
    assert tokenizer.pad_token is None
    assert models.wrap(build("gpt2"), tokenizer, "causal").tokenizer.pad_token == "<|endoftext|>"
    bare = words_only()
    bare.pad_token = None
    assert models.wrap(build("gpt2"), bare, "causal").tokenizer.pad_token_id == 0


def test_dtypes_and_devices(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", torch.float16)
    assert next(models.load(folder).model.parameters()).dtype == torch.float32  # auto on a CPU
    assert next(models.load(folder, dtype="bfloat16").model.parameters()).dtype == torch.bfloat16
    assert "'bfloat16'" in refused("dtype: unknown 'bfloat'", folder, dtype="bfloat")
    for device in ("gpu", "cpu:x", "meta", "mps" if not torch.backends.mps.is_available() else "meta:9"):
        refused(f"device: {device!r} cannot be used here", folder, device=device)
    assert models.pick_dtype("auto", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("name", "tokenizer_limit", "expected"),
    [
        ("roberta", 1000, 64 - 2),  # positions are numbered from padding_idx + 1 = 2
        ("mpnet", 1000, 64 - 2),
        ("bert", 1000, 64),
        ("bert", 50, 50),
        ("gpt2", 1000, 64),
        ("opt", 1000, 64),
        ("t5", 1000, 1000),  # relative positions: only the tokenizer sets a limit
    ],
)
def test_max_length(name: str, tokenizer_limit: int, expected: int) -> None:
    make = MAKES[name]
    loaded = models.wrap(build(name, vocabulary=500), make(limit=tokenizer_limit), ZOO[name][0])
    assert loaded.max_length == expected
    if name in ("roberta", "mpnet", "bert", "gpt2", "opt") and tokenizer_limit == 1000:
        # That length runs and one more does not: the limit is the model's, not a guess.
        ids = torch.full((1, expected), 7)
        with torch.no_grad():
            loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids))
            longer = torch.full((1, expected + 1), 7)
            with pytest.raises((IndexError, RuntimeError)):
                loaded.model(input_ids=longer, attention_mask=torch.ones_like(longer))


@pytest.mark.parametrize(
    ("content", "pooling"),
    [
        (None, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
    ],
)
def test_pooling_of_sentence_transformers(content: dict[str, bool] | None, pooling: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "mpnet")
    if content is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(content))
    assert models.load(folder).pooling == pooling


def test_quantised_weights_need_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, "opt")
    refused("quantize: unknown '3bit'", folder, quantize="3bit")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    refused(
        r"quantize: 8bit needs bitsandbytes and accelerate; pip install 'dfolora\[quantize\]'",
        folder,
        quantize="8bit",
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["roberta", "opt"])
def test_eight_bits(name: str, tmp_path: Path) -> None:
    """The engine agrees with one candidate at a time, and weights are read back near what they were."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    folder = saved(tmp_path, name)
    plain, eight = (attach(models.load(folder, dtype="float32", quantize=how), 4) for how in ("", "8bit"))
    for layer, same in zip(plain.layers, eight.layers, strict=True):
        for module, other in zip(layer.modules.values(), same.modules.values(), strict=True):
            assert type(other.lora.base_layer).__name__ == "Linear8bitLt"
            assert torch.allclose(module.weight, other.weight, atol=0.01 * float(module.weight.abs().max()))
    rows = word_rows(ZOO[name][0])
    for layer in (0, 1, None):
        factors = candidates(eight, layer, 3)
        expected = SequentialEngine(eight, rows).scores(factors)
        assert torch.allclose(Engine(eight, rows).scores(factors), expected, atol=1e-4 * float(expected.abs().max()))


def test_weights_that_a_checkpoint_lacks_are_the_same_each_time() -> None:
    """The pooler of a sentence encoder that was saved without one; and nobody's random numbers are touched."""
    folder = model("encoder")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (dict(models.load(folder).model.named_parameters()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert any("pooler" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


# What each architecture's checkpoint may be loaded as although it was saved as something else.
OTHER_KINDS = {
    "electra": ("ElectraForPreTraining", "masked", "generator_lm_head.bias"),
    "bert-encoder": ("BertModel", "masked", "cls.predictions"),
    "bert-decoder": ("BertModel", "causal", "cls.predictions"),
}


@pytest.mark.parametrize("case", OTHER_KINDS)
def test_a_checkpoint_without_weights_that_answers_depend_on_is_refused(case: str, tmp_path: Path) -> None:
    """Its head would be random numbers, and others in every program that loads it."""
    architecture, kind, weight = OTHER_KINDS[case]
    config = {"ElectraForPreTraining": transformers.ElectraConfig, "BertModel": transformers.BertConfig}[architecture]
    more = {"embedding_size": 16} if case == "electra" else {}
    getattr(transformers, architecture)(config(vocab_size=500, **STACK, **more)).save_pretrained(tmp_path)
    toy(bert_like).save_pretrained(tmp_path)
    message = refused("lacks weights that a .* model answers with", str(tmp_path), kind=kind)
    assert weight in message
    assert f"saved as {architecture}" in message
    opened = models.open_model(str(tmp_path), kind=kind)  # only the weights can tell
    with pytest.raises(UserError, match="lacks weights"):
        opened.read_weights()


@pytest.mark.parametrize("name", ["roberta", "albert", "deberta", "gpt2", "llama", "gemma3", "t5", "bart", "falcon"])
def test_a_whole_checkpoint_lacks_nothing(name: str, tmp_path: Path) -> None:
    """Tied heads are saved once and shared anew."""
    folder = saved(tmp_path, name) if name in MAKES else None
    if folder is None:
        build(name, vocabulary=500).save_pretrained(str(tmp_path))  # type: ignore[operator]
        toy({"masked": bert_like, "causal": gpt2_like}[ZOO[name][0]]).save_pretrained(str(tmp_path))
    loaded = models.load(str(tmp_path), kind=ZOO[name][0])
    expected = build(name, vocabulary=500).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.model.state_dict().items())


def test_what_the_output_depends_on() -> None:
    model = build("bert-encoder")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert needed(model, ["pooler.dense.weight", "pooler.dense.bias", "no.such.parameter"]) is None
    assert needed(model, ["pooler.dense.weight", "encoder.layer.1.output.dense.bias"]) is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_prompts_are_checked_before_weights_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    opened = models.open_model(folder)
    assert opened.device == torch.device("meta")
    assert (opened.kind, opened.max_length, opened.vocabulary) == ("masked", 60, 500)
    task = Task("toy", (), {"masked": Prompt("{text} it was {mask}", ("great", "greatfilm"))}, list, lambda *_: {})
    with pytest.raises(UserError, match="label_words: 'greatfilm' is 4 tokens"):
        PromptEncoder(opened, task)
    with pytest.raises(UserError, match="model: cannot load"):
        opened.read_weights()


@pytest.mark.parametrize("name", MAKES)
def test_an_encoder_made_before_the_weights_serves_after(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, name)
    opened = models.open_model(folder)
    prompt = Prompt("{text} it was {mask}", ("great", "terrible"))
    task = Task("toy", (), {opened.kind: prompt}, list, lambda *_: {}, shorten="text")
    early = PromptEncoder(opened, task)
    assert opened.read_weights() is opened
    assert opened.device == torch.device("cpu")
    assert opened.read_weights() is opened
    loaded = models.load(folder)
    examples = [Example({"text": "the film " * n}, 0) for n in (1, 40)]
    late = PromptEncoder(loaded, task).encode(examples)
    assert all(torch.equal(part, late.inputs[key]) for key, part in early.encode(examples).inputs.items())
    state = loaded.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in opened.model.state_dict().items())


def test_a_model_in_memory() -> None:
    bert, tokenizer = build("bert", vocabulary=500).train().requires_grad_(True), bert_like()
    loaded = models.load(bert, tokenizer)
    assert loaded.model is bert
    assert (loaded.kind, loaded.model.training) == ("masked", False)
    assert not any(parameter.requires_grad for parameter in bert.parameters())
    for name in ("gpt2", "t5", "bart", "bert-encoder"):
        assert models.load(build(name, vocabulary=500), toy(MAKES[name])).kind == ZOO[name][0]
    assert models.load(build("bert", vocabulary=500), tokenizer, kind="encoder").kind == "encoder"
    assert next(models.load(bert, tokenizer, dtype="bfloat16").model.parameters()).dtype == torch.bfloat16
    refused("tokenizer: a model in memory needs one", bert)
    refused("kind: unknown 'casual'; did you mean 'causal'", bert, tokenizer, kind="casual")
    refused("in memory", bert, tokenizer, quantize="8bit")
    refused("tokenizer: 'a-name' comes with its own", "a-name", tokenizer)


def test_a_pad_token_without_an_embedding_is_not_used() -> None:
    """Padding is masked, so another token does as well; a mask token cannot be done without."""
    tokenizer = gpt2_like()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model = build("gpt2", vocabulary=tokenizer.pad_token_id)
    loaded = models.wrap(model, tokenizer, "causal", "toy")
    assert loaded.tokenizer.pad_token == "<|endoftext|>"
    large = bert_like()
    large.add_special_tokens({"mask_token": "[M]"})
    with pytest.raises(UserError, match="'toy' has no mask token in its embedding"):
        models.wrap(build("bert", vocabulary=large.mask_token_id), large, "masked", "toy")


@pytest.mark.parametrize("names", [["w.bin"], ["model.safetensors", "../x.safetensors"], [5], "none"])
def test_an_index_that_names_other_files_is_refused(names: object, tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    state = {key: value.clone() for key, value in build("bert", vocabulary=500).state_dict().items()}
    torch.save(state, tmp_path / "w.bin")
    (tmp_path / "model.safetensors").unlink()
    weight_map = {key: names[i % len(names)] for i, key in enumerate(state)} if isinstance(names, list) else names
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    refused("^model: only safetensors are read|^model: the model.safetensors.index.json of", folder)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"pooling_mode_max_tokens": true}', "{" * 5000])
def test_pooling_that_is_not_known_is_refused(content: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "mpnet")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(content)
    refused("^model: .*(is not a JSON object|pools by max_tokens)", folder)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "~nosuchuser/x", "/" + "x" * 300])
def test_names_that_are_no_paths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("^model: ", name)
