"""Shifting a module's output where answers are read: against hooks on the plain model, in whole rows and in tails."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers as tf
from models_zoo import (
    READINGS,
    ZOO,
    NoTokenizer,
    attached,
    candidates,
    cases,
    choice_rows,
    inputs_of,
    sentence_rows,
    sequences,
    word_rows,
)
from plain_reading import farthest, plain_scores
from torch import Tensor

from dfolora.engine import Rows
from dfolora.engine.shifts import ShiftEngine
from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter
from dfolora.models.load import LanguageModel

ALONE = ["gpt2", "gpt_neox", "opt", "llama", "qwen3", "phi3", "falcon"]  # whose answers run behind cached keys
WHOLE = ["roberta", "gemma2", "gemma3", "t5", "mpnet"]
SOME = ["bert", "albert", "gpt2", "opt", "gemma3", "bart", "mpnet"]


@cache
def made(name: str, reading: str) -> tuple[Adapter, Rows]:
    """A model with incumbents that matter and rows for it; nobody changes them."""
    return attached(name, targets=("o",)), READINGS[reading](ZOO[name][0])


def names_of(adapter: Adapter) -> list[str]:
    """The modules that run over the tokens that are read: of a decoder, where there are two stacks."""
    names = [name for layer in adapter.layers for name in layer.modules]
    return [name for name in names if ".decoder." in f".{name}"] or names


def engine_of(adapter: Adapter, rows: Rows, alone: bool | None = None, chunk_tokens: int = 70) -> ShiftEngine:
    """An engine with several buckets; ``alone`` False: whole rows run."""
    engine = ShiftEngine(adapter, rows, chunk_tokens)
    if alone is not None:
        engine._alone = alone
    return engine


def read_at(rows: Rows) -> Tensor:
    """(R, T) bool: the tokens that are read, row by row."""
    inputs = rows.inputs
    mask = inputs["attention_mask"].bool()
    if rows.sentences:
        return mask
    there = torch.zeros_like(inputs.get("decoder_input_ids", mask), dtype=torch.bool)
    for row in range(rows.count):
        for column in range(rows.positions.shape[1]):
            if rows.targets is None or rows.targets[row, column] >= 0:
                there[row, rows.positions[row, column]] = True
    return there


def hooked(adapter: Adapter, rows: Rows, name: str, shift: Tensor, chosen: Tensor | None = None) -> tuple[Any, Any]:
    """Plain scores with a vector added to a module's output by a hook, and what entered and left the module before."""
    where = read_at(rows)
    if chosen is not None:
        where = where & chosen[:, None]
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(_: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append((given[0].detach(), output.detach()))
        return output + shift * where[..., None]

    handle = adapter.model.get_submodule(name).register_forward_hook(hook)
    try:
        return plain_scores(adapter, rows), seen
    finally:
        handle.remove()


def random(*size: int, seed: int = 5) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def size_of(scores: Tensor) -> float:
    return float(scores[scores.isfinite()].abs().max())


@pytest.mark.parametrize(("name", "reading"), cases())
def test_a_shift_is_a_bias_where_answers_are_read(name: str, reading: str) -> None:
    """Scores, inputs and lengths against hooks; lower, upper and lower module again; tails against whole rows."""
    adapter, rows = made(name, reading)
    names = names_of(adapter)
    engine = engine_of(adapter, rows)
    assert len(engine._buckets) > 1
    look = engine.look(names)
    assert look.scores.dtype == torch.float32
    plain = plain_scores(adapter, rows)
    assert farthest(look.scores, plain) < 1e-5 * size_of(plain)
    assert engine._alone == (name in ALONE)
    assert bool(engine._tails) == engine._alone
    whole = engine_of(adapter, rows, alone=False)
    whole.look(names)
    shifts = torch.cat([random(2, 32), torch.zeros(1, 32)])
    for at in dict.fromkeys((names[0], names[-1], names[len(names) // 2])):
        scores = engine.shifted(at, shifts)
        assert scores.shape == (3, *plain.shape)
        for p in range(2):
            expected, seen = hooked(adapter, rows, at, shifts[p])
            assert farthest(scores[p], expected) < 2e-5 * size_of(expected)
            assert farthest(scores[p], plain) > 1e-3
        assert farthest(scores[2], plain) < 1e-5 * size_of(plain)
        assert farthest(whole.shifted(at, shifts), scores) < 1e-5 * size_of(scores)
        if len(seen) == 1:  # ALBERT's runs three times, each time with the shift before in its input
            where = read_at(rows).float()
            shares = (where / where.sum(1, keepdim=True))[..., None]
            (inputs, outputs), *_ = seen
            assert farthest(look.inputs[at], (inputs * shares).sum(1)) < 1e-5 * size_of(inputs)
            lengths = (outputs.norm(dim=-1, keepdim=True) * shares).sum(1).mean()
            assert look.outputs[at] == pytest.approx(float(lengths), rel=1e-4)


def test_inputs_of_a_module_that_runs_several_times_are_their_mean() -> None:
    adapter, rows = made("albert", "words")
    (name,) = names_of(adapter)
    look = engine_of(adapter, rows).look([name])
    _, seen = hooked(adapter, rows, name, torch.zeros(32))
    assert len(seen) == 3
    where = read_at(rows)
    expected = torch.stack([inputs[where] for inputs, _ in seen]).mean(0)
    assert (look.inputs[name] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", SOME)
def test_only_chosen_rows_are_shifted(name: str) -> None:
    reading = "choice sentences" if ZOO[name][0] == "encoder" else "choices"
    adapter, rows = made(name, reading)
    names = names_of(adapter)
    engine = engine_of(adapter, rows)
    look = engine.look(names)
    chosen = torch.arange(rows.count) % 3 == 1
    shift = random(1, 32)
    expected, _ = hooked(adapter, rows, names[0], shift[0], chosen)
    scores = engine.shifted(names[0], shift, chosen)[0]
    assert farthest(scores, expected) < 2e-5 * size_of(expected)
    assert farthest(engine.shifted(names[0], shift)[0], expected) > 1e-3
    none = engine.shifted(names[0], shift, torch.zeros(rows.count, dtype=torch.bool))[0]
    assert farthest(none, look.scores) == 0


@pytest.mark.parametrize("name", ["gpt2", "roberta", "t5"])
def test_chunks_do_not_matter(name: str) -> None:
    adapter, rows = made(name, "choices")
    at, shifts = names_of(adapter)[0], random(7, 32)
    scores = []
    for chunk_tokens in (1, 60, 0):
        engine = engine_of(adapter, rows, chunk_tokens=chunk_tokens)
        engine.look([at])
        scores.append(engine.shifted(at, shifts))
    assert farthest(scores[0], scores[2]) < 1e-5 * size_of(scores[0])
    assert farthest(scores[1], scores[2]) < 1e-5 * size_of(scores[0])


# -- the slopes of a small update -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "t5", "roberta", "bert-encoder"])
def test_shifts_and_inputs_say_what_a_small_update_does(name: str) -> None:
    """q a' of the last module: the scores change as for q itself, times a . x of each row."""
    adapter = attached(name, incumbents=False, targets=("o",))
    rows = sentence_rows(True, "cls") if name == "bert-encoder" else word_rows(ZOO[name][0])
    at = names_of(adapter)[-1]
    layer = next(index for index, each in enumerate(adapter.layers) if at in each.modules)
    engine = engine_of(adapter, rows)
    look = engine.look([at])
    q, a = random(32, seed=1), random(32, seed=2)
    step, size = 5e-3, 5e-4
    predicted = torch.zeros_like(look.scores)
    for rows_of in engine.row_of_score:
        chosen = torch.zeros(rows.count, dtype=torch.bool)
        chosen[rows_of[rows_of >= 0]] = True
        both = [engine.shifted(at, sign * step * q[None], chosen)[0] for sign in (1, -1)]
        slopes = (both[0] - both[1]).double() / (2 * step)
        predicted += (slopes * (look.inputs[at] @ a)[rows_of.clamp(min=0)] * size).masked_fill(rows_of < 0, 0.0)
    a_side, b_side = adapter.read(layer)[at]
    a_side[0, 0], b_side[0, :, 0] = size * a, q
    adapter.write(layer, {at: (a_side, b_side)})
    changed = plain_scores(adapter, rows) - look.scores
    assert float(changed.abs().max()) > 1e-4
    assert farthest(predicted, changed) < 0.03 * float(changed.abs().max())


# -- where tails run --------------------------------------------------------------------------------------------------


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


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_look_comes_before_and_after_every_move() -> None:
    adapter, rows = attached("gpt2", targets=("o",)), word_rows("causal")
    at = names_of(adapter)[0]
    engine = engine_of(adapter, rows)
    with pytest.raises(AssertionError, match="look comes first"):
        engine.shifted(at, random(1, 32))
    engine.look([at])
    before = engine.shifted(at, random(1, 32))
    adapter.write(1, candidates(adapter, 1, 1, seed=9))
    with pytest.raises(AssertionError, match="look comes first"):
        engine.shifted(at, random(1, 32))
    engine.look([at])
    after = engine.shifted(at, random(1, 32))
    assert farthest(after, before) > 1e-3
    assert farthest(after[0], hooked(adapter, rows, at, random(1, 32)[0])[0]) < 1e-4


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_s_module_is_refused_in_one_line(name: str) -> None:
    adapter, rows = attached(name, targets=("o",)), word_rows("seq2seq")
    encoder = [each for layer in adapter.layers for each in layer.modules if ".decoder." not in f".{each}"]
    with pytest.raises(UserError, match="^target: an adapted module does not run over the tokens"):
        engine_of(adapter, rows).look(encoder)


def test_nothing_of_the_patching_stays() -> None:
    for name in ("gpt2", "roberta", "gemma2"):
        adapter, rows = attached(name, targets=("o",)), word_rows(ZOO[name][0])
        before = plain_scores(adapter, rows)
        engine = engine_of(adapter, rows)
        names = names_of(adapter)
        engine.look(names)
        engine.shifted(names[1], random(2, 32))
        assert [each for each, module in adapter.peft_model.named_modules() if "forward" in module.__dict__] == []
        assert farthest(plain_scores(adapter, rows), before) == 0


# -- which row a score is read from -----------------------------------------------------------------------------------


def test_the_row_of_every_score() -> None:
    def rows_of_scores(rows: Rows, name: str) -> list[list[list[int]]]:
        return [part.tolist() for part in engine_of(made(name, reading)[0], rows).row_of_score]

    reading = "words"
    rows = word_rows("causal")
    order = rows.owner[:, 0].tolist()
    own, label = rows_of_scores(rows, "gpt2")
    assert own == [[order.index(example)] * 3 for example in range(6)]
    assert label == [[-1] * 3] * 6
    # owner = (1, 2), (0, 0), (2, 0), (0, 1), (1, 0), (2, 1), (1, 1), (2, 0): the first of two rows stands for a class
    own, label = rows_of_scores(choice_rows("causal"), "gpt2")
    assert own == [[1, 3, -1], [4, 6, 0], [2, 5, -1]]
    assert label == [[-1] * 3] * 3
    reading = "label sentences"
    own, label = rows_of_scores(sentence_rows(True), "mpnet")  # owner = (-1, 1), (2, -1), (0, -1), (-1, 0), (1, -1)
    assert own == [[2, 2], [4, 4], [1, 1]]
    assert label == [[3, 0]] * 3
    own, label = rows_of_scores(sentence_rows(False), "mpnet")
    assert own == [[6, 6, 6], [0, 0, 0], [3, 3, 3]]
    assert label == [[2, 4, -1], [5, 8, 1], [9, 7, -1]]


# -- lower precision --------------------------------------------------------------------------------------------------


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
