"""Soft prompts, many at once, are what a plain model makes of one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models_zoo import ZOO, cases, language_model
from peft import PeftModel
from soft_rows import by_embeddings, candidates, prompted, readings_of
from torch import Tensor

from dfolora.engine import Engine
from dfolora.engine.soft_prompt import SoftPrompt
from dfolora.models.prompted import detach, load
from dfolora.models.soft_prompt import Gate
from dfolora.subspaces.prompts import PromptSpace

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
NAMES = ("roberta", "bert", "albert", "gpt2", "opt", "llama", "qwen3", "t5", "bart", "bert-encoder")
CASES = [(name, reading, False) for name, reading in cases() if name in NAMES]
CASES += [(name, reading, True) for name, reading, _ in CASES if reading == "words" or name in ("llama", "t5")]


def assert_close(found: Tensor, expected: Tensor) -> None:
    there = ~expected.isneginf()
    assert torch.equal(found.isneginf(), ~there)
    limit = 1e-4 * float(expected[there].abs().max())
    assert float((found - expected)[there].abs().max()) < limit


@pytest.mark.parametrize(("name", "reading", "gated"), CASES)
@torch.inference_mode()
def test_a_population_is_scored_as_one_prompt_after_the_other(name: str, reading: str, gated: bool) -> None:
    opened, plain, rows, model = prompted(name, reading, gated)
    found = candidates(opened, 3, 1, 2 if gated else None)
    gate = Gate(found["b"], found["c"]) if gated else None
    engine = Engine(model, rows)
    edits = {model.embedding: SoftPrompt(found["prompt"], gate, model.tokens, model.instances)}
    engine.verify(edits)
    assert not any(names for key, names in model.learned.items() if key[-1] == "refused")  # type: ignore[index]
    scores = engine.scores(edits)
    numbers = rows.inputs["input_ids"][:, 0] // model.tokens.step
    incumbent = engine.incumbent_scores()
    detach(opened.model)
    for p in range(3):
        leading = found["prompt"][p].expand(plain.count, -1, -1)
        if gated:
            assert model.instances is not None
            logits = model.instances.features(torch.device("cpu"))[numbers] @ found["b"][p].T + found["c"][p]
            leading = leading * (2 / (1 + (-logits).exp()))[..., None]
        assert_close(scores[p], by_embeddings(opened, plain, leading))
    assert_close(incumbent, by_embeddings(opened, plain, model.tuned["prompt"].expand(plain.count, -1, -1)))
    with pytest.raises(AssertionError):
        assert_close(scores[0], scores[1])


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_peft_loads_a_prompt_and_says_the_same(name: str, tmp_path: Path) -> None:
    reading = "words" if ZOO[name][0] != "encoder" else "label sentences"
    _, plain, rows, model = prompted(name, reading, False)
    expected = Engine(model, rows).incumbent_scores()
    model.save(tmp_path / "adapter", {})
    loaded = PeftModel.from_pretrained(language_model(name).model, str(tmp_path / "adapter"))
    output = loaded(**plain.inputs)
    mask = rows.inputs["attention_mask"]
    assert_close(readings_of(language_model(name), plain, output, mask, 3), expected)
    again = load(language_model(name), str(tmp_path / "adapter"), model.tokens, None)
    assert torch.equal(Engine(again, rows).incumbent_scores(), expected)


@pytest.mark.parametrize("name", ["roberta", "llama", "t5"])
@torch.inference_mode()
def test_a_gate_at_zero_is_a_plain_prompt(name: str) -> None:
    scores = {}
    for gated in (False, True):
        _, _, rows, model = prompted(name, "words", gated)
        space = PromptSpace(model, model.tuned["prompt"], "random", 20, 0, 1.0)
        assert space.dim == 20 + (3 * 3 if gated else 0)
        z = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
        z = torch.nn.functional.pad(z, (0, space.dim - 20))
        scores[gated] = Engine(model, rows).scores(space.edits(z))
    assert torch.equal(scores[False], scores[True])
