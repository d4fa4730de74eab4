"""Some examples of the batch: the scores of these, at the cost of these, from a prefix that is kept for all."""

from __future__ import annotations

import pytest
import torch
from models_zoo import READINGS, ZOO, attached, candidates, cases
from plain_reading import farthest, one_by_one

from dfolora.engine import Engine, SequentialEngine

NAMES = {"roberta", "gpt2", "t5", "bert-encoder", "mpnet", "albert"}


@pytest.mark.parametrize(("name", "reading"), [case for case in cases() if case[0] in NAMES])
def test_scores_of_some_examples(name: str, reading: str) -> None:
    adapter = attached(name)
    rows = READINGS[reading](ZOO[name][0])
    examples = torch.tensor([len(rows.classes) - 1, 0])  # in the order asked, not the batch's
    for engine in (Engine(adapter, rows, chunk_tokens=70), SequentialEngine(adapter, rows)):
        for layer in (0, len(adapter.layers) - 1, None):
            factors = candidates(adapter, layer, 3)
            expected = one_by_one(adapter, rows, factors)[:, examples]
            scores = engine.scores(factors, examples)
            width = scores.shape[2]  # classes that none of them has are left out
            assert expected[:, :, width:].isinf().all()
            scale = float(expected[expected.isfinite()].abs().max())
            assert farthest(scores, expected[:, :, :width]) < 1e-4 * scale


def test_the_prefix_is_kept_for_all_examples() -> None:
    adapter, rows = attached("roberta"), READINGS["words"](ZOO["roberta"][0])
    engine = Engine(adapter, rows)
    factors, depth = candidates(adapter, 2, 4), len(engine.order.blocks)
    engine.scores(factors, torch.tensor([0]))
    for example in range(1, len(rows.classes)):
        engine.reset_counts()
        engine.scores(factors, torch.tensor([example]))
        length = int(engine.rows.lengths[engine.rows.owner[:, 0] == example])
        assert engine.token_layers == 4 * length * (depth - 2)
