"""The prefix cache: what it costs, when it is thrown away, and that nothing of the patching stays behind."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from models_zoo import ZOO, attached, candidates, sentence_rows, word_rows
from plain_reading import farthest, one_by_one, plain_scores

from dfolora.engine import Engine, Rows
from dfolora.engine.patch import patched
from dfolora.models.adapter import Adapter

NAMES = ["roberta", "modernbert", "gpt2", "gemma3", "t5", "bart", "mpnet", "albert"]


def rows_of(name: str) -> Rows:
    return sentence_rows(False) if ZOO[name][0] == "encoder" else word_rows(ZOO[name][0])


def padded_tokens(engine: Engine) -> int:
    return sum(bucket.layout.inputs["input_ids"].numel() for bucket in engine._buckets)


def cost(engine: Engine, run: Any) -> int:
    before = engine.token_layers
    run()
    return engine.token_layers - before


def leftovers(adapter: Adapter) -> list[str]:
    return [name for name, module in adapter.peft_model.named_modules() if "forward" in module.__dict__]


@pytest.mark.parametrize("name", ["roberta", "gpt2", "mpnet"])
def test_an_ascending_sweep_costs_the_blocks_above(name: str) -> None:
    adapter = attached(name)
    engine = Engine(adapter, rows_of(name))
    tokens, depth, population = padded_tokens(engine), 3, 4
    assert engine.token_layers == 0
    for layer in range(depth):
        factors = candidates(adapter, layer, population)
        advance = 0 if layer == 0 else tokens  # one more block, once, on plain rows
        resumed = population * tokens * (depth - layer)
        assert cost(engine, lambda f=factors, at=layer: engine.scores(f)) == advance + resumed
        # A second generation of the same layer finds the prefix where it needs it.
        assert cost(engine, lambda f=factors, at=layer: engine.scores(f)) == resumed
        adapter.write(layer, candidates(adapter, layer, 1, seed=50 + layer))
    assert cost(engine, lambda: engine.scores(candidates(adapter, None, population))) == population * tokens * depth
    assert cost(engine, engine.incumbent_scores) == tokens * depth
    engine.reset_counts()
    assert (engine.token_layers, engine.forwards) == (0, 0)


def test_a_second_sweep_starts_over() -> None:
    adapter = attached("roberta")
    engine = Engine(adapter, word_rows("masked"))
    tokens = padded_tokens(engine)
    top, bottom = candidates(adapter, 2, 2), candidates(adapter, 0, 2)
    assert cost(engine, lambda: engine.scores(top)) == tokens * 2 + 2 * tokens
    assert cost(engine, lambda: engine.scores(bottom)) == 2 * tokens * 3
    assert cost(engine, lambda: engine.scores(top)) == tokens * 2 + 2 * tokens  # descended: nothing kept
    assert cost(engine, lambda: engine.scores(top)) == 2 * tokens


def test_encoder_and_decoder_tokens_are_counted_apart() -> None:
    adapter = attached("t5")
    rows = word_rows("seq2seq")
    engine = Engine(adapter, rows)
    encoder, decoder = padded_tokens(engine), rows.inputs["decoder_input_ids"].numel()
    assert cost(engine, lambda: engine.scores(candidates(adapter, 0, 3))) == 3 * (2 * encoder + 2 * decoder)
    assert cost(engine, lambda: engine.scores(candidates(adapter, 3, 3))) == 2 * encoder + decoder + 3 * decoder


def test_shared_weights_run_whole() -> None:
    adapter = attached("albert")
    engine = Engine(adapter, word_rows("masked"))
    assert not engine.order.resumable
    assert cost(engine, lambda: engine.scores(candidates(adapter, 0, 3))) == 3 * padded_tokens(engine) * 3


@pytest.mark.parametrize("name", NAMES)
def test_writing_below_invalidates(name: str) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows)
    top = len(adapter.layers) - 1
    factors = candidates(adapter, top, 3)
    before = engine.scores(factors)
    assert farthest(before, engine.scores(factors)) == 0
    for layer in range(top):
        adapter.write(layer, candidates(adapter, layer, 1, seed=70 + layer, size=0.6))
        after = engine.scores(factors)
        expected = one_by_one(adapter, rows, factors)
        assert farthest(after, expected) < 1e-4 * float(expected[expected.isfinite()].abs().max())
        assert farthest(after, before) > 3 * farthest(after, expected)
        before = after
    if top:
        adapter.clear()
        assert farthest(engine.scores(factors), one_by_one(adapter, rows, factors)) < 1e-4 * 20
        assert farthest(engine.scores(factors), before) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_layers_in_random_order_with_writes(name: str) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows, chunk_tokens=100)
    draw = random.Random(4)
    for step in range(8):
        layer = draw.choice([*range(len(adapter.layers)), None])
        factors = candidates(adapter, layer, 2, seed=step)
        expected = one_by_one(adapter, rows, factors)
        assert farthest(engine.scores(factors), expected) < 1e-4 * float(expected[expected.isfinite()].abs().max())
        if layer is not None and draw.random() < 0.6:
            adapter.write(layer, candidates(adapter, layer, 1, seed=step + 20))


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_was(name: str) -> None:
    adapter, rows = attached(name), rows_of(name)
    before = plain_scores(adapter, rows)
    state = {key: value.clone() for key, value in adapter.peft_model.state_dict().items()}
    engine = Engine(adapter, rows)
    for layer in (len(adapter.layers) - 1, 0, None):
        engine.scores(candidates(adapter, layer, 2))
    assert leftovers(adapter) == []
    assert farthest(plain_scores(adapter, rows), before) == 0
    assert all(torch.equal(value, state[key]) for key, value in adapter.peft_model.state_dict().items())


@pytest.mark.parametrize("name", ["roberta", "gpt2", "t5", "mpnet"])
@pytest.mark.parametrize("layer", [1, None])
def test_an_exception_inside_a_forward_leaves_no_trace(name: str, layer: int | None) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows)
    before = plain_scores(adapter, rows)
    factors = candidates(adapter, layer, 2)
    expected = engine.scores(factors)
    adapter.write(0, adapter.read(0))  # so that the prefix has to be computed again

    def fail(*_: Any) -> None:
        raise RuntimeError("the lights went out")

    for place in (adapter.layers[0].name, adapter.layers[-1].name):
        handle = adapter.model.get_submodule(place).register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="lights"):
            engine.incumbent_scores()
        with pytest.raises(RuntimeError, match="lights"):
            engine.scores(factors)
        handle.remove()
        assert leftovers(adapter) == []
    assert farthest(plain_scores(adapter, rows), before) == 0
    assert farthest(engine.scores(factors), expected) == 0


def test_patched_puts_back_what_was_there() -> None:
    module = torch.nn.Linear(1, 1)
    module.forward = own = lambda x: x + 1  # type: ignore[method-assign,assignment]

    def fail() -> None:
        with patched([(module, lambda x: x), (module, lambda x: x * 2)]):
            assert module(torch.tensor(3.0)) == 6
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert module.__dict__["forward"] is own
