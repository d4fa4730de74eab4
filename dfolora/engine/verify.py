"""Hold the engine to one candidate at a time, on a batch that is really going to be scored."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dfolora.engine.edits import Edit, population_of, written
from dfolora.engine.rows import Rows
from dfolora.engine.savings import Savings
from dfolora.engine.trials import TOLERANCE, agree, attempt
from dfolora.errors import UserError

if TYPE_CHECKING:
    from dfolora.engine.engine import Engine

CANDIDATES = 2
# The saving that is likeliest to be at fault first, and of those the one that costs least to do without.
SUSPECTS = (
    "shared_prompt", "padding_free", "no_mask", "last_block", "shared", "label_columns", "prefix", "answer_rows",
    "buckets",
)  # fmt: skip


def saving_to_leave_out(engine: Engine, edits: Mapping[str, Edit]) -> tuple[str, ...]:
    """The fewest savings without which an engine agrees with one candidate at a time; () where it does with all.

    Args:
        engine: is left as it is.
        edits: some candidates, of which the first two are compared.

    Raises:
        UserError: it does not without any saving either.
    """
    two = {name: edit.cut(0, CANDIDATES) for name, edit in edits.items()}
    examples = telling_examples(engine.single_rows)
    rows = engine.single_rows.of(examples)[1]
    expected, noise = _one_at_a_time(engine, rows, two)
    if not bool(expected[~expected.isneginf()].isfinite().all()):
        return ()  # a model whose own scores are no numbers: nothing to compare
    used = [name for name in SUSPECTS if getattr(engine.savings, name)]
    singles = [(name,) for name in used]
    growing = [tuple(used[:count]) for count in range(2, len(used) + 1)]
    for names in itertools.chain([()], singles, growing):
        tried = attempt(partial(_scores, engine, rows, two, engine.savings.without(names)))
        if agree(tried, expected, engine.call.dtype, noise):
            return names
    raise UserError(
        "engine: class scores of this model in batches differ from those of one candidate at a time; "
        "'sequential' scores one at a time"
    )


def telling_examples(rows: Rows) -> Tensor:
    """(n,) int64, ascending: examples that hold the longest row, the shortest, and the longest answer."""
    owner = rows.owner[:, 0]
    lengths = torch.where(owner < 0, 0, rows.lengths)  # label sentences belong to all
    shortest = torch.where(owner < 0, lengths.max() + 1, lengths)
    places = [int(lengths.argmax()), int(shortest.argmin())]
    if rows.targets is not None:
        places.append(int((rows.targets >= 0).sum(1).argmax()))
    return torch.tensor(sorted({int(owner[place]) for place in places}), device=owner.device)


def _scores(engine: Engine, rows: Rows, edits: Mapping[str, Edit], savings: Savings) -> Tensor:
    return type(engine)(engine.adapter, rows, engine.chunk_tokens, savings).scores(edits)


def _one_at_a_time(engine: Engine, rows: Rows, edits: Mapping[str, Edit]) -> tuple[Tensor, float]:
    """(P, n, C) class scores of candidates written one by one, and how far rounding takes two such runs apart."""
    scores = []
    noise = torch.zeros((), device=rows.owner.device)
    for p in range(population_of(edits)):
        with written(engine.model, {name: edit.cut(p, p + 1) for name, edit in edits.items()}):
            scores.append(rows.assemble(engine.plain_readings(rows))[0])
            if engine.call.dtype in TOLERANCE:
                continue
            for example in range(len(rows.classes)):  # in low precision an example alone rounds in another way
                alone = rows.of(torch.tensor([example], device=rows.owner.device))[1]
                alone = alone.take(torch.arange(alone.count, device=rows.owner.device))
                score = alone.assemble(engine.plain_readings(alone))[0, 0]
                noise = torch.maximum(noise, (score - scores[p][example, : len(score)]).abs().nan_to_num().max())
    return torch.stack(scores), float(noise)
