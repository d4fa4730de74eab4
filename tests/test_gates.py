"""What a gate sees and does: IPL's own form, padding, and components of LoRA text by text."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from models_zoo import READINGS, ZOO, language_model
from soft_rows import asked_of, prompted
from test_prompts import assert_close

from dfolora.engine import Engine, Rows
from dfolora.engine.gated_lora import GatedLowRank
from dfolora.engine.readout import Readout
from dfolora.models import adapter as adapters
from dfolora.models.gated_adapter import GatedAdapter
from dfolora.models.instances import Instances, mean_embedding
from dfolora.models.prompted import detach
from dfolora.models.soft_prompt import Gate
from dfolora.models.soft_tokens import SoftTokens

NAMES = ("roberta", "bert", "gpt2", "opt", "llama", "qwen3", "t5")


def test_scoring_every_word_against_every_soft_token_is_a_gate_on_the_mean() -> None:
    """IPL's mean_j sigmoid-argument q_i . k(x_j) / sqrt(h) equals a_i . xbar + c_i, and so a gate on all features."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d, h, m = 6, 4, 3
    table, prompt = draw(40, d), draw(m, d)
    (wq, bq), (wk, bk) = (draw(h, d), draw(h)), (draw(h, d), draw(h))
    texts = [torch.randint(40, (n,), generator=generator).tolist() for n in (5, 9, 2, 7, 4, 6, 3, 8)]
    instances = Instances(d, lambda: table)
    numbers = [instances.number(text) for text in texts]
    instances.fit()
    assert instances.count == d
    center, axes = instances.fitted
    query = prompt @ wq.T + bq  # (m, h)
    a, c = query @ wk / h**0.5, query @ bk / h**0.5
    inverse = torch.linalg.inv(axes.double())  # xbar = U^-1 phi + mu
    gate = Gate((a @ inverse).float()[None], (c + a @ center.double()).float()[None])
    for number, text in zip(numbers, texts, strict=True):
        keys = table[text] @ wk.T + bk
        published = torch.sigmoid((query @ keys.T / h**0.5).mean(1))
        features = instances.features(torch.device("cpu"))[[number] * m]
        ours = gate.weights(features, torch.zeros(m, dtype=torch.long), torch.arange(m)) / 2
        assert torch.allclose(ours.double(), published, atol=1e-5)


def test_features_are_whitened_and_the_first_vary_most() -> None:
    table = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, *[1.0] * 7])
    instances = Instances(3, lambda: table)
    texts = [torch.randint(60, (4,), generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(20)]
    index = [instances.number(text) for text in texts]
    assert index == [instances.number(text) for text in texts] == list(range(1, 21))
    instances.fit()
    features = instances.features(torch.device("cpu"))
    assert torch.allclose(features[1:].T.cov(), torch.eye(3), atol=1e-4)
    assert features[0].abs().max() == 0
    means = torch.stack([mean_embedding(table, text) for text in texts])
    assert abs(torch.stack([means[:, 0], features[1:, 0]]).corrcoef()[0, 1]) > 0.95
    assert torch.equal(instances.features(torch.device("cpu"))[instances.number(texts[7])], features[8])


@torch.inference_mode()
def test_padding_does_not_move_a_gate() -> None:
    """The same texts in a batch with a longer one, and alone, whatever is saved."""
    _, _, rows, model = prompted("bert", "words", True)
    generator = torch.Generator().manual_seed(2)
    gate = {"b": torch.randn(3, 2, generator=generator), "c": torch.randn(3, generator=generator)}
    model.write({**model.tuned, **gate})
    together = Engine(model, rows).incumbent_scores()
    for example in range(len(rows.classes)):
        alone = rows.of(torch.tensor([example]))[1]
        alone = alone.take(torch.arange(alone.count))
        assert_close(Engine(model, alone).incumbent_scores()[0], together[example])


def gated(name: str, rows: Rows) -> tuple[GatedAdapter, Rows]:
    """A model with empty LoRA and gates on it, and rows whose tokens say which text they belong to."""
    opened = language_model(name)
    tokens = SoftTokens(opened.vocabulary, 0, everywhere=True)
    instances = Instances(2, lambda: opened.model.get_input_embeddings().weight)
    numbers = torch.tensor([instances.number(ids) for ids in asked_of(rows, opened.kind)])[:, None]
    instances.fit()
    real = rows.inputs["attention_mask"]
    inputs = {**rows.inputs, "input_ids": rows.inputs["input_ids"] + real * numbers * tokens.step}
    if "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"] = inputs["decoder_input_ids"] + numbers * tokens.step
    adapter = GatedAdapter(adapters.attach(opened, 2), tokens, instances, opened)
    return adapter, dataclasses.replace(rows, inputs=inputs)


@pytest.mark.parametrize("reading", ["words", "choices"])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_gated_lora_is_other_weights_for_every_text(name: str, reading: str) -> None:
    plain = READINGS[reading](ZOO[name][0])
    adapter, rows = gated(name, plain)
    generator = torch.Generator().manual_seed(0)
    layer, population = 1, 3
    modules = adapter.lora.layers[layer].modules
    found = {
        module: [0.3 * torch.randn(population, *part.shape, generator=generator) for part in each.factors()]
        for module, each in modules.items()
    }
    gate = Gate(torch.randn(population, 2, 2, generator=generator), torch.randn(population, 2, generator=generator))
    edits = {module: GatedLowRank(a, b, gate, adapter) for module, (a, b) in found.items()}
    engine = Engine(adapter, rows)
    engine.verify(edits)
    assert not any(names for key, names in adapter.learned.items() if key[-1] == "refused")  # type: ignore[index]
    scores = engine.scores(edits)
    adapter.write(layer, {
        **{f"{module}/{which}": part[2] for module, pair in found.items()
           for which, part in zip("ab", pair, strict=True)},
        "b": gate.b[2], "c": gate.c[2],
    })  # fmt: skip
    assert_close(engine.incumbent_scores(), scores[2])
    numbers, features = rows.inputs["input_ids"][:, 0] // adapter.tokens.step, adapter.instances.features
    weights = 2 * torch.sigmoid(features(torch.device("cpu"))[numbers] @ gate.b[0].T + gate.c[0])  # (R, r)
    detach(adapter.model)
    expected = []
    for row in range(plain.count):
        for module, (a, b) in found.items():
            lora = modules[module].lora
            lora.lora_A["default"].weight.copy_(weights[row][:, None] * a[0])
            lora.lora_B["default"].weight.copy_(b[0])
        alone = plain.pick(torch.tensor([row]))
        expected.append(Readout(adapter.model, lambda inputs: None).read(alone, adapter.model(**alone.inputs), 1)[0])
    assert_close(plain.assemble(torch.cat(expected)[None])[0], scores[0])
    with pytest.raises(AssertionError):
        assert_close(scores[0], scores[1])
