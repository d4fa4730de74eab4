"""A saved adapter in plain transformers + peft: the same class scores as here, without a line of this library."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FIRST_ORDER, SMALL, TEMPLATE, Command, csv_files, model, rows

from dfolora.engine import Engine
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Prompt, Task

# peft 0.21 reads a name that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

MASKED = """
import torch
from peft import PeftModel
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(folder), adapter).eval()
words = tokenizer.convert_tokens_to_ids(["bad", "great"])
scores = []
for text in texts:
    batch = tokenizer(f"{text} It was {tokenizer.mask_token}.", return_tensors="pt")
    place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    scores.append(model(input_ids=batch["input_ids"]).logits[0, place, words])
scores = torch.stack(scores)
"""
CAUSAL = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
words = tokenizer.convert_tokens_to_ids(["bad", "great"])
batches = [tokenizer(f"{text} It was", return_tensors="pt")["input_ids"] for text in texts]
scores = torch.stack([model(input_ids=batch).logits[0, -1, words] for batch in batches])
"""
ENCODER = """
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), adapter).eval()
def embed(text):
    return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
labels = torch.stack([embed("bad"), embed("great")])
scores = 20 * torch.stack([torch.cosine_similarity(embed(f"{text} It was ."), labels) for text in texts])
"""
PLAIN = {"masked": MASKED, "causal": CAUSAL, "encoder": ENCODER}
TEXTS = [text for text, _ in rows()]


FAR = [*SMALL, "--selection", "sample", "--dev-every", "4", "--sigma", "2"]
HYBRID = [*FIRST_ORDER, "--method", "hybrid", "--rho", "0.6", "--budget", "90", "--alpha", "1"]


def tuned(command: Command, folder: Path, kind: str, flags: list[str] = FAR) -> dict[str, Any]:
    """A run whose adapter is a far sample, whether it helps or not."""
    return command.json("tune", "--model", model(kind), *csv_files(folder), *flags, "--output", folder / "run")


def here(kind: str, folder: str | None) -> torch.Tensor:
    """Class scores of the texts by this library, with a saved adapter or with an empty one."""
    language_model = models.load(model(kind))
    adapter = adapters.load(language_model, folder) if folder else adapters.attach(language_model, 2)
    examples = [Example({"text": text}, int(label)) for text, label in rows()]
    prompts = {language_model.kind: Prompt(TEMPLATE, ("bad", "great"))}
    task = Task("own", ("bad", "great"), prompts, lambda: [], lambda *_: {}, shorten="text")
    return Engine(adapter, PromptEncoder(language_model, task).encode(examples)).incumbent_scores()


@pytest.mark.parametrize("flags", [FAR, FIRST_ORDER, HYBRID], ids=["search", "first-order", "hybrid"])
@pytest.mark.parametrize("kind", PLAIN)
def test_the_same_scores_elsewhere(command: Command, tmp_path: Path, kind: str, flags: list[str]) -> None:
    scores = tuned(command, tmp_path, kind, flags)
    assert scores["selected_at"] > 0
    assert "dfolora" not in PLAIN[kind]
    assert len(PLAIN[kind].strip().splitlines()) < 14
    names: dict[str, Any] = {"folder": model(kind), "adapter": scores["adapter"], "texts": TEXTS}
    with torch.no_grad():
        exec(PLAIN[kind], names)
    plain = names["scores"]
    torch.testing.assert_close(here(kind, scores["adapter"]), plain, rtol=1e-4, atol=1e-4)
    right = sum(int(guess) == int(label) for guess, (_, label) in zip(plain.argmax(-1), rows(), strict=True))
    assert scores["tuned"]["accuracy"] == pytest.approx(100 * right / len(TEXTS))
    # and it is the adapter that does it
    assert not torch.allclose(here(kind, None), plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_code_on_the_card_runs(command: Command, tmp_path: Path, kind: str) -> None:
    scores = tuned(command, tmp_path, kind)
    adapter = Path(scores["adapter"])
    card = (adapter / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    assert "dfolora" not in code[1]
    assert "'this folder'" in code[1]
    names: dict[str, Any] = {}
    exec(code[1].replace("'this folder'", repr(str(adapter))), names)
    config = names["model"].peft_config["default"]
    assert config.base_model_name_or_path == model(kind)
    weights = dict(names["model"].named_parameters())
    assert any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)
    assert f"| accuracy | {scores['dev_zero_shot']['accuracy']:.2f} | {scores['dev_tuned']['accuracy']:.2f} |" in card


def test_files_of_a_saved_adapter(command: Command, tmp_path: Path) -> None:
    """What PEFT needs and no more: no pickle, and no weights but LoRA's."""
    scores = tuned(command, tmp_path, "masked")
    adapter = Path(scores["adapter"])
    assert {file.suffix for file in adapter.iterdir()} == {".json", ".safetensors", ".md"}
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 2, 2, "none")
    assert (adapter / "adapter_model.safetensors").stat().st_size < 20_000
