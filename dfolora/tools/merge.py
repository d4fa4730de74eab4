"""Merge an adapter into its model: a plain transformers folder, which needs neither PEFT nor this library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models.adapter import Adapter
from dfolora.models.bare import Bare
from dfolora.runs import description
from dfolora.runs.folder import Run
from dfolora.settings.build import settings
from dfolora.settings.tools import MergeSettings
from dfolora.settings.yaml_file import read_yaml
from dfolora.task import AUTO_CLASSES


def merge(adapter: str | Path | Run, output: str | Path, **options: Any) -> dict[str, Any]:
    """Write the model that an adapter makes of its base model: every W becomes W + B A.

    Args:
        adapter: a ``Run``, its folder, or that of an adapter in PEFT's format.
        output: folder that is made; it appears whole or not at all.
        options: those of ``dfolora merge``: ``model``, ``dtype``, ``trust_remote_code``.

    Returns:
        ``model, adapter, output, dtype, modules`` (how many linear maps changed), ``parameters``, and ``rounding``:
        what the number format costs, as a share of what the adapter changes: |round(W + B A) - (W + B A)| / |B A| over
        all changed weights, both Frobenius norms.

    Raises:
        UserError: no adapter or no base model there, a quantised one, an output that holds something already.
    """
    chosen = settings(MergeSettings, **options)
    target = Path(output).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"output: {str(output)!r} is not empty; choose another folder")
    source = str(adapter.folder if isinstance(adapter, Run) else Path(adapter).expanduser())
    known = description.complete({"adapter": source, **({"model": chosen.model} if chosen.model else {})})
    if not known.get("adapter"):
        raise UserError(f"adapter: the run {source!r} tuned all weights; its folder model/ is a plain model already")
    if not known.get("model"):
        raise UserError(f"model: the adapter {source!r} does not name its base model; give it as model")
    if bits := _quantised_in(Path(known["adapter"])):
        raise UserError(
            f"adapter: {source!r} was tuned on weights quantised to {bits}, and merged into others it would "
            "predict something else; load it by PEFT beside the quantised model"
        )
    dtype = chosen.dtype if chosen.dtype != "auto" else str(known.get("dtype", "float32")).replace("auto", "float32")
    language_model = models.open_model(
        str(known["model"]), kind=str(known.get("kind", "auto")), dtype="float32", device="cpu",
        trust_remote_code=chosen.trust_remote_code,
    )  # fmt: skip
    if getattr(language_model.model.config, "quantization_config", None) is not None:
        raise UserError(f"model: the weights of {language_model.name!r} are quantised, and cannot take an adapter in")
    language_model.read_weights()
    loaded = adapters.load(language_model, str(known["adapter"]))
    rounding, modules = rounding_of(loaded, models.DTYPES[dtype]), sum(len(layer.modules) for layer in loaded.layers)
    language_model.model = loaded.peft_model.merge_and_unload(safe_merge=True).to(models.DTYPES[dtype])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Bare(language_model).save(target, {"README.md": _card(language_model)}, language_model.tokenizer)
    except (OSError, SafetensorError) as error:
        raise UserError(f"output: cannot write {str(output)!r} ({error})") from error
    return {
        "model": language_model.name,
        "adapter": str(known["adapter"]),
        "output": str(target),
        "dtype": dtype,
        "modules": modules,
        "parameters": sum(weight.numel() for weight in language_model.model.parameters()),
        "rounding": rounding,
    }


def rounding_of(adapter: Adapter, dtype: torch.dtype) -> float:
    """What rounding W + B A costs, as a share of |B A| (Frobenius norms over all adapted modules); 0 for no change."""
    lost = moved = torch.zeros((), dtype=torch.float64)
    for layer in adapter.layers:
        for module in layer.modules.values():
            a, b = module.factors()
            change = b.double() @ a.double()
            exact: Tensor = module.weight.double() + change
            lost = lost + (exact.to(dtype).double() - exact).square().sum()
            moved = moved + change.square().sum()
    return float((lost / moved).sqrt()) if moved else 0.0


def _quantised_in(adapter: Path) -> str:
    """The bits that the run of an adapter kept the base weights in; '' where none is known."""
    for folder in (adapter.parent, adapter):
        file = folder / "config.yaml"
        if file.is_file():
            return str(read_yaml(file, "adapter").get("quantize") or "")
    return ""


def _card(language_model: models.LanguageModel) -> str:
    name = AUTO_CLASSES[language_model.kind]
    head = yaml.safe_dump(
        {"base_model": language_model.name, "library_name": "transformers", "tags": ["dfolora", "lora"]}, sort_keys=True
    )
    return "\n".join(
        [
            "---", head.rstrip(), "---",
            f"# {language_model.name}, with an adapter merged in", "",
            "Made by `dfolora merge`. transformers alone loads it:", "",
            "```python", f"from transformers import {name}", "",
            f"model = {name}.from_pretrained('this folder')", "```", "",
        ]
    )  # fmt: skip
