"""Load any Hugging Face model and say what kind it is: masked, causal, seq2seq or a bare sentence encoder."""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn

from dfolora.errors import UserError, unknown
from dfolora.task import KINDS, Kind

_AUTO_CLASSES = {
    "masked": transformers.AutoModelForMaskedLM,
    "causal": transformers.AutoModelForCausalLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "encoder": transformers.AutoModel,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZATIONS = ("8bit", "4bit")


@dataclass
class LanguageModel:
    """A loaded model with what is needed to ask it something.

    Attributes:
        model: the unmodified ``transformers`` model, in evaluation mode, gradients off.
        tokenizer: its tokenizer; it pads on the right and has a pad token.
        kind: how it is asked (``dfolora.task.Kind``).
        name: hub id or folder, as the user gave it.
        pooling: how a sentence encoder's token states (R, T, H) become one vector: ``mean`` or ``cls``.
    """

    model: Any
    tokenizer: Any
    kind: Kind
    name: str
    pooling: str = "mean"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the model has positions for."""
        limit = int(self.tokenizer.model_max_length)
        config = self.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        if positions:
            # RoBERTa and its kin number positions from padding_idx + 1, so that many table rows are never used.
            offset = 0
            for module in self.model.modules():
                if isinstance(module, nn.Embedding) and module.num_embeddings == positions and module.padding_idx:
                    offset = module.padding_idx + 1
            limit = min(limit, positions - offset)
        return limit


def load(
    name: str, kind: str = "auto", dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False,
    quantize: str = "",
) -> LanguageModel:  # fmt: skip
    """Load a hub id or a local folder with ``from_pretrained``; only safetensors weights are read.

    Args:
        name: hub id or folder.
        kind: one of ``dfolora.task.KINDS``, or ``auto``: what the config's architecture says.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto``: float32 on a CPU, bfloat16 on a GPU that has it.
        device: a torch device, or ``auto``: the GPU where there is one.
        trust_remote_code: let the repository's own Python code run.
        quantize: ``8bit`` or ``4bit``: keep the base weights so, by bitsandbytes; nothing: as they are.

    Raises:
        UserError: the model cannot be found or loaded, or a name is unknown.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(dtype, torch_device)
    if kind != "auto" and kind not in KINDS:
        raise unknown("--kind", kind, ["auto", *KINDS])
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"--model: there is no folder {name!r}; give a folder with config.json and model.safetensors")
    path = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    quantized = _quantization(quantize, torch_dtype, torch_device)
    try:
        config = transformers.AutoConfig.from_pretrained(path, **options)
        kind = kind_of(config) if kind == "auto" else kind
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
        with quiet(), torch.random.fork_rng(devices=[]):
            # What a checkpoint lacks, such as a pooler that nobody reads, is drawn anew: let it be the same each time.
            torch.default_generator.manual_seed(0)
            model = _AUTO_CLASSES[kind].from_pretrained(
                path, dtype=torch_dtype, use_safetensors=True, **options, **quantized
            )
    except UserError:
        raise
    except Exception as error:  # the libraries raise whatever they like here; tokenizers and safetensors bare ones
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--model: cannot load {name!r} as a {kind} model ({reason}); "
            "give a Hugging Face id or a folder with config.json, tokenizer files and safetensors weights"
        ) from error
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
        # Without its files, transformers makes up a tokenizer that knows special tokens and nothing else.
        raise UserError(f"--model: {name!r} comes without tokenizer files; add tokenizer.json to it")
    return wrap(
        model if quantized else model.to(torch_device),
        tokenizer,
        cast(Kind, kind),
        name,
        pooling=_pooling(path) if kind == "encoder" else "mean",
    )


def _quantization(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` is told for quantised weights: nothing where none are wanted."""
    if not name:
        return {}
    if name not in QUANTIZATIONS:
        raise unknown("--quantize", name, QUANTIZATIONS)
    missing = [library for library in ("bitsandbytes", "accelerate") if importlib.util.find_spec(library) is None]
    if missing:
        raise UserError(f"--quantize: {name} needs {' and '.join(missing)}; pip install 'dfolora[quantize]'")
    config = transformers.BitsAndBytesConfig(
        load_in_8bit=name == "8bit", load_in_4bit=name == "4bit", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}}


def wrap(model: nn.Module, tokenizer: Any, kind: Kind, name: str = "", pooling: str = "mean") -> LanguageModel:
    """Take a model that is already in memory: evaluation mode, no gradients, padding on the right."""
    model.eval().requires_grad_(False)
    if tokenizer.pad_token_id is None:
        # Padding is masked, so any token serves; the end token is the custom.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "right"
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise UserError(f"--model: {name!r} has no mask token in its tokenizer; use --kind causal or encoder")
    return LanguageModel(model, tokenizer, kind, name, pooling)


def kind_of(config: Any) -> Kind:
    """The kind that a config's ``architectures`` names."""
    names = list(getattr(config, "architectures", None) or [])
    for name in names:
        if name.endswith("ForMaskedLM") or name.endswith("ForPreTraining"):
            return "masked"
        if getattr(config, "is_encoder_decoder", False):
            return "seq2seq"
        if name.endswith(("ForCausalLM", "LMHeadModel")):
            return "causal"
        if name.endswith("Model"):
            return "encoder"
    raise UserError(
        f"--kind: cannot tell the kind of a model from architectures={names}; say --kind "
        + ", ".join(KINDS[:-1])
        + f" or {KINDS[-1]}"
    )


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device: {name!r} cannot be used here; use auto, cpu, cuda or cuda:N") from error
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in DTYPES:
        raise unknown("--dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


def _pooling(path: str) -> str:
    """A sentence-transformers folder says in 1_Pooling/config.json how it pools; everything else gets the mean."""
    try:
        file = transformers.utils.cached_file(path, "1_Pooling/config.json")
    except OSError:  # not there, or no network to ask
        return "mean"
    return "cls" if json.loads(Path(str(file)).read_text(encoding="utf-8")).get("pooling_mode_cls_token") else "mean"


class quiet:
    """Silence transformers' progress bars, and its remarks on heads and poolers that are left out on purpose."""

    def __enter__(self) -> None:
        self.level = transformers.utils.logging.get_verbosity()
        transformers.utils.logging.set_verbosity(logging.ERROR)
        transformers.utils.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers.utils.logging.set_verbosity(self.level)
        transformers.utils.logging.enable_progress_bar()
