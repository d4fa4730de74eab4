"""WHERE to search: from the numbers of a candidate, z (P, d), to low-rank factors of a layer's modules, by name."""

from __future__ import annotations

from dfolora.declared import Option, declared
from dfolora.errors import UserError
from dfolora.registry import Registry
from dfolora.subspaces.base import Measured, Subspace

__all__ = ["REGISTRY", "Measured", "Subspace", "subspace_class", "subspace_names", "subspace_options"]

REGISTRY = Registry(
    "subspace",
    {
        "aligned": (
            "dfolora.subspaces.aligned:Aligned",
            "outputs along the directions that class scores are read along",
        ),
        "factors": ("dfolora.subspaces.factors:BothFactors", "A and B themselves, A from a random start"),
        "frozen-a": ("dfolora.subspaces.frozen_a:FrozenA", "A random and fixed, B a random projection of z"),
        "full": ("dfolora.subspaces.full:Full", "A random and fixed, B itself is searched"),
        "lora": ("dfolora.subspaces.lora:Lora", "A and B themselves, in the units of ordinary LoRA (MeZO)"),
        "paper": ("dfolora.subspaces.paper:Paper", "random projections to A and B, as DFO-LoRA was released"),
        "pca": ("dfolora.subspaces.pca:Pca", "A the main directions of a module's inputs, B a random projection of z"),
        "xs": ("dfolora.subspaces.xs:Xs", "a matrix between the main directions of each weight (LoRA-XS)"),
    },
    "dfolora.subspaces",
)
COMMON = ("layer", "measured", "rank", "dim", "seed", "scale", "device")


def subspace_class(subspace: str | type[Subspace]) -> type[Subspace]:
    """The class of a name; a class stands for itself.

    Raises:
        UserError: there is none of that name (near misses are suggested), or it is no subspace.
    """
    kind = REGISTRY.get(subspace) if isinstance(subspace, str) else subspace
    if not (isinstance(kind, type) and issubclass(kind, Subspace)):
        raise UserError(f"subspace: {kind!r} is none; give a name such as 'pca', or a subclass of dfolora.Subspace")
    return kind


def subspace_options(subspace: str | type[Subspace]) -> dict[str, Option]:
    """What a subspace takes beyond what all of them take: the keyword parameters of its constructor.

    Raises:
        UserError: as ``subspace_class``.
    """
    return declared(subspace_class(subspace), COMMON)


def subspace_names() -> list[str]:
    """Every registered name, sorted."""
    return REGISTRY.names()
