"""Which linear maps of a model are adapted: by role in any architecture, or by their own names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from dfolora.errors import UserError
from dfolora.models.probe import blocks_run, features, fused_parts

ROLES = {
    "qk": "query and key of self-attention",
    "qv": "query and value of self-attention",
    "qkv": "query, key and value of self-attention",
    "o": "the output of self-attention",
    "down": "the feed-forward network's way back to the hidden size",
    "all-linear": "every linear map of the transformer blocks",
}
"""What ``target`` may be beside names of modules."""

# Projections of attention by the names that transformers' architectures use. A fused one holds queries, keys and values
# in one matrix; which rows are which is found by trial.
_PROJECTIONS = {
    "q": ("query", "q_proj", "q_lin", "q", "query_proj", "Wq"),
    "k": ("key", "k_proj", "k_lin", "k", "key_proj", "Wk"),
    "v": ("value", "v_proj", "v_lin", "v", "value_proj", "Wv"),
}
_FUSED = ("c_attn", "qkv_proj", "Wqkv", "query_key_value", "qkv")
_CROSS_ATTENTION = ("crossattention", "EncDecAttention", "encoder_attn", "cross_attn")


def targets_of(model: Any, targets: Sequence[str] = ()) -> dict[str, str]:
    """The linear maps that ``targets`` mean, in the order of the model.

    Args:
        model: an unmodified transformers model.
        targets: roles (``ROLES``) and ends of module names; empty: ``qk``. Blocks that reading text does not run, such
            as an image encoder's, are left out.

    Returns:
        Dotted path -> which parts of it are searched, where it is a fused projection: letters of ``qkv``. A fused
        projection that is named itself has its queries and keys searched.

    Raises:
        UserError: a target that the model does not have.
    """
    linear = _linear_names(model)
    parts_of: dict[str, set[str]] = {}
    for target in targets or ("qk",):
        chosen = _by_role(model, linear, target) if target in ROLES else _by_name(linear, target)
        if not chosen:
            raise _missing(target, linear)
        for name, parts in chosen.items():
            parts_of.setdefault(name, set()).update(parts)
    return {name: "".join(part for part in "qkv" if part in parts_of[name]) for name in linear if name in parts_of}


def read_by_answers(model: Any, kind: str, targets: Sequence[str], share: float) -> list[str]:
    """The linear maps that ``targets`` mean, of the last layers alone and of a decoder where there is one.

    Args:
        model: an unmodified transformers model.
        kind: ``seq2seq`` has a decoder beside its encoder, which no single place of is read.
        targets: as for ``targets_of``.
        share: of the layers, above 0 to 1.

    Raises:
        UserError: a target that the model does not have.
    """
    names = list(targets_of(model, targets))
    if kind == "seq2seq":
        names = [name for name in names if ".decoder." in f".{name}"] or names
    blocks = list(dict.fromkeys(block_of(model, name) for name in names))
    last = blocks[-max(1, round(share * len(blocks))) :]
    return [name for name in names if block_of(model, name) in last]


def block_names(model: Any) -> list[str]:
    """Transformer blocks that read text: those with self-attention, or else all that hold linear maps."""
    linear = _linear_names(model)
    names = _by_role(model, linear, "qk") or linear
    return list(dict.fromkeys(block for name in names if (block := block_of(model, name))))


def keys_and_values(model: Any) -> dict[str, dict[str, tuple[str, Tensor | None]]]:
    """Where each block that reads text makes the keys and the values of its self-attention.

    Returns:
        Block -> ``k`` and ``v`` -> dotted path of the linear map, and its output rows (int64; None: all).

    Raises:
        UserError: a block whose maps are not known.
    """
    maps = targets_of(model, ("qkv",))
    fused = {name for name in maps if _suffix(name) in _FUSED}
    rows = {part: searched_rows(model, dict.fromkeys(fused, part)) for part in "kv"}
    found: dict[str, dict[str, tuple[str, Tensor | None]]] = {}
    for name in maps:
        for part in "kv":
            if name in fused or _suffix(name) in _PROJECTIONS[part]:
                found.setdefault(str(block_of(model, name)), {})[part] = name, rows[part].get(name)
    blocks = block_names(model)
    lacking = [block for block in blocks if found.get(block, {}).keys() != {"k", "v"}]
    unknown = [name for name in fused if name not in rows["k"] or name not in rows["v"]]
    if lacking or unknown:
        raise UserError(f"tune: deep-prompt does not know the keys and values of {(lacking or unknown)[0]!r}")
    return {block: found[block] for block in blocks}


def block_of(model: nn.Module, name: str) -> str | None:
    """The transformer block that a module belongs to: the first element of a ModuleList on its path."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit() and isinstance(model.get_submodule(".".join(parts[:index])), nn.ModuleList):
            return ".".join(parts[: index + 1])
    return None


def text_blocks(model: Any) -> set[str] | None:
    """Blocks that reading text runs, where the model has others too; None: all of them."""
    return None if model.config.get_text_config() is model.config else blocks_run(model)


def searched_rows(model: Any, targets: dict[str, str]) -> dict[str, Tensor]:
    """Output rows, int64, that are searched of each fused projection; those not in the answer are searched whole.

    Args:
        model: the model, adapted or not.
        targets: dotted path -> parts, as ``targets_of`` gives them.
    """
    rows: dict[str, Tensor] = {}
    layouts: dict[tuple[str, int], dict[str, Tensor] | None] = {}
    for name, parts in targets.items():
        block = block_of(model, name)
        if _suffix(name) not in _FUSED or _is_cross(name) or parts == "qkv" or block is None:
            continue
        module = model.get_submodule(name)
        kind = _suffix(name), features(getattr(module, "base_layer", module))[1]
        if kind not in layouts:  # all blocks of a model are built alike
            layouts[kind] = fused_parts(model, name, block)
        layout = layouts[kind]
        if layout is not None:
            rows[name] = _joined([layout[part] for part in parts])
    return rows


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0].new_tensor(sorted(row for part in parts for row in part.tolist()))


def _linear_names(model: Any) -> list[str]:
    """Paths of the linear maps inside the transformer blocks that reading text runs."""
    head = model.get_output_embeddings()
    run = text_blocks(model)
    names = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head
    ]
    return [name for name in names if (block := block_of(model, name)) and (run is None or block in run)]


def _by_name(linear: list[str], target: str) -> dict[str, str]:
    return {name: "qk" for name in linear if name == target or name.endswith("." + target)}


def _by_role(model: Any, linear: list[str], role: str) -> dict[str, str]:
    """The linear maps of a role; empty where there are none."""
    if role == "all-linear":
        return dict.fromkeys(linear, "qkv")
    attention = [name for name in linear if not _is_cross(name)]
    if role in ("qk", "qv", "qkv"):
        wanted = {name for part in role for name in _PROJECTIONS[part]} | set(_FUSED)
        return {name: role for name in attention if _suffix(name) in wanted}
    every = {name for part in _PROJECTIONS.values() for name in part} | set(_FUSED)
    projections = [name for name in attention if _suffix(name) in every]
    scopes = {scope: outer for name in projections for scope, outer in [_scope(name, projections, attention)] if outer}
    if role == "o":
        return {others[-1]: "qkv" for others in scopes.values()}
    return dict.fromkeys(_down(model, [n for n in attention if not any(n.startswith(s + ".") for s in scopes)]), "qkv")


def _scope(name: str, projections: list[str], linear: list[str]) -> tuple[str, list[str]]:
    """The attention that a projection belongs to, the smallest module with another linear map, and these others."""
    scope = name
    while "." in scope:
        scope = scope.rsplit(".", 1)[0]
        others = [n for n in linear if n.startswith(scope + ".") and n not in projections and "pos_" not in _suffix(n)]
        if others:
            return scope, others
    return scope, []


def _down(model: Any, names: list[str]) -> list[str]:
    """Linear maps outside attention that narrow; where none does, the last of each block."""
    names = [name for name in names if "bottleneck" not in name]
    sizes = {name: features(model.get_submodule(name)) for name in names}
    narrowing = [name for name in names if sizes[name][0] > sizes[name][1]]
    last = {block_of(model, name): name for name in names}
    return narrowing or list(last.values())


def _missing(target: str, linear: list[str]) -> UserError:
    ends = sorted({_suffix(name) for name in linear})
    if target in ROLES:
        return UserError(
            f"target: the model has nothing known as {ROLES[target]}; name modules yourself: {', '.join(ends)}"
        )
    similar = difflib.get_close_matches(target, [*ends, *ROLES], n=3, cutoff=0.4)
    hint = " or ".join(map(repr, similar)) if similar else ", ".join(ends)
    return UserError(f"target: the model has no linear module {target!r} in its layers; try {hint}")


def _suffix(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _is_cross(name: str) -> bool:
    return any(part in _CROSS_ATTENTION for part in name.split("."))


def colliding(names: Iterable[str], model: Any) -> list[str]:
    """Modules that PEFT would adapt beside the named ones, because their paths end in one of these."""
    names = set(names)
    ends = tuple("." + name for name in names)
    return [name for name, _ in model.named_modules() if name not in names and name.endswith(ends)]
