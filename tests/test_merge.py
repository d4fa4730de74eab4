"""A merged model in plain transformers: what the adapter on its base says, and what rounding takes from that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import TEMPLATE, Command, model, rows

from dfolora.engine import Engine
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models.bare import Bare
from dfolora.models.tuned import TunedModel
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Prompt, Task
from dfolora.tools.merge import merge


def adapted(kind: str, folder: Path, size: float = 0.3) -> str:
    """A saved adapter with random factors on query, key and what writes into the residual stream."""
    language_model = models.load(model(kind))
    adapter = adapters.attach(language_model, 2, ["qk", "o"])
    generator = torch.Generator().manual_seed(3)
    for index, layer in enumerate(adapter.layers):
        adapter.write(
            index,
            {
                name: (
                    torch.randn(1, 2, module.in_features, generator=generator),
                    size * torch.randn(1, module.out_features, 2, generator=generator),
                )
                for name, module in layer.modules.items()
            },
        )
    folder.parent.mkdir(exist_ok=True)
    adapter.save(folder, {}, language_model.tokenizer)
    return str(folder)


def scores(tuned: TunedModel, language_model: models.LanguageModel) -> torch.Tensor:
    prompts = {language_model.kind: Prompt(TEMPLATE, ("bad", "great"))}
    task = Task("own", ("bad", "great"), prompts, lambda: [], lambda *_: {}, shorten="text")
    examples = [Example({"text": text}, int(label)) for text, label in rows()]
    return Engine(tuned, PromptEncoder(language_model, task).encode(examples)).incumbent_scores()


@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq", "encoder"])
def test_a_merged_model_says_what_the_adapter_says(command: Command, tmp_path: Path, kind: str) -> None:
    folder = adapted(kind, tmp_path / "adapter")
    base = models.load(model(kind))
    plain = scores(Bare(base), base)
    expected = scores(adapters.load(base, folder), base)
    facts = command.json("merge", folder, tmp_path / "merged")
    assert (facts["dtype"], facts["model"]) == ("float32", model(kind))
    assert facts["rounding"] < 1e-5
    merged = models.load(str(tmp_path / "merged"))
    assert merged.kind == kind
    torch.testing.assert_close(scores(Bare(merged), merged), expected, rtol=0, atol=1e-5)
    assert (plain - expected).abs().max() > 0.1  # and the adapter does something
    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files
    assert not [name for name in files if "adapter" in name]
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "merged"}


def test_transformers_alone_loads_it(tmp_path: Path) -> None:
    facts = merge(adapted("causal", tmp_path / "adapter"), tmp_path / "deep" / "er" / "merged")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(facts["output"])
    assert not [name for name, _ in loaded.named_parameters() if "lora" in name]
    assert facts["parameters"] == sum(weight.numel() for weight in loaded.parameters())


def test_rounding_to_bfloat16_is_measured(command: Command, tmp_path: Path) -> None:
    """A smaller change loses a larger share of itself; what is written is in the format that was asked for."""
    large, small = adapted("causal", tmp_path / "large"), adapted("causal", tmp_path / "small", 0.003)
    assert command("merge", large, tmp_path / "a", "--dtype", "bfloat16") == 0
    assert "rounding to bfloat16 changes the weights by" in command.err
    facts = command.json("merge", small, tmp_path / "b", "--dtype", "bfloat16")
    share = float(command.json("merge", large, tmp_path / "c", "--dtype", "bfloat16")["rounding"])
    assert 0 < 20 * share < facts["rounding"] < 1
    assert json.loads((tmp_path / "b" / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"


def test_what_cannot_be_merged(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapted("causal", tmp_path / "run" / "adapter")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "run" / "config.yaml").write_text("quantize: 4bit\n", encoding="utf-8")
    assert command("merge", folder, tmp_path / "full") == 2
    assert "output" in command.err
    assert "is not empty" in command.err
    assert command("merge", folder, tmp_path / "new") == 2
    assert "quantised to 4bit" in command.err
    (tmp_path / "run" / "config.yaml").unlink()
    quantised = tmp_path / "full"
    shutil.copytree(model("causal"), quantised, dirs_exist_ok=True)
    config = json.loads((quantised / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantised / "config.json").write_text(json.dumps(config), "utf-8")
    assert command("merge", folder, tmp_path / "new", "--model", quantised) == 2
    assert "are quantised" in command.err
    assert command("merge", tmp_path / "nothing", tmp_path / "new") == 2
    assert command("merge", folder, tmp_path / "new", "--dtpye", "float32") == 2
    assert "--dtype" in command.err

    monkeypatch.setattr(Bare, "_write_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert command("merge", folder, tmp_path / "new") == 2
    assert command.err.count("\n") == 1
    assert "No space left" in command.err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "full"}
