"""The prompt once for all choices of an example: the scores of one row a choice, at the cost that is counted here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from models_zoo import ZOO, attached, candidates, choice_rows, inputs_of, padded, sequences, word_rows
from plain_reading import farthest, one_by_one, plain_scores, read, spread
from torch import nn

from dfolora.engine import Engine, Rows, Savings, SequentialEngine
from dfolora.engine.packing import model_inputs, share_prompts
from dfolora.methods.gradient import Gradient
from dfolora.models.adapter import Adapter
from dfolora.problems.objectives import cross_entropy

CAUSAL = [name for name, (kind, *_) in ZOO.items() if kind == "causal"]
WINDOWED = {"gemma3", "gemma2"}  # in the zoo four tokens see each other
BLOOM = ("causal", "BloomForCausalLM", "BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4})
WITHOUT = dataclasses.replace(Savings(), shared_prompt=False)


def story_rows(
    prompts: Sequence[int] = (20, 13, 13),
    answers: Sequence[Sequence[int]] = ((2, 1, 3), (1, 1), (4, 2, 2, 1)),
    classes: Sequence[Sequence[int]] = ((0, 1, 2), (0, 1), (0, 1, 1, 0)),
) -> Rows:
    """One row a choice: prompts of so many tokens, answers of so many, the classes that they speak for."""
    texts, positions, targets, owner = [], [], [], []
    for example, prompt in enumerate(sequences(list(prompts))):
        drawn = sequences(list(answers[example]), seed=10 + example)
        for answer, label in zip(drawn, classes[example], strict=True):
            texts.append(prompt + answer[:-1])
            positions.append([len(prompt) - 1 + k for k in range(len(answer))])
            targets.append(answer)
            owner.append((example, label))
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(5)).tolist()
    texts, positions, targets, owner = ([part[row] for row in order] for part in (texts, positions, targets, owner))
    count = torch.tensor([max(own) + 1 for own in classes])
    return Rows(inputs_of(texts), padded(positions, 0), torch.tensor(owner), count, targets=padded(targets, -100))


def agrees(adapter: Adapter, engine: Engine, rows: Rows, layer: int | None, population: int = 3) -> None:
    factors = candidates(adapter, layer, population)
    expected = one_by_one(adapter, rows, factors)
    error = farthest(engine.scores(factors), expected)
    assert error < 1e-4 * float(expected[expected.isfinite()].abs().max())
    assert spread(expected) > 100 * error


def cost(engine: Engine, layer: int | None, factors: Any) -> int:
    engine.scores(factors)
    engine.reset_counts()
    engine.scores(factors)
    return engine.token_layers


# -- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAUSAL)
def test_scores_are_those_of_one_row_a_choice(name: str) -> None:
    """Padding, length buckets, chunks, two choices for a class, adapters in all layers; found out by trying."""
    adapter, rows = attached(name), story_rows()
    engine = Engine(adapter, rows, chunk_tokens=100)
    assert engine.rows.count == (rows.count if name in WINDOWED else 3)
    assert len(engine._buckets) > 1
    for layer in (0, len(adapter.layers) - 1, None):
        agrees(adapter, engine, rows, layer)
    assert farthest(engine.incumbent_scores(), plain_scores(adapter, rows)) < 1e-4 * 20


@pytest.mark.parametrize("lever", Savings.names())
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_beside_every_other_saving(name: str, lever: str) -> None:
    adapter, rows = attached(name), story_rows()
    engine = Engine(adapter, rows, savings=dataclasses.replace(Savings(), **{lever: False}))
    assert engine.rows.count == (rows.count if lever == "shared_prompt" else 3)
    for layer in (1, 2, None):
        agrees(adapter, engine, rows, layer)


@pytest.mark.parametrize("chunk_tokens", [1, 30, 0])
def test_choices_over_several_rows(chunk_tokens: int) -> None:
    """Many choices behind a short prompt: attention over all of them would cost more than the prompt once more."""
    rows = story_rows((5, 9), ([3] * 40, [1, 2]), (range(40), (0, 1)))
    adapter = attached("gpt2")
    engine = Engine(adapter, rows, chunk_tokens)
    # sqrt(12 x 32 x 5 + 2 x 5 x 5) = 44 tokens, 22 choices; in chunks of 30 tokens 12 fit beside the prompt; 1 in 1.
    assert engine.rows.count == {0: 3, 30: 5, 1: 42}[chunk_tokens]
    for layer in (1, None):
        agrees(adapter, engine, rows, layer)


def test_some_examples() -> None:
    adapter, rows = attached("llama"), story_rows((5, 9, 7), ([3] * 40, [1, 2], [2, 2]), (range(40), (0, 1), (1, 0)))
    engine, examples = Engine(adapter, rows), torch.tensor([2, 0])
    assert engine.rows.count == 4
    for layer in (0, 2, None):
        factors = candidates(adapter, layer, 3)
        expected = one_by_one(adapter, rows, factors)[:, examples]
        assert farthest(engine.scores(factors, examples), expected) < 1e-3
        assert farthest(SequentialEngine(adapter, rows).scores(factors, examples), expected) < 1e-4


def test_choices_of_one_token_end_in_one_query() -> None:
    """They are all read at the prompt's last token, so the last block computes nothing else."""
    rows = story_rows((20, 13), ([1] * 5, [1] * 3), (range(5), range(3)))
    adapter = attached("qwen3")
    engine = Engine(adapter, rows)
    assert engine.rows.positions.tolist() == [[12], [19]] or engine.rows.positions.tolist() == [[19], [12]]
    assert engine.readout.last is engine.order.blocks[-1].module
    for layer in (0, 2, None):
        agrees(adapter, engine, rows, layer)


def test_gradients() -> None:
    """Back-propagation through packed rows, against that through a plain reading of the PEFT model."""
    adapter, rows, labels = attached("gpt2"), story_rows(), torch.tensor([1, 0, 1])
    engine = Gradient(adapter, rows, labels)
    assert engine.rows.count == 3
    factors = [part for layer in adapter.layers for m in layer.modules.values() for part in m.factors()]
    for factor in factors:
        factor.requires_grad_(True)
    expected = cross_entropy(read(rows, adapter.peft_model(**rows.inputs))[None], labels).mean(-1)
    expected.sum().backward()
    slopes = [factor.grad for factor in factors]
    for factor in factors:
        factor.grad = None
    loss = engine(cross_entropy)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    for factor, slope in zip(factors, slopes, strict=True):
        assert factor.grad is not None
        assert slope is not None
        assert slope.abs().max() > 1e-3
        assert torch.allclose(factor.grad, slope, atol=1e-4 * float(slope.abs().max()))
    assert engine.token_layers == 3 * 3 * sum(part.rows.inputs["input_ids"].numel() for part in engine.parts)


# -- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_prompt_is_computed_once(name: str) -> None:
    """Ten choices of three tokens behind forty: 40 + 10 x 2 tokens a candidate and example instead of 10 x 42."""
    rows = story_rows([40] * 4, [[3] * 10] * 4, [range(10)] * 4)
    adapter = attached(name)
    packed, single = Engine(adapter, rows), Engine(adapter, rows, savings=WITHOUT)
    for layer, blocks in ((0, 3), (2, 1), (None, 3)):
        factors = candidates(adapter, layer, 4)
        assert cost(packed, layer, factors) == 4 * blocks * 4 * 60
        assert cost(single, layer, factors) == 4 * blocks * 4 * 420


def test_each_place_reaches_the_head_once() -> None:
    """Behind the prompt all choices begin: its last token is one place, not ten."""
    rows = story_rows((20, 13), ([3] * 10, [2, 1]), (range(10), (0, 1)))
    adapter, seen = attached("gpt2"), []
    engine = Engine(adapter, rows, chunk_tokens=64)  # two buckets: the short row is not padded to 21 places
    handle = adapter.model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: seen.append(args[0].shape[:2].numel())
    )
    engine.incumbent_scores()
    handle.remove()
    assert sorted(seen) == [2, 21]


def test_what_is_measured_on_the_batch_does_not_change() -> None:
    """Subspaces take their directions from the tokens of one row a choice, whichever engine scores."""
    adapter, rows = attached("llama"), story_rows()
    packed, single = Engine(adapter, rows), Engine(adapter, rows, savings=WITHOUT)
    assert packed.rows.count < single.rows.count
    for one, other in zip(packed.batches, single.batches, strict=True):
        assert all(torch.equal(tensor, other.inputs[name]) for name, tensor in one.inputs.items())


# -- packing by hand -------------------------------------------------------------------------------------------------


def test_a_packed_row_by_hand() -> None:
    texts = [[7, 8, 9, 30, 31], [7, 8, 9], [7, 8, 9, 40], [50, 51]]
    positions, targets = [[2, 3, 4], [2], [2, 3], [1]], [[30, 31, 32], [33], [40, 41], [52]]
    rows = Rows(
        inputs_of(texts), padded(positions, 0), torch.tensor([(0, 0), (0, 1), (0, 0), (1, 0)]), torch.tensor([2, 1]),
        targets=padded(targets, -100),
    )  # fmt: skip
    packed = share_prompts(rows, 32, 99)
    assert packed.inputs["input_ids"].tolist() == [[7, 8, 9, 30, 31, 40], [50, 51, 0, 0, 0, 0]]
    assert packed.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 0, 0, 0, 0]]
    assert packed.inputs["segments"].tolist() == [[0, 0, 0, 1, 1, 3], [0, 0, -1, -1, -1, -1]]
    assert packed.lengths.tolist() == [6, 2]
    assert packed.positions.tolist() == [[2, 3, 4, 5], [1, 0, 0, 0]]
    assert packed.targets is not None
    assert packed.targets.tolist() == [[30, 31, 32, 33, 40, 41], [52, *[-100] * 5]]
    assert packed.choices is not None
    assert packed.choices.at.tolist() == [[0, 1, 2, 0, 0, 3], [0] * 6]
    assert packed.choices.choice.tolist() == [[0, 0, 0, 1, 2, 2], [0] * 6]
    assert packed.choices.classes.tolist() == [[0, 1, 0], [0, -1, -1]]
    mask = model_inputs(packed.inputs, torch.float32)["attention_mask"]
    assert mask.shape == (2, 1, 6, 6)
    assert (mask[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert (mask[1, 0, :2, 2:] < -1e30).all()
    # The best choice of a class counts; the mean is over a choice's own tokens.
    readings = torch.tensor([[[-3.0, -2.0, -1.0], [-5.0, 0.0, 0.0]]])
    assert packed.assemble(readings).tolist() == [[[-1.0, -2.0], [-5.0, -torch.inf]]]


# -- where it cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(WINDOWED))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_window_is_no_matter_until_a_text_is_longer(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token less to see is little beside the rounding of bfloat16, and is found all the same."""
    rows = story_rows()  # longest text of one choice: 22
    for window, count in ((22, 3), (21, rows.count)):
        monkeypatch.setitem(ZOO, name, (*ZOO[name][:3], {**ZOO[name][3], "sliding_window": window}))
        adapter = attached(name, incumbents=dtype == torch.float32)
        adapter.model.to(dtype)
        engine = Engine(adapter, rows)
        assert engine.rows.count == count, window
        if dtype == torch.float32:
            agrees(adapter, engine, rows, 1)


def test_a_window_in_a_layer_without_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "gemma3", (*ZOO["gemma3"][:3], {**ZOO["gemma3"][3], "sliding_window": 21}))
    adapter = attached("gemma3", incumbents=False, targets=("layers.1.self_attn.q_proj",))  # sees everything
    adapter.model.bfloat16()
    assert len(adapter.layers) == 1
    assert Engine(adapter, story_rows()).rows.count == 9


def test_a_bias_by_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "bloom", BLOOM)
    adapter, rows = attached("bloom"), story_rows()
    engine = Engine(adapter, rows)
    assert engine.rows is engine.single_rows
    agrees(adapter, engine, rows, 1)


def test_a_model_that_numbers_its_tokens_itself() -> None:
    adapter, rows = attached("gpt2"), story_rows()
    forward = adapter.model.forward

    def refuses(position_ids: None = None, **inputs: Any) -> Any:
        if position_ids is not None:
            raise TypeError("forward() got an unexpected keyword argument 'position_ids'")
        return forward(**inputs)

    def ignores(position_ids: Any = None, **inputs: Any) -> Any:
        return forward(**inputs)

    for other in (refuses, ignores):
        adapter.model.forward = other
        assert Engine(adapter, rows).rows.count == rows.count
    adapter.model.forward = forward
    assert Engine(adapter, rows).rows.count == 3


def test_attention_that_looks_at_all_there_is() -> None:
    """A model that leaves the mask alone lets choices see each other."""
    adapter, rows = attached("llama"), story_rows()
    forward = adapter.model.forward

    def careless(attention_mask: torch.Tensor, **inputs: Any) -> Any:
        mask = attention_mask if attention_mask.dim() == 2 else None
        return forward(attention_mask=mask, **inputs)

    adapter.model.forward = careless
    assert Engine(adapter, rows).rows.count == rows.count


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_ready_masks_are_added(implementation: str) -> None:
    adapter, rows = attached("llama"), story_rows()
    adapter.model.set_attn_implementation(implementation)
    engine = Engine(adapter, rows)
    assert engine.rows.count == 3
    agrees(adapter, engine, rows, 1)


@pytest.mark.parametrize(("name", "rows"), [("roberta", choice_rows("masked")), ("t5", choice_rows("seq2seq"))])
def test_other_kinds_stay(name: str, rows: Rows) -> None:
    same = dataclasses.replace(rows, inputs={**rows.inputs, "input_ids": torch.full_like(rows.inputs["input_ids"], 9)})
    assert Engine(attached(name), same).rows.count == rows.count


def test_nothing_to_share_stays_as_it_is() -> None:
    for rows in (word_rows("causal"), choice_rows("causal")):
        engine = Engine(attached("gpt2"), rows)
        assert engine.rows is engine.single_rows


def test_bfloat16() -> None:
    adapter, rows = attached("llama", incumbents=False), story_rows()
    adapter.model.bfloat16()
    factors = {key: (a.bfloat16(), b.bfloat16()) for key, (a, b) in candidates(adapter, 1, 3).items()}
    engine = Engine(adapter, rows)
    scores = engine.scores(factors)
    assert engine.rows.count == 3
    adapter.model.float()
    expected = one_by_one(adapter, rows, {key: (a.float(), b.float()) for key, (a, b) in factors.items()})
    assert farthest(scores, expected) < 0.05 * float(expected[expected.isfinite()].abs().max())
    assert not any("forward" in module.__dict__ for module in adapter.model.modules() if isinstance(module, nn.Module))
