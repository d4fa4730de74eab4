"""Every saving can be switched off, saves what it says, and changes no score."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from models_zoo import ZOO, attached, candidates, sentence_rows, word_rows
from plain_reading import farthest, one_by_one
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dfolora.engine import Engine, Rows, Savings, SequentialEngine, memory
from dfolora.engine.patch import patched

NAMES = ["roberta", "gpt2", "llama", "t5", "mpnet"]
PADDED = Savings(padding_free=False)
SDPA = ["roberta", "bert", "distilbert", "gpt2", "opt", "llama", "qwen3"]


def rows_of(name: str, lengths: tuple[int, ...] = (12, 7, 9, 5, 12, 10)) -> Rows:
    return sentence_rows(False) if ZOO[name][0] == "encoder" else word_rows(ZOO[name][0], lengths)


def operations(engine: Engine, layer: int, factors: Any) -> int:
    engine.scores(factors)  # what is found out at the first time is no part of it
    with FlopCounterMode(display=False) as counter:
        engine.scores(factors)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lever", Savings.names())
def test_scores_stay_without_it(name: str, lever: str) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = Engine(adapter, rows, savings=dataclasses.replace(Savings(), **{lever: False}))
    for layer in (0, 2, None):
        factors = candidates(adapter, layer, 3)
        expected = one_by_one(adapter, rows, factors)
        assert farthest(engine.scores(factors), expected) < 1e-4 * float(expected[expected.isfinite()].abs().max())


@pytest.mark.parametrize("lever", ["prefix", "shared", "label_columns", "last_block", "buckets", "padding_free"])
def test_it_saves_operations(lever: str) -> None:
    adapter, rows = attached("roberta"), rows_of("roberta")
    factors = candidates(adapter, 1, 4)
    savings = Savings(padding_free=lever != "buckets")  # without padding there is nothing left for buckets to save
    with_it = operations(Engine(adapter, rows, chunk_tokens=100, savings=savings), 1, factors)
    without = dataclasses.replace(savings, **{lever: False})
    assert with_it < 0.99 * operations(Engine(adapter, rows, chunk_tokens=100, savings=without), 1, factors)


def test_a_batch_without_padding_runs_without_a_mask() -> None:
    adapter = attached("roberta")
    seen: list[bool] = []
    adapter.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append("attention_mask" in kwargs), with_kwargs=True
    )
    for lengths, savings, expected in (
        ((8, 8, 8), Savings(), False),
        ((8, 8, 8), Savings(no_mask=False), True),
        ((8, 7, 8), Savings(buckets=False), True),
    ):
        engine = Engine(adapter, rows_of("roberta", lengths), savings=savings)
        engine.scores(candidates(adapter, 1, 2))  # looks for what can be shared, once
        seen.clear()
        engine.scores(candidates(adapter, 1, 2))
        assert set(seen) == {expected}


@pytest.mark.parametrize("name", SDPA)
def test_the_last_block_asks_for_the_answer_only(name: str) -> None:
    adapter = attached(name)
    engine = Engine(adapter, rows_of(name))
    assert engine.readout.last is engine.order.blocks[-1].module
    own = {name.rsplit(".", 1)[-1]: module.lora for name, module in adapter.layers[-1].modules.items()}
    unread = {name for name, lora in own.items() if lora in engine.readout.unread}
    # A key is read at every position; GPT-2's fused projection holds it.
    assert unread == {name for name in own if name in ("query", "q_proj", "q_lin")}


@pytest.mark.parametrize("name", SDPA)
def test_the_last_attention_has_one_query(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = attached(name)
    engine = Engine(adapter, rows_of(name), chunk_tokens=10_000, savings=PADDED)
    factors, queries = candidates(adapter, 0, 2), []
    plain = torch.nn.functional.scaled_dot_product_attention

    def look(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        queries.append(query.shape[2])
        return plain(query, *args, **kwargs)

    engine.scores(factors)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", look)
    engine.scores(factors)
    depth = len(engine.order.blocks)
    last = queries[depth - 1 :: depth]
    config = adapter.model.config
    # transformers lays the heads that share a key side by side as queries where there is one query only.
    groups = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    assert set(last) <= {1, groups}
    assert max(queries[: depth - 1]) > 1


@pytest.mark.parametrize("padding_free", [False, True])
def test_attention_functions_are_put_back(padding_free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = attached("roberta")
    engine = Engine(adapter, rows_of("roberta"), savings=Savings(padding_free=padding_free))
    factors = candidates(adapter, 0, 2)
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    engine.scores(factors)
    assert "sdpa" not in ALL_ATTENTION_FUNCTIONS._local_mapping
    calls = []
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", lambda *a, **k: (calls.append(1), own(*a, **k))[1])
    users = ALL_ATTENTION_FUNCTIONS["sdpa"]
    engine.scores(factors)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is users
    assert bool(calls) is not padding_free  # which has an attention of its own


def test_poison_is_seen_where_it_is_read() -> None:
    """The check that lets the query go: NaN at other rows of the key or the value reaches the answer."""
    adapter = attached("roberta")
    engine = Engine(adapter, rows_of("roberta"))
    readout, sample = engine.readout, word_rows("masked")
    attention = adapter.model.get_submodule(adapter.layers[-1].name).attention.self
    for name, harmless in (("query", True), ("key", False), ("value", False)):
        module = getattr(attention, name)
        with torch.inference_mode():
            assert readout.agrees(sample, [(module, readout._poisoned(sample, module))]) is harmless, name


@pytest.mark.parametrize("name", ["roberta", "gpt2", "llama", "bert-encoder"])
def test_a_resumed_run_makes_no_embeddings(name: str) -> None:
    adapter = attached(name)
    engine = Engine(adapter, rows_of(name))
    assert engine.order.skip_stem
    calls: list[int] = []

    def count(module: Any) -> tuple[Any, Any]:
        forward = module.forward
        return module, lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1]

    embeddings = adapter.model.get_input_embeddings()
    factors = candidates(adapter, 1, 2)
    engine.scores(factors)
    with patched([count(embeddings)]):
        engine.scores(factors)
        assert not calls
        engine.scores(candidates(adapter, 0, 2))
        assert calls


@pytest.mark.parametrize("name", ["roberta", "gpt2", "t5", "bert-encoder", "albert"])
def test_one_at_a_time(name: str) -> None:
    adapter, rows = attached(name), rows_of(name)
    engine = SequentialEngine(adapter, rows)
    before = [part.clone() for layer in adapter.layers for m in layer.modules.values() for part in m.factors()]
    for layer in (1, None) if len(adapter.layers) > 1 else (0, None):
        factors = candidates(adapter, layer, 3)
        assert farthest(engine.scores(factors), one_by_one(adapter, rows, factors)) < 1e-5
    after = [part for layer in adapter.layers for m in layer.modules.values() for part in m.factors()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert engine.forwards == 6
    assert farthest(engine.incumbent_scores(), Engine(adapter, rows).incumbent_scores()) < 1e-4


def test_a_short_memory_makes_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = attached("roberta")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1 << 40)
    assert Engine(adapter, rows_of("roberta")).chunk_tokens == 2048
    per_token = memory.bytes_per_token(adapter.model)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000 * per_token)
    assert Engine(adapter, rows_of("roberta")).chunk_tokens == 600
    assert Engine(adapter, rows_of("roberta"), chunk_tokens=5000).chunk_tokens == 5000
