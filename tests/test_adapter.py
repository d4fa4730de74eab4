"""Attaching LoRA to the right modules, reading and writing layers, saving and loading what PEFT alone can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from models_zoo import ZOO, attached, build, candidates, language_model, word_rows
from plain_reading import farthest, plain_scores, read

from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.models import adapter as adapters

# PEFT alone, as a stranger would use it, asks transformers for a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def refused(match: str, run: Any, *args: Any, **settings: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        run(*args, **settings)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_attached() -> None:
    model = language_model("bert")
    refused("'quary' in its layers; try 'query'", adapters.attach, model, targets=("quary",))
    refused("'zzz' in its layers; try dense, key, query, value", adapters.attach, model, targets=("query", "zzz"))
    refused("'decoder' in its layers", adapters.attach, model, targets=("decoder",))  # the head is no layer
    for rank in (0, -1, 33):
        refused(f"rank: {rank} cannot work; the adapted modules allow 1 to 32", adapters.attach, model, rank)
    refused("allow 1 to 16", adapters.attach, language_model("llama"), 17)
    assert adapters.attach(model, 32).rank == 32


def test_attaching_changes_nothing_yet() -> None:
    plain = build("roberta")
    rows = word_rows("masked")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    adapter = attached("roberta", incumbents=False)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        expected = read(rows, plain(**rows.inputs))
    assert farthest(plain_scores(adapter, rows), expected) == 0
    assert farthest(Engine(adapter, rows).incumbent_scores(), expected) < 1e-5
    assert adapter.active == [False] * 3
    assert not any(parameter.requires_grad for parameter in adapter.peft_model.parameters())
    assert all(not a.any() and not b.any() for factors in adapter.state() for a, b in factors.values())


def test_read_write_restore_clear() -> None:
    adapter = attached("bert", incumbents=False)
    written = candidates(adapter, 1, 1)
    adapter.write(1, written)
    assert (adapter.versions, adapter.active) == ([0, 1, 0], [False, True, False])
    state = adapter.state()
    assert all(torch.equal(state[1][key][side], written[key][side]) for key in written for side in (0, 1))
    adapter.write(1, candidates(adapter, 1, 1, seed=3))
    assert not torch.equal(adapter.read(1)[next(iter(written))][0], written[next(iter(written))][0])
    adapter.restore(state)
    assert all(torch.equal(adapter.read(1)[key][1], written[key][1]) for key in written)
    adapter.clear()
    assert adapter.active == [False] * 3
    assert all(not b.any() for factors in adapter.state() for _, b in factors.values())
    assert all(torch.equal(adapter.read(1)[key][0], written[key][0]) for key in written)


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["roberta", "gpt2", "modernbert", "t5", "falcon"])
def test_peft_reads_what_is_saved(name: str, tmp_path: Path) -> None:
    adapter, rows = attached(name), word_rows(ZOO[name][0])
    folder = tmp_path / "adapter"
    adapter.save(folder, {"README.md": "# A card\n"})
    assert {file.name for file in folder.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (folder / "README.md").read_text() == "# A card\n"
    expected = Engine(adapter, rows).incumbent_scores()
    with torch.no_grad():
        plain = build(name)
        bare = read(rows, plain(**rows.inputs))
        model = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
        assert farthest(expected, read(rows, model(**rows.inputs))) < 1e-4 * float(expected.abs().max())
    assert farthest(expected, bare) > 1e-2 * float(expected.abs().max())
    modes = {file.stat().st_mode & 0o777 for file in folder.iterdir()}
    (tmp_path / "ordinary").write_text("")
    assert modes == {(tmp_path / "ordinary").stat().st_mode & 0o777}
    again = adapters.load(language_model(name), str(folder))
    assert again.active == [True] * len(adapter.layers)
    assert farthest(Engine(again, rows).incumbent_scores(), expected) < 1e-5 * float(expected.abs().max())


def made_by_peft(folder: Path, name: str = "bert", **settings: Any) -> Any:
    """An adapter as a stranger makes it: PEFT alone, its own defaults but for random B."""
    torch.manual_seed(0)
    model = peft.get_peft_model(build(name), peft.LoraConfig(**{"target_modules": ["query", "value"], **settings}))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.3)
    model.eval().save_pretrained(str(folder))
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 16},
        {"r": 4, "lora_alpha": 16, "use_rslora": True},
        {"r": 4, "lora_alpha": 3, "alpha_pattern": {"query": 24}, "rank_pattern": {"value": 2}},
    ],
)
def test_an_adapter_with_a_scale_of_its_own(settings: dict[str, Any], tmp_path: Path) -> None:
    """alpha / r is part of what an adapter does: kept on loading, for a population, and through another save."""
    rows = word_rows("masked")
    theirs = made_by_peft(tmp_path / "theirs", **settings)
    with torch.no_grad():
        expected = read(rows, theirs(**rows.inputs))
    adapter = adapters.load(language_model("bert"), str(tmp_path / "theirs"))
    engine = Engine(adapter, rows)
    assert farthest(engine.incumbent_scores(), expected) < 1e-5
    assert farthest(engine.scores(adapter.read(1))[0], expected) < 1e-5
    adapter.save(tmp_path / "again", {"README.md": ""})
    with torch.no_grad():
        again = peft.PeftModel.from_pretrained(build("bert"), str(tmp_path / "again")).eval()
        assert farthest(read(rows, again(**rows.inputs)), expected) < 1e-5
        assert farthest(read(rows, build("bert")(**rows.inputs)), expected) > 1e-2


def test_adapters_that_cannot_be_loaded(tmp_path: Path) -> None:
    model = language_model("bert")
    refused("holds no adapter_config.json", adapters.load, model, str(tmp_path / "nowhere"))
    refused("holds no adapter_config.json", adapters.load, model, str(tmp_path))
    attached("gpt2").save(tmp_path / "gpt2", {"README.md": ""})
    refused("does not fit 'bert'; it was made for gpt2", adapters.load, model, str(tmp_path / "gpt2"))


@pytest.mark.parametrize("part", ["use_dora", "lora_bias"])
def test_more_than_plain_lora_is_refused(part: str, tmp_path: Path) -> None:
    attached("bert").save(tmp_path / "a", {"README.md": ""})
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({**config, part: True}))
    refused(rf"not a plain LoRA adapter \({part}\)", adapters.load, language_model("bert"), str(tmp_path / "a"))


@pytest.mark.parametrize("content", ["not json", "[1]", '{"peft_type": "IA3"}', '{"peft_type": "LORA", "r": "x"}'])
def test_a_spoiled_configuration(content: str, tmp_path: Path) -> None:
    attached("bert").save(tmp_path / "a", {"README.md": ""})
    (tmp_path / "a" / "adapter_config.json").write_text(content)
    refused("adapter: ", adapters.load, language_model("bert"), str(tmp_path / "a"))


def test_spoiled_weights(tmp_path: Path) -> None:
    attached("bert").save(tmp_path / "a", {"README.md": ""})
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"no weights at all")
    refused("does not fit 'bert'", adapters.load, language_model("bert"), str(tmp_path / "a"))
    attached("bert", targets=("query",)).save(tmp_path / "b", {"README.md": ""})
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    config["target_modules"] = ["query", "key"]  # names modules whose weights are not there
    (tmp_path / "b" / "adapter_config.json").write_text(json.dumps(config))
    refused("does not fit 'bert'", adapters.load, language_model("bert"), str(tmp_path / "b"))


def test_a_failing_save_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = attached("bert")
    folder = tmp_path / "adapter"
    adapter.save(folder, {"README.md": "old"})
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    adapter.write(0, candidates(adapter, 0, 1, seed=8))

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    for target, what in ((adapter.peft_model, "save_pretrained"), (Path, "write_text")):
        with monkeypatch.context() as patch:
            patch.setattr(target, what, fail)
            with pytest.raises(UserError, match="^output: cannot write .*no space"):
                adapter.save(folder, {"README.md": "new"})
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    adapter.save(folder, {"README.md": "new"})
    assert (folder / "README.md").read_text() == "new"
    assert (folder / "adapter_model.safetensors").read_bytes() != before["adapter_model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
