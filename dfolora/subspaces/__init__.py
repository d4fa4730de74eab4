"""Where to search: z (P, d) -> low-rank factors of a layer, by name."""

from __future__ import annotations

from typing import Any

from dfolora.registry import Registry
from dfolora.subspaces.lora import SUBSPACE_NAMES, Subspace
from dfolora.subspaces.lora import subspace_class as _by_name

REGISTRY = Registry(
    "subspace", {name: ("dfolora.subspaces.lora:X", "") for name in SUBSPACE_NAMES}, "dfolora.subspaces"
)


def subspace_class(subspace: Any) -> type[Subspace]:
    return subspace if isinstance(subspace, type) else _by_name(subspace)


__all__ = ["REGISTRY", "Subspace", "subspace_class"]
