"""Folders of soft prompts: PEFT's own where PEFT has such a method, a pair of files of ours for gated ones.

PEFT's list of methods is closed (an enumeration that ``register_peft_method`` checks a name against), and no method of
its list depends on the text. So a gated prompt is ``soft_prompt.json`` with ``soft_prompt.safetensors``, which
``dfolora evaluate`` and ``gated_model.load_gated`` read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftType, PromptTuningConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.adapter_folder import WEIGHTS, read_config
from dfolora.models.instances import Instances
from dfolora.models.load import LanguageModel

GATED_LORA = "gated_lora.json"
OURS, OUR_WEIGHTS = "soft_prompt.json", "soft_prompt.safetensors"
TASK_TYPES = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "masked": "FEATURE_EXTRACTION",
              "encoder": "FEATURE_EXTRACTION"}  # fmt: skip
"""PEFT has no type for masked models; that of features puts the prompt before the text and asks no more."""


def write_prompt(
    folder: Path, language_model: LanguageModel, tuned: Mapping[str, Tensor], instances: Instances | None
) -> None:
    """Write a soft prompt as a folder.

    Args:
        folder: there already.
        language_model: whose it is.
        tuned: ``prompt`` (m, d), and of a gate ``b`` (m, k) and ``c`` (m,).
        instances: what the gate knows of texts; None: there is no gate, and the folder is PEFT's.
    """
    prompt = tuned["prompt"].cpu().contiguous()
    if instances is None:
        config: Any = prompt_config(language_model, *prompt.shape)
        config.save_pretrained(str(folder))
        save_file({"prompt_embeddings": prompt}, folder / WEIGHTS, {"format": "pt"})
        return
    center, axes = instances.fitted
    tensors = {name: part.cpu().contiguous() for name, part in tuned.items()}
    tensors |= {"center": center, "axes": axes}
    save_file(tensors, folder / OUR_WEIGHTS, {"format": "pt"})
    about = {
        "type": "gated soft prompt", "base_model_name_or_path": language_model.name, "kind": language_model.kind,
        "tokens": prompt.shape[0], "features": instances.count,
        "gate": "2 * sigmoid(b @ (axes @ (mean word embedding - center)) + c)",
    }  # fmt: skip
    (folder / OURS).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def prompt_config(language_model: LanguageModel, tokens: int, width: int) -> PromptTuningConfig:
    """What PEFT is to be told of a prompt of so many tokens."""
    config = PromptTuningConfig(
        task_type=TASK_TYPES[language_model.kind],
        num_virtual_tokens=tokens, token_dim=width, num_transformer_submodules=1, inference_mode=True,
        base_model_name_or_path=language_model.name,
    )  # fmt: skip
    assert config.peft_type == PeftType.PROMPT_TUNING
    return config


def kind_of_folder(folder: str) -> str:
    """What an adapter's folder holds: ``ipl``, ``ipl-lora``, or PEFT's name of a method in small letters.

    Where nothing can be read it is ``lora``, which is checked in full.
    """
    if (Path(folder).expanduser() / OURS).is_file():
        return "ipl"
    if (Path(folder).expanduser() / GATED_LORA).is_file():
        return "ipl-lora"
    try:
        return str(read_config(folder).get("peft_type")).lower()
    except UserError:
        return "lora"


def read_prompt(folder: str) -> dict[str, Tensor]:
    """The tensors of a soft prompt: ``prompt``, and of a gated one ``b``, ``c``, ``center`` and ``axes``; float32.

    Raises:
        UserError: files missing or spoiled; tensors that do not go together or are not finite.
    """
    path = Path(folder).expanduser()
    ours = (path / OURS).is_file()
    file = path / (OUR_WEIGHTS if ours else WEIGHTS)
    tensors = read_tensors(file)
    if not ours and "prompt_embeddings" in tensors:
        tensors = {"prompt": tensors["prompt_embeddings"]}
    shapes = {name: tuple(part.shape) for name, part in tensors.items()}
    m, d = (*shapes.get("prompt", ()), 0, 0)[:2]
    k = (*shapes.get("axes", ()), 0)[0]
    wanted: dict[str, tuple[int, ...]] = {"prompt": (m, d)}
    if ours:
        wanted |= {"b": (m, k), "c": (m,), "center": (d,), "axes": (k, d)}
    if not m or shapes != wanted:
        raise UserError(f"adapter: the tensors of {str(file)!r} are no soft prompt's: {shapes}")
    return tensors


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, float32.

    Raises:
        UserError: it is not there, spoiled, or holds numbers that are not finite.
    """
    if not file.is_file():
        raise UserError(f"adapter: {str(file.parent)!r} holds no {file.name}")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(str(file), "pt") as found:
            for key in found.keys():  # noqa: SIM118  # it is no mapping
                tensors[key] = found.get_tensor(key).float()
    except Exception as error:  # safetensors' own errors, and torch's for a type that is no number
        raise UserError(f"adapter: {str(file)!r} cannot be read ({str(error).splitlines()[0]:.100})") from error
    if not all(bool(part.isfinite().all()) for part in tensors.values()):
        raise UserError(f"adapter: {str(file)!r} holds numbers that are not finite")
    return tensors


def count_of_folder(folder: str) -> int:
    """m, the soft tokens of the prompt in a folder.

    Raises:
        UserError: it does not say.
    """
    if (Path(folder).expanduser() / OURS).is_file():
        return len(read_prompt(folder)["prompt"])
    count = read_config(folder).get("num_virtual_tokens")
    if not isinstance(count, int) or not 0 < count < 10**6:
        raise UserError(f"adapter: {folder!r} says that it has {count!r:.40} soft tokens")
    return count


def check_width(language_model: LanguageModel, folder: str, prompt: Tensor) -> None:
    """Raise UserError if a prompt was made for embeddings of another width."""
    width = int(language_model.model.get_input_embeddings().weight.shape[1])
    if prompt.shape[1] != width:
        raise UserError(
            f"adapter: {folder!r} does not fit {language_model.name!r}: its prompt has width {prompt.shape[1]}, the "
            f"model's embeddings {width}"
        )
