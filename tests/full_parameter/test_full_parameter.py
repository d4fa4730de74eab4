"""Probes and steps on whole models: nothing but the step changes the weights, and the step is what was probed."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import models_zoo as zoo
import pytest
import torch
import transformers
from plain_reading import read
from torch import Tensor, nn
from toy_valley import DTYPES, LABELS, METHODS, Valley, causal, direction, flat, memory, same

from dfolora.bench.measure import peak_bytes
from dfolora.methods.full_parameter import FullParameter, rows_loss
from dfolora.models.load import LanguageModel
from dfolora.problems.objectives import cross_entropy, hinge


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", METHODS)
def test_weights_are_the_same_to_the_bit_after_probing(estimator: str, dtype: torch.dtype) -> None:
    language_model, loss = causal(dtype)
    before = memory(language_model.model)
    seen: list[bool] = []

    def watched() -> Tensor:
        seen.append(same(memory(language_model.model), before))
        return loss()

    tuner = FullParameter(language_model.model, watched, estimator, population=4, eps=1e-2)
    estimate = tuner.estimate()
    assert same(memory(language_model.model), before)
    assert estimate.weights
    # Every probe moved the model, and that it came back is not because nothing was lost on the way.
    assert not any(seen)
    assert len(seen) == tuner.evaluations == (4 if estimator == "spsa" else 6)
    assert tuner.point.residue_bytes > 0


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
@pytest.mark.parametrize("estimator", METHODS)
def test_the_model_is_probed_where_it_says_and_moved_along_what_it_probed(estimator: str, dtype: torch.dtype) -> None:
    """Across tensors of equal shape: a generator seeded anew for each would fail here, as in the released code."""
    model = Valley(dtype)
    start, eps, lr, seed = flat(model).double(), 1e-2, 0.05, 9
    probed: list[Tensor] = []

    def watched() -> Tensor:
        probed.append(flat(model))
        return model()

    tuner = FullParameter(model, watched, estimator, population=4, eps=eps, lr=lr, seed=seed, paper_scale=True)
    step = tuner.step()
    z = [direction(model, seed, 0, {k: 1.0}) for k in range(4)]
    if estimator == "spsa":
        expected = [z[0], -z[0], z[1], -z[1]]
    else:
        order = sorted(range(4), key=lambda k: step.losses[k] or 0.0)
        best = z[order[0]]
        v = best if estimator == "greedy" else (z[order[0]] + z[order[1]] - z[order[2]] - z[order[3]]) / 2
        expected = [*z, v, -v]
    assert len(probed) == len(expected)
    for weights, where in zip(probed, expected, strict=True):
        gap = torch.finfo(dtype).eps
        assert torch.allclose(weights.double(), (start + eps * where).to(dtype).double(), rtol=gap, atol=1e-15)
    moved = flat(model).double() - start
    if estimator == "spsa":
        wanted = -lr * (step.slopes[0] * z[0] + step.slopes[1] * z[1]) / 2
    else:
        wanted = -lr * step.slopes[0] * expected[-2]
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}.get(dtype, 0.05)  # 16 bits: rounded by chance
    assert (moved - wanted).norm() < tolerance * wanted.norm()
    same_shape = [part for part in moved[:1024].split(256)]
    for left, right in itertools.combinations(same_shape, 2):
        assert abs(nn.functional.cosine_similarity(left, right, 0)) < 4 / 16


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "t5", "bart", "mpnet", "albert"])
def test_models_of_every_kind_with_tied_weights_and_buffers(kind: str) -> None:
    """Tied weights are moved once, buffers never, and the loss is that of a plain forward read one by one."""
    language_model = zoo.language_model(kind)
    model: Any = language_model.model
    rows = zoo.sentence_rows(True) if language_model.kind == "encoder" else zoo.word_rows(language_model.kind)
    labels = torch.arange(len(rows.classes)) % 2
    loss = rows_loss(language_model, rows, labels, hinge, chunk_tokens=24)
    expected = hinge(read(rows, model(**rows.inputs))[None].float(), labels).mean()
    assert torch.allclose(loss(), expected, rtol=1e-4)
    before, start = memory(model), flat(model).double()
    buffers = [buffer.clone() for buffer in model.buffers()]
    tuner = FullParameter(model, loss, eps=1e-3, lr=1e-3, seed=3)
    tuner.estimate()
    assert same(memory(model), before)
    step = tuner.step()
    wanted = direction(model, 3, 0, {k: -1e-3 * weight for k, weight in step.weights.items()})
    assert tuner.point.dim == len(start) == len(wanted)
    assert torch.allclose(flat(model).double() - start, wanted, rtol=1e-2, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))


@pytest.mark.parametrize("reading", ["choices", "label sentences"])
def test_the_loss_follows_the_weights(reading: str) -> None:
    language_model = zoo.language_model("bert-encoder" if "sentences" in reading else "llama")
    rows = zoo.READINGS[reading](language_model.kind)
    labels = torch.zeros(len(rows.classes), dtype=torch.long)
    loss = rows_loss(language_model, rows, labels)
    for _ in range(2):
        expected = cross_entropy(read(rows, language_model.model(**rows.inputs))[None].float(), labels).mean()
        assert torch.allclose(loss(), expected, rtol=1e-4)
        with torch.no_grad():
            for parameter in language_model.model.parameters():
                parameter.mul_(1.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_takes_a_tenth_of_the_weights_at_most(dtype: torch.dtype) -> None:
    """At the papers' probe size and the usual weights (0.02); all that torch and Python hold beyond a plain loss."""
    config = transformers.LlamaConfig(
        vocab_size=zoo.VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    loss = rows_loss(LanguageModel(model, None, "causal", ""), zoo.word_rows("causal", (40,) * 6), LABELS)
    traced: list[tuple[int, int]] = []  # what numpy and Python hold, and the most that they held, as each loss is asked

    def watched() -> Tensor:
        traced.append(tracemalloc.get_traced_memory())
        return loss()

    tuner = FullParameter(model, watched, eps=1e-3, lr=1e-6, chunk=2**14)
    tuner.step()  # tables that are made once
    device = torch.device("cpu")
    weights = sum(parameter.nbytes for parameter in model.parameters())
    plain = peak_bytes(loss, device)
    traced.clear()
    tracemalloc.start()
    try:
        peak = peak_bytes(tuner.step, device)
    finally:
        tracemalloc.stop()
    held, passing = map(max, zip(*traced, strict=True))
    assert 0.02 * weights < tuner.point.residue_bytes < 0.06 * weights
    assert peak - plain + held < 0.08 * weights
    assert passing < plain < weights  # a chunk's noise is gone before the model runs
