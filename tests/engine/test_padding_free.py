"""Tokens as rows of their own: which models can, what it costs, and that those which cannot are found out."""

from __future__ import annotations

import itertools

import pytest
import torch
from models_zoo import READINGS, ZOO, attached, candidates, cases, word_rows
from plain_reading import farthest, one_by_one
from test_hard_cases import other
from torch._subclasses import FakeTensorMode

from dfolora.engine import Engine, Rows, Savings
from dfolora.engine.padding_free import PaddingFree
from dfolora.models.adapter import Adapter

# An attention of its own, a bias in it, a window shorter than the text, an encoder and a decoder.
REFUSED = {"deberta", "mpnet", "mpnet-mlm", "falcon", "gemma2", "gemma3", "t5", "bart"}


def runs_without_padding(adapter: Adapter, rows: Rows) -> bool:
    return all(isinstance(bucket.layout, PaddingFree) for bucket in Engine(adapter, rows)._buckets)


@pytest.mark.parametrize(("name", "reading"), cases())
def test_which_models_can(name: str, reading: str) -> None:
    rows = READINGS[reading](ZOO[name][0])
    assert runs_without_padding(attached(name), rows) is (name not in REFUSED)


def test_a_window_longer_than_the_text_is_none() -> None:
    rows = word_rows("causal", (12, 7, 9))
    assert runs_without_padding(other("gemma3", 0, sliding_window=12), rows)
    assert not runs_without_padding(other("gemma3", 0, sliding_window=11), rows)


@pytest.mark.parametrize("name", ["roberta", "llama", "bert-encoder"])
def test_only_real_tokens_are_computed(name: str) -> None:
    adapter = attached(name)
    rows = READINGS["label sentences" if name == "bert-encoder" else "words"](ZOO[name][0])
    engine = Engine(adapter, rows)
    engine.scores(candidates(adapter, 1, 5))
    depth = len(engine.order.blocks)
    assert engine.token_layers == int(rows.lengths.sum()) * (1 + 5 * (depth - 1))  # the block below once
    engine.reset_counts()
    engine.scores(candidates(adapter, None, 5))
    assert engine.token_layers == int(rows.lengths.sum()) * 5 * depth


@pytest.mark.parametrize(("name", "first"), [("roberta", 2), ("bert", 0), ("opt", 0), ("llama", 0)])
def test_positions_are_counted_as_the_model_counts(name: str, first: int) -> None:
    """In bfloat16, too, where the positions of a trained model lie so close that readings hardly tell them apart."""
    adapter = attached(name)
    for parameter_name, parameter in adapter.model.named_parameters():
        if "position" in parameter_name:
            parameter.data = parameter[:1] + 0.02 * parameter  # neighbours that look alike
    adapter.model.to(torch.bfloat16)
    for bucket in Engine(adapter, word_rows(ZOO[name][0]))._buckets:
        assert int(bucket.layout.inputs["position_ids"].min()) == first


def test_rows_of_one_length_stay_rows() -> None:
    rows = word_rows("masked", (9, 9, 9))
    assert not runs_without_padding(attached("roberta"), rows)


def test_an_adapted_map_behind_one_that_gives_answers_only_is_refused() -> None:
    adapter, rows = attached("llama", targets=("q_proj", "down_proj")), word_rows("causal")
    assert not runs_without_padding(adapter, rows)
    factors = candidates(adapter, 1, 3)
    scores, expected = Engine(adapter, rows).scores(factors), one_by_one(adapter, rows, factors)
    assert farthest(scores, expected) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("causal", [True, False])
def test_what_the_kernel_is_given(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs on CUDA alone: one that goes by the bounds it is given stands in for it."""
    tokens = PaddingFree(word_rows("causal", (5, 3, 4)), 0, torch.float32)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2 * 12, 4, 8, generator=generator) for _ in range(3))
    seen = []

    def kernel(q, k, v, bounds, same, longest, too, *, scale, window_size):  # type: ignore[no-untyped-def]
        assert bounds is same
        assert longest == too == 5
        assert bounds.dtype == torch.int32
        assert window_size == ((-1, 0) if causal else (-1, -1))
        seen.append(bounds.tolist())
        pieces = []
        for start, end in itertools.pairwise(bounds.tolist()):
            scores = torch.einsum("qhd,khd->hqk", q[start:end], k[start:end]) * scale
            if causal:
                scores = scores.masked_fill(~torch.ones_like(scores[0], dtype=torch.bool).tril(), -torch.inf)
            pieces.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[start:end]))
        return torch.cat(pieces)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    expected = tokens._one_by_one(2)(q, k, v, causal, 0.3)
    assert farthest(tokens._varlen(2)(q, k, v, causal, 0.3), expected) < 1e-5
    assert seen == [[0, 5, 8, 12, 17, 20, 24]]


def test_torch_takes_it_so() -> None:
    """Names and kinds of arguments, on tensors that only pretend to be on a GPU."""
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no varlen_attn")
    assert varlen.varlen_attn
    tokens = PaddingFree(word_rows("causal", (5, 3, 4)), 0, torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        q = torch.empty(24, 4, 8, dtype=torch.bfloat16)
        assert tokens._varlen(2)(q, q, q, True, None).shape == (24, 4, 8)


def test_a_device_without_a_kernel_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: PaddingFree, copies: int) -> None:
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")

    monkeypatch.setattr(PaddingFree, "_one_by_one", none)
    adapter, rows = attached("roberta"), word_rows("masked")
    assert not runs_without_padding(adapter, rows)
    factors = candidates(adapter, 1, 3)
    expected = one_by_one(adapter, rows, factors)
    assert farthest(Engine(adapter, rows).scores(factors), expected) < 1e-4 * float(expected.abs().max())


def test_the_scores_are_those_of_padded_rows() -> None:
    adapter, rows = attached("qwen3"), word_rows("causal")
    factors = candidates(adapter, None, 4)
    without = Engine(adapter, rows, savings=Savings(padding_free=False)).scores(factors)
    assert farthest(Engine(adapter, rows).scores(factors), without) < 1e-5 * float(without.abs().max())
