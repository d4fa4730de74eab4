"""Shifting a module's output where answers are read: against hooks on the plain model, in whole rows and in tails."""

from __future__ import annotations

import pytest
import torch
from models_zoo import ZOO, attached, candidates, cases, choice_rows, sentence_rows, word_rows
from plain_reading import farthest, plain_scores
from shift_hooks import engine_of, hooked, made, names_of, random, read_at, size_of

from dfolora.engine import Rows
from dfolora.errors import UserError

ALONE = ["gpt2", "gpt_neox", "opt", "llama", "qwen3", "phi3", "falcon"]  # whose answers run behind cached keys
WHOLE = ["roberta", "gemma2", "gemma3", "t5", "mpnet"]
SOME = ["bert", "albert", "gpt2", "opt", "gemma3", "bart", "mpnet"]


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
            assert (at in look.spreads) == bool((where.sum(1) > 1).any())
            if at in look.spreads:
                within = [torch.cov(x[places].T, correction=0) for x, places in zip(inputs, where > 0, strict=True)]
                expected = torch.stack(within).mean(0)
                assert farthest(look.spreads[at], expected) < 1e-4 * size_of(expected)


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
