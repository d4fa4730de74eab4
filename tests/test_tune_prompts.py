"""``--tune`` from the command line: runs, folders that are evaluated elsewhere, resuming, and what cannot work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import Command, StopAt, csv_files, given, log, model, tokenizer
from transformers import AutoModelForCausalLM

import dfolora
from dfolora import UserError
from dfolora.models.gated_model import load_gated

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
SMALL = ["--budget", 32, "--population", 4, "--subspace-dim", 12, "--sigma", 1, "--seed", 3]
PROMPT = ["--prompt-tokens", 3, *SMALL]
WHAT: dict[str, list[Any]] = {
    "prompt": PROMPT, "deep-prompt": PROMPT, "ipl": [*PROMPT, "--gate-features", 3], "ipl-lora": [*SMALL, "--rank", 2],
}  # fmt: skip


def flags(tune: str, folder: Path, kind: str = "causal") -> list[Any]:
    return ["--model", model(kind), *csv_files(folder), "--tune", tune, *WHAT[tune]]


@pytest.mark.parametrize("tune", WHAT)
def test_a_run_that_was_stopped_goes_on_and_its_folder_says_the_same_elsewhere(
    command: Command, tmp_path: Path, tune: str
) -> None:
    chosen = flags(tune, tmp_path)
    scores = command.json("tune", *chosen, "--output", tmp_path / "whole")
    assert (scores["method"], scores["tune"], scores["evaluations"]) == ("search", tune, 32)
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**given([*chosen, "--output", tmp_path / "cut"]), listener=StopAt(3))
    again = command.json("tune", "--resume", tmp_path / "cut")

    def plain(run: Path) -> list[dict[str, Any]]:
        cost = ("token_layers", "forwards")  # of caches that have to be filled again
        return [{name: value for name, value in line.items() if name not in cost} for line in log(run)]

    assert plain(tmp_path / "whole") == plain(tmp_path / "cut")
    files = sorted((tmp_path / "whole" / "adapter").glob("*.safetensors"))
    assert files
    for file in files:
        assert file.read_bytes() == (tmp_path / "cut" / "adapter" / file.name).read_bytes()
    assert (again["tuned"], again["dev_loss"]) == (scores["tuned"], scores["dev_loss"])

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "whole" / "adapter", elsewhere)
    found = command.json("evaluate", "--adapter", elsewhere, "--predictions", tmp_path / "p.jsonl")
    assert found["metrics"] == scores["tuned"]
    files = (tmp_path / "p.jsonl", tmp_path / "whole" / "predictions.jsonl")
    one, other = ([json.loads(line)["scores"] for line in file.read_text().splitlines()] for file in files)
    assert len(one) == len(other) == 12
    assert torch.allclose(torch.tensor(one), torch.tensor(other), atol=1e-5)


@pytest.mark.parametrize("tune", ["prompt", "deep-prompt"])
def test_peft_alone_predicts_what_the_run_predicted(command: Command, tmp_path: Path, tune: str) -> None:
    scores = command.json("tune", *flags(tune, tmp_path), "--output", tmp_path / "run")
    words = tokenizer("causal")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model("causal")), scores["adapter"])
    labels = [words.convert_tokens_to_ids(word) for word in ("bad", "great")]
    texts = [line.rsplit(",", 1)[0].strip('"') for line in (tmp_path / "test.csv").read_text().splitlines()[1:]]
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    for text, line in zip(texts, lines, strict=True):
        inputs = words(f"{text} It was", return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            logits = loaded(**inputs).logits[0, -1, labels]
        assert torch.allclose(logits, torch.tensor(line["scores"]), atol=1e-4 * float(logits.abs().max()))


def test_a_gated_prompt_stands_before_a_plain_model(command: Command, tmp_path: Path) -> None:
    scores = command.json("tune", *flags("ipl", tmp_path), "--output", tmp_path / "run")
    words = tokenizer("causal")
    loaded = load_gated(AutoModelForCausalLM.from_pretrained(model("causal")), scores["adapter"])
    labels = [words.convert_tokens_to_ids(word) for word in ("bad", "great")]
    texts = [line.rsplit(",", 1)[0].strip('"') for line in (tmp_path / "test.csv").read_text().splitlines()[1:]]
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    words.pad_token = "</s>"
    inputs = words([f"{text} It was" for text in texts], return_tensors="pt", padding=True)
    last = inputs["attention_mask"].sum(1) - 1 + 3
    with torch.no_grad():
        logits = loaded(inputs["input_ids"], inputs["attention_mask"]).logits[torch.arange(len(texts)), last]
    assert torch.allclose(logits[:, labels], torch.tensor([line["scores"] for line in lines]), atol=1e-4)
    with pytest.raises(UserError, match="width 16"):
        load_gated(AutoModelForCausalLM.from_pretrained(model("causal", hidden=16)), scores["adapter"])


@pytest.mark.parametrize("kind", ["masked", "seq2seq", "encoder"])
def test_other_kinds_of_models_run(command: Command, tmp_path: Path, kind: str) -> None:
    sentences = ["--template", "{text}", "--label-words", "0=It was bad.,1=It was great."] if kind == "encoder" else []
    scores = command.json(
        "tune", *flags("ipl", tmp_path, kind), *sentences, "--budget", 8, "--output", tmp_path / "run"
    )
    assert command.json("evaluate", tmp_path / "run")["metrics"] == scores["tuned"]
    plain = command.json("evaluate", "--model", model(kind), *csv_files(tmp_path)[:-6], *csv_files(tmp_path)[-2:],
                         *csv_files(tmp_path)[-6:-2], *sentences)  # fmt: skip
    assert plain["metrics"] == scores["zero_shot"]


def test_only_gates_are_searched_where_that_is_asked_for(command: Command, tmp_path: Path) -> None:
    words = ["--prompt-text", "good old film", "--subspace", "gate"]
    scores = command.json("tune", *flags("ipl", tmp_path), *words, "--output", tmp_path / "run")
    tensors = load_file(Path(scores["adapter"]) / "soft_prompt.safetensors")
    table = AutoModelForCausalLM.from_pretrained(model("causal")).get_input_embeddings().weight
    ids = tokenizer("causal").convert_tokens_to_ids("good old film".split())
    assert torch.equal(tensors["prompt"], table[ids])
    assert tensors["b"].abs().max() > 0


IMPOSSIBLE: list[tuple[list[Any], str]] = [
    (["--tune", "prompt", "--method", "full-parameter"], "tune: .*full-parameter does not take it; it is for search"),
    (["--tune", "ipl", "--method", "tangent"], "tune: .*tangent does not take it; it is for search"),
    (["--tune", "prompt", "--method", "first-order"], "tune: .*first-order does not take it; it is for search"),
    (["--tune", "prompt", "--method", "hybrid"], "tune: .*hybrid does not take it; it is for search"),
    (["--tune", "prompt", "--subspace", "pca"], "subspace: pca .* choose random, full"),
    (["--tune", "prompt", "--subspace", "gate"], "subspace: gate .* choose random, full"),
    (["--tune", "soft"], "tune: unknown 'soft'"),
    (["--tune", "prompt", "--prompt-tokens", 264], "prompt_tokens: 264 leave no room .* 264 positions"),
    (["--tune", "prompt", "--prompt-tokens", 262], "max_length: 2 tokens beside 262 soft ones cannot hold"),
    (["--optimizer", "cma", "--prompt-tokens", 4], "prompt_tokens: lora has no soft tokens"),
    (["--tune", "prompt", "--gate-features", 4], "gate_features: prompt has no gate"),
    (["--tune", "deep-prompt"], "tune: deep-prompt is for .*choose prompt"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE, ids=lambda each: str(each)[:40])
def test_what_cannot_work_is_said_before_the_search(
    command: Command, tmp_path: Path, changes: list[Any], message: str
) -> None:
    kind = "seq2seq" if changes == ["--tune", "deep-prompt"] else "causal"
    assert command("tune", "--model", model(kind), *csv_files(tmp_path), *changes, "--output", tmp_path / "run") == 2
    assert len(command.said) == 1
    assert re.search(message, command.said[0].replace("--", "").replace("-tokens:", "_tokens:").replace(
        "-length:", "_length:").replace("-features:", "_features:")), command.said[0]  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_spoiled_folders_are_told(command: Command, tmp_path: Path) -> None:
    scores = command.json("tune", *flags("ipl", tmp_path), "--budget", 4, "--output", tmp_path / "run")
    folder = Path(scores["adapter"])
    other = ["evaluate", "--adapter", folder, "--model", model("causal", hidden=16)]
    assert command(*other) == 2
    assert "width" in command.said[-1]
    (folder / "soft_prompt.safetensors").write_bytes(b"no tensors")
    assert command("evaluate", tmp_path / "run") == 2
    assert "cannot be read" in command.said[-1]
    (folder / "soft_prompt.safetensors").unlink()
    assert command("evaluate", tmp_path / "run") == 2
    assert "holds no soft_prompt.safetensors" in command.said[-1]
