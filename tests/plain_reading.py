"""The truth that the engine is held against: weights set one candidate at a time, a plain forward, a plain reading.

Written with loops and in double precision, and without anything of ``dfolora.engine`` but the rows' fields.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Rows
from dfolora.models.adapter import Adapter, Factors


def one_by_one(adapter: Adapter, rows: Rows, factors: Factors, **changes: Tensor) -> Tensor:
    """(P, N, C) class scores; the adapter is left as it was. ``changes`` replace arguments of the model."""
    own = {name: module for name, module in adapter.model.named_modules() if name in factors}
    assert own.keys() == factors.keys()
    state = {name: (m.lora_A["default"].weight.clone(), m.lora_B["default"].weight.clone()) for name, m in own.items()}
    population = len(next(iter(factors.values()))[0])
    scores = []
    try:
        for p in range(population):
            _set(own, {name: (a[p], b[p]) for name, (a, b) in factors.items()})
            scores.append(plain_scores(adapter, rows, **changes))
    finally:
        _set(own, state)
    return torch.stack(scores)


def plain_scores(adapter: Adapter, rows: Rows, **changes: Tensor) -> Tensor:
    """(N, C) class scores of the model as it stands."""
    with torch.no_grad():
        return read(rows, adapter.peft_model(**{**rows.inputs, **changes}))


def read(rows: Rows, output: Any) -> Tensor:
    """(N, C) float64 class scores from one plain output."""
    if rows.sentences:
        return _sentence_scores(rows, output.last_hidden_state.double())
    examples, classes = len(rows.classes), int(rows.classes.max())
    scores = torch.full((examples, classes), -torch.inf, dtype=torch.float64)
    for row, (example, choice) in enumerate(rows.owner.tolist()):
        logits = output.logits[row].double()
        if rows.columns is not None:
            scores[example] = logits[rows.positions[row, 0], rows.columns]
            continue
        assert rows.targets is not None
        known = [(p, t) for p, t in zip(rows.positions[row], rows.targets[row].tolist(), strict=True) if t >= 0]
        value = sum(logits[p].log_softmax(-1)[t] for p, t in known) / len(known)
        scores[example, choice] = max(scores[example, choice], value)
    return scores


def _sentence_scores(rows: Rows, states: Tensor) -> Tensor:
    def vector(row: int) -> Tensor:
        real = states[row, rows.inputs["attention_mask"][row].bool()]
        pooled = real[0] if rows.pooling == "cls" else real.mean(0)
        return pooled / pooled.norm()

    owners = [tuple(pair) for pair in rows.owner.tolist()]
    scores = torch.full((len(rows.classes), int(rows.classes.max())), -torch.inf, dtype=torch.float64)
    for example, count in enumerate(rows.classes.tolist()):
        for choice in range(count):
            label = owners.index((example, choice)) if (example, choice) in owners else owners.index((-1, choice))
            scores[example, choice] = 20 * vector(owners.index((example, -1))) @ vector(label)
    return scores


def _set(modules: dict[str, Any], weights: dict[str, tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for name, (a, b) in weights.items():
            modules[name].lora_A["default"].weight.copy_(a)
            modules[name].lora_B["default"].weight.copy_(b)


def farthest(left: Tensor, right: Tensor) -> float:
    """Largest absolute difference of the finite scores; infinite ones must be the same."""
    assert torch.equal(left.isinf(), right.isinf())
    return float((left.double() - right.double())[left.isfinite()].abs().max())


def spread(scores: Tensor) -> float:
    """How much candidates differ from each other: the least over pairs of their largest difference."""
    return min(farthest(scores[i], scores[j]) for i in range(len(scores)) for j in range(i))
