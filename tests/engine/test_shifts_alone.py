"""Where answers run alone behind cached keys, where whole rows run, and what a shift costs in either case."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from models_zoo import NoTokenizer, attached, inputs_of, sequences, word_rows
from plain_reading import farthest
from shift_hooks import engine_of, hooked, made, names_of, random, size_of

from dfolora.engine import Rows
from dfolora.engine.shifts import ShiftEngine
from dfolora.models import adapter as adapters
from dfolora.models.load import LanguageModel


@pytest.mark.parametrize("name", ["gpt2", "llama", "falcon"])
@pytest.mark.parametrize("reading", ["words", "choices"])
def test_a_probe_costs_the_tokens_of_the_tails(name: str, reading: str) -> None:
    """K x tail tokens x blocks from the module's own on; of choices, tails are as long as the longest of a bucket."""
    adapter, rows = made(name, reading)
    names, depth = names_of(adapter), len(adapter.layers)
    engine = ShiftEngine(adapter, rows, 10**6)
    engine.look(names)
    padded = sum(bucket.layout.inputs["input_ids"].numel() for bucket in engine._buckets)
    assert (engine.token_layers, engine.forwards) == (padded * depth, len(engine._buckets))
    tokens = 0
    for bucket in engine._buckets:
        part = bucket.layout.rows
        sizes = [1] * part.count if part.targets is None else (part.targets >= 0).sum(1).tolist()
        tokens += part.count * max(sizes)
    assert tokens == 6 if reading == "words" else 8 < tokens < padded / 2
    for index, name_of in enumerate(names):
        engine.reset_counts()
        engine.shifted(name_of, random(5, 32))
        assert engine.token_layers == 5 * tokens * (depth - index)
        assert engine.forwards == len(engine._buckets)


@pytest.mark.parametrize("name", ["roberta", "gemma2"])
def test_whole_rows_cost_the_blocks_above(name: str) -> None:
    adapter, rows = made(name, "words")
    names, depth = names_of(adapter), len(adapter.layers)
    engine = engine_of(adapter, rows)
    padded = sum(bucket.layout.inputs["input_ids"].numel() for bucket in engine._buckets)
    for _ in range(2):  # the first look, which finds that tails cannot run alone, costs as much as all others
        engine.reset_counts()
        engine.look(names)
        assert engine.token_layers == padded * depth
        for index, at in enumerate(names):
            engine.reset_counts()
            engine.shifted(at, random(5, 32))
            assert engine.token_layers == 5 * padded * (depth - index)


def test_a_lower_module_after_a_higher_one() -> None:
    """The cached prefix of the higher one holds nothing that the lower one's shift would change."""
    adapter, rows = made("roberta", "words")
    names = names_of(adapter)
    engine = engine_of(adapter, rows)
    engine.look(names)
    shift = random(1, 32)
    for at in reversed(names):
        assert farthest(engine.shifted(at, shift)[0], hooked(adapter, rows, at, shift[0])[0]) < 1e-4


@pytest.mark.parametrize("names_asked", [slice(None), slice(2, None)])
def test_a_window_that_only_long_rows_reach_is_noticed(names_asked: slice) -> None:
    """Whole rows run for all, though the shortest bucket alone would read the same in tails."""
    adapter = attached("gemma2", targets=("o",))
    for layer in adapter.model.model.layers:
        layer.self_attn.sliding_window = 8
    adapter.model.config.sliding_window = 8
    rows = word_rows("causal", lengths=(5, 6, 24, 5, 23, 6))
    names = names_of(adapter)[names_asked]
    engine = engine_of(adapter, rows)
    engine.look(names)
    assert len(engine._buckets) > 1
    assert engine._alone is False
    shift = random(1, 32)
    expected, _ = hooked(adapter, rows, names[0], shift[0])
    assert farthest(engine.shifted(names[0], shift)[0], expected) < 2e-5 * size_of(expected)


def test_the_last_block_of_a_model_that_sees_both_ways_does_not_run_alone() -> None:
    """There the tails would read right, but what is cached depends on them."""
    adapter, rows = made("bert", "choices")
    engine = engine_of(adapter, rows)
    engine.look(names_of(adapter)[-1:])
    assert engine._alone is False


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_rows_as_long_as_the_model_allows(name: str) -> None:
    """A short answer at the end of the longest row is padded beyond the last position that the model has."""
    texts = sequences([64, 10, 63, 12])
    sizes = (1, 4, 2, 3)
    positions = [[len(text) - size + k for k in range(size)] for text, size in zip(texts, sizes, strict=True)]
    targets = torch.full((4, 4), -100)
    places = torch.zeros(4, 4, dtype=torch.long)
    for row, each in enumerate(positions):
        places[row, : len(each)] = torch.tensor(each)
        targets[row, : len(each)] = torch.arange(len(each)) + 7
    owner = torch.tensor([(0, 0), (0, 1), (1, 0), (1, 1)])
    rows = Rows(inputs_of(texts), places, owner, torch.tensor([2, 2]), targets=targets)
    adapter = attached(name, targets=("o",))
    engine = engine_of(adapter, rows, chunk_tokens=10**6)
    names = names_of(adapter)
    engine.look(names)
    assert engine._alone is True
    shift = random(1, 32)
    expected, _ = hooked(adapter, rows, names[0], shift[0])
    assert farthest(engine.shifted(names[0], shift)[0], expected) < 2e-5 * size_of(expected)


def test_bfloat16() -> None:
    """Tails run there, too, and scores are those of float32 up to what rounding does."""
    adapter = attached("llama", incumbents=False, targets=("o",))
    adapter.model.bfloat16()
    rows = word_rows("causal")
    names, shifts = names_of(adapter), random(4, 32)
    engine = engine_of(adapter, rows)
    look = engine.look(names)
    assert engine._alone is True
    assert look.inputs[names[0]].dtype == look.scores.dtype == torch.float32
    scores = {at: engine.shifted(at, shifts) for at in names}
    adapter.model.float()
    for at in names:
        expected = torch.stack([hooked(adapter, rows, at, shift)[0] for shift in shifts])
        assert farthest(scores[at], expected) < 0.05 * size_of(expected)
        assert farthest(expected, look.scores.expand_as(expected)) > 0.2 * size_of(expected)


def test_a_wide_window_runs_alone() -> None:
    """A model with a sliding window that no row reaches is as good as one without."""
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "sliding_window": 256, "vocab_size": 60,
    }  # fmt: skip
    torch.manual_seed(0)
    model = tf.MistralForCausalLM(tf.MistralConfig(**settings)).eval()
    adapter = adapters.attach(LanguageModel(model, NoTokenizer(), "causal", "mistral"), 4, ("o",))
    engine = engine_of(adapter, word_rows("causal"))
    engine.look(names_of(adapter))
    assert engine._alone is True
