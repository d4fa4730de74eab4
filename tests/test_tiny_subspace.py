"""The subspace ``tiny`` beyond the contract that test_subspaces.py holds every subspace to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_subspaces import RANK, bed, make, normal

from dfolora.problems.adapters import Part


@pytest.mark.parametrize("model", ["roberta", "gpt2"])
def test_tiny_mixes_what_xs_spans(model: str) -> None:
    """B stays within the main output directions that xs has; 16 numbers for two modules of 9 mix all of these."""
    tiny, xs = make("tiny", model, dim=16), make("xs", model)
    z = normal(40, 16)
    for key, (a, b) in tiny.factors(z).items():
        left: Any = xs.left[key]  # type: ignore[attr-defined]
        rows = tiny.layer.modules[key].rows
        searched = b if rows is None else b[:, rows]
        assert torch.equal(a[0], xs.a[key])
        assert torch.allclose(left @ (left.T @ searched), searched, atol=1e-5)
        assert torch.linalg.matrix_rank((left.T @ searched).flatten(1), rtol=1e-3) == min(16, RANK**2)


def test_tiny_is_one_z_for_the_whole_model_where_all_layers_are_searched_at_once() -> None:
    parts = [make("tiny", "llama", layer=layer, dim=13) for layer in range(len(bed("llama")[0].layers))]
    part = Part(None, parts)
    assert part.dim == 13
    z = normal(3, 13)
    found = part.edits(z)
    for subspace in parts:
        for key, (a, b) in subspace.factors(z).items():
            assert torch.equal(found[key][0], a)
            assert torch.equal(found[key][1], b)
    first, second = (next(iter(subspace.factors(z).values()))[1] for subspace in parts[:2])
    assert not torch.allclose(first / first.norm(), second / second.norm(), atol=0.1)  # other matrices in every layer
    assert Part(None, [make("xs", "llama", layer=layer) for layer in range(2)]).dim == 2 * make("xs", "llama").dim
