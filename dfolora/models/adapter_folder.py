"""A PEFT folder, checked before PEFT reads it: a stranger's files must not hang, fill the memory, or run code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import safe_open

from dfolora.errors import UserError
from dfolora.models.probe import features
from dfolora.models.targets import colliding

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_LARGEST_CONFIG = 1_000_000  # bytes

# Parts of a PEFT adapter, by their keys in adapter_config.json, that are more than W + B A on linear maps.
_NOT_PLAIN = (
    "use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication",
    "alora_invocation_tokens", "arrow_config", "use_qalora", "use_bdlora", "velora_config", "monteclora_config",
)  # fmt: skip
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base model's weights too
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


def checked_config(model: Any, folder: str, name: str) -> LoraConfig:
    """What PEFT is to be told of an adapter: the modules and ranks that its tensors have, and its scale.

    Names in the configuration are not used as the regular expressions that PEFT takes them for.

    Args:
        model: the base model, not adapted yet.
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        name: the model's, for errors.

    Raises:
        UserError: files missing or spoiled, more than plain LoRA, tensors that do not fit the model or are not finite.
    """
    path = Path(folder).expanduser()
    for file in (path / CONFIG, path / WEIGHTS):
        if not file.is_file():
            raise UserError(f"adapter: {folder!r} holds no {CONFIG} with {WEIGHTS}")
        if not _stays_inside(file):
            raise UserError(f"adapter: {folder!r} holds a link out of the folder, {file.name}")
    config = read_config(folder)
    extras = ", ".join(key for key in _NOT_PLAIN if config.get(key))
    start = config.get("init_lora_weights")
    if config.get("peft_type") != "LORA" or extras or not (isinstance(start, (bool, str, type(None)))):
        what = extras or f"peft_type {config.get('peft_type')!r}"
        raise UserError(f"adapter: {folder!r} is not a plain LoRA adapter ({what:.100})")
    if start not in _PLAIN_STARTS:
        raise UserError(f"adapter: {folder!r} is not a plain LoRA adapter (init_lora_weights {start!r:.40})")
    misfit = f"adapter: {folder!r} does not fit {name!r}{_made_for(config)}"
    ranks = _ranks(model, path / WEIGHTS, misfit)
    if lacking := _lacking(model, config, ranks):
        raise UserError(f"{misfit} (it has no tensors of {lacking[0]!r})")
    plain = config.get("r")
    patterns = config.get("rank_pattern") or {}
    if not isinstance(patterns, Mapping) or not set(ranks.values()) <= {plain, *map(_whole, patterns.values())}:
        raise UserError(f"adapter: {folder!r} says rank {plain!r:.20}, but its tensors have {max(ranks.values())}")
    alphas = _alphas(config, ranks, folder)
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    conv1d = type(model.get_submodule(next(iter(ranks)))).__name__ == "Conv1D"
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT divides it by r, whatever number it is
        rank_pattern={re.escape(module): r for module, r in ranks.items() if r != rank},
        alpha_pattern={re.escape(module): a for module, a in alphas.items() if a != alpha},
        use_rslora=config.get("use_rslora") is True,
        target_modules=list(ranks),
        exclude_modules=colliding(ranks, model) or None,
        fan_in_fan_out=conv1d,
        base_model_name_or_path=str(config.get("base_model_name_or_path") or ""),
    )


def read_config(folder: str) -> dict[str, Any]:
    """A folder's ``adapter_config.json``.

    Raises:
        UserError: it is not there, or no JSON object.
    """
    try:
        with (Path(folder).expanduser() / CONFIG).open("rb") as file:
            config = json.loads(file.read(_LARGEST_CONFIG))
        if isinstance(config, dict):
            return config
        reason = "not a JSON object"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except (ValueError, RecursionError):
        reason = "not JSON"
    raise UserError(f"adapter: {folder!r} holds no {CONFIG} that can be read ({reason})")


def _stays_inside(file: Path) -> bool:
    """Whether a file is no link, or one within its folder, or within the Hub's cache."""
    home, real = file.parent.resolve(), file.resolve()
    return home in real.parents or (home.parent.name == "snapshots" and home.parent.parent / "blobs" in real.parents)


def _ranks(model: Any, file: Path, misfit: str) -> dict[str, int]:
    """Module -> rank, from the tensors themselves, each of which fits its module and is finite."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    modules = dict(model.named_modules())
    try:
        with safe_open(str(file), "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # it is no mapping
                match = _TENSOR.fullmatch(key)
                if match is None or match["module"] not in modules:
                    raise UserError(f"{misfit} ({key!r:.100})")
                if not bool(tensors.get_tensor(key).isfinite().all()):
                    raise UserError(f"adapter: {key!r:.100} in {str(file)!r} holds numbers that are not finite")
                shapes.setdefault(match["module"], {})[match["factor"]] = tuple(tensors.get_slice(key).get_shape())
    except UserError:
        raise
    except Exception as error:  # safetensors' own errors, and torch's for a type that is no number
        raise UserError(
            f"{misfit} ({str(error).splitlines()[0] if str(error) else type(error).__name__:.100})"
        ) from error
    ranks = {}
    for name, pair in shapes.items():
        module = modules[name]
        rank = pair.get("A", (0,))[0] if pair.get("A") else 0
        size = features(module) if _linear(module) else (0, 0)
        if not rank or pair.get("A") != (rank, size[0]) or pair.get("B") != (size[1], rank):
            raise UserError(f"{misfit} (the tensors of {name!r:.100} have other shapes)")
        ranks[name] = rank
    if not ranks:
        raise UserError(f"{misfit} (it holds no tensors)")
    return ranks


def _lacking(model: Any, config: Mapping[str, Any], ranks: Mapping[str, int]) -> list[str]:
    """Linear maps that the configuration's list of names means and that have no tensors."""
    ends, left_out = config.get("target_modules"), config.get("exclude_modules") or []
    lists = isinstance(ends, list) and isinstance(left_out, list)
    if not lists or config.get("layers_to_transform") is not None:
        return []

    def ends_in(name: str, parts: list[Any]) -> bool:
        return any(isinstance(part, str) and f".{name}".endswith(f".{part}") for part in parts)

    modules = [name for name, module in model.named_modules() if _linear(module) and name not in ranks]
    return [name for name in modules if ends_in(name, ends or []) and not ends_in(name, left_out)]


def _linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and ("Linear" in type(module).__name__ or type(module).__name__ == "Conv1D")


def _alphas(config: Mapping[str, Any], ranks: Mapping[str, int], folder: str) -> dict[str, float]:
    """Module -> alpha: the first entry of ``alpha_pattern`` whose name the module's path ends in, or ``lora_alpha``."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping):
        raise UserError(f"adapter: {folder!r} has an alpha_pattern that is no mapping")
    for key, value in (("lora_alpha", config.get("lora_alpha")), *patterns.items()):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(_float(value)):
            raise UserError(f"adapter: {folder!r} has {key!r:.60} {value!r:.40}, which is no finite number")
        if not re.fullmatch(r"[\w.]+", key):
            raise UserError(f"adapter: {folder!r} has {key!r:.60} in alpha_pattern, which is no name of a module")
    return {
        module: next((a for key, a in patterns.items() if f".{module}".endswith(f".{key}")), config["lora_alpha"])
        for module in ranks
    }


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _made_for(config: Mapping[str, Any]) -> str:
    return f"; it was made for {config.get('base_model_name_or_path')!s:.100}"
