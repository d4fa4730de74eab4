"""Where the best prompt depends on the text, a gate is worth what it costs: a construction with a provable gap.

The model is blind to one dimension of its embeddings, in which the words of two clusters differ, pair by pair, and in
nothing else. To it a text and its mirror image, word for word from the other cluster, are the same; the answers that
are wanted are opposite. Whatever stands before all texts, the two get the same answer, so that half are wrong.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import model, tokenizer

import dfolora
from dfolora import Example, Prompt, Task
from dfolora.tasks.metrics import accuracy

PAIRS = [
    pair.split("/") for pair in "sun/war tea/meat song/wall ship/king tree/lamp moon/hall fish/park boat/plan".split()
]


@pytest.fixture(scope="module")
def blind_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama that does not see dimension 0, in which the words of a pair are each other's negative."""
    built = transformers.LlamaForCausalLM.from_pretrained(model("causal"))
    words = tokenizer("causal")
    embeddings = built.get_input_embeddings().weight
    with torch.no_grad():
        for pair in PAIRS:
            first, second = (words.convert_tokens_to_ids(word) for word in pair)
            embeddings[first, 0] = 1.0
            embeddings[second] = embeddings[first]
            embeddings[second, 0] = -1.0
        for block in built.model.layers:
            for part in ("q_proj", "k_proj", "v_proj"):
                getattr(block.self_attn, part).weight[:, 0] = 0
            block.mlp.gate_proj.weight[:, 0] = block.mlp.up_proj.weight[:, 0] = 0
            block.self_attn.o_proj.weight[0] = block.mlp.down_proj.weight[0] = 0
        built.lm_head.weight[:, 0] = 0
    folder = tmp_path_factory.mktemp("blind")
    built.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def examples(count: int, seed: int) -> list[Example]:
    """Texts and their mirror images, in turn."""
    rng = random.Random(seed)
    found = []
    for _ in range(count // 2):
        chosen = [rng.randrange(len(PAIRS)) for _ in range(4)]
        found += [Example({"text": " ".join(PAIRS[i][side] for i in chosen)}, side) for side in (0, 1)]
    return found


def test_a_gate_beats_any_plain_prompt(blind_model: str, tmp_path: Path) -> None:
    sets = {"train": examples(16, 0), "dev": examples(16, 1), "test": examples(60, 2)}
    task = Task(
        "two clusters", ("bad", "great"), {"causal": Prompt("{text} It was {mask}", ("bad", "great"))},
        load=lambda split, source: sets[split], measure=accuracy,
    )  # fmt: skip
    options = {"budget": 500, "population": 10, "prompt_tokens": 4, "subspace_dim": 20, "sigma": 1.0, "scale": 3.0}
    more = {"prompt": {}, "ipl": {"gate_features": 1}}
    reached = {}
    for tune in ("prompt", "ipl"):
        run = dfolora.tune(blind_model, task, tune=tune, output=str(tmp_path / tune), **options, **more[tune])
        assert run.scores["evaluations"] == 500
        reached[tune] = run.scores["tuned"]["accuracy"]
    assert reached["prompt"] == 50
    assert reached["ipl"] >= 80
