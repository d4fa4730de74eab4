"""Load any Hugging Face model and say what kind it is: masked, causal, seq2seq or a bare sentence encoder."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import transformers
from torch import nn

from dfolora.errors import UserError, unknown
from dfolora.models.checkpoint import check_complete, check_index, path_of, pooling_of, refusing
from dfolora.task import KINDS, Kind

_AUTO_CLASSES: dict[Kind, Any] = {
    "masked": transformers.AutoModelForMaskedLM,
    "causal": transformers.AutoModelForCausalLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "encoder": transformers.AutoModel,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZATIONS = ("8bit", "4bit")


@dataclass
class LanguageModel:
    """A model with what is needed to ask it something.

    Attributes:
        model: the unmodified ``transformers`` model, in evaluation mode, gradients off. Before ``read_weights`` it may
            be a skeleton without weights, on torch's device ``meta``.
        tokenizer: its tokenizer; it pads on the right and has a pad token.
        kind: how it is asked (``dfolora.task.Kind``).
        name: hub id or folder, as the user gave it.
        pooling: how a sentence encoder's token states (R, T, H) become one vector: ``mean`` or ``cls``.
        reader: reads the weights; None: they are there.
    """

    model: Any
    tokenizer: Any
    kind: Kind
    name: str
    pooling: str = "mean"
    reader: Callable[[], Any] | None = field(default=None, repr=False)

    def read_weights(self) -> LanguageModel:
        """Put the weights in where they are not there yet, and return the same object.

        Raises:
            UserError: they cannot be read, or some that the answers depend on are missing.
        """
        if self.reader is not None:
            self.model = self.reader().eval().requires_grad_(False)
            self.reader = None
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Token ids that the model has embeddings for: 0 up to this, which it does not reach."""
        return int(self.model.get_input_embeddings().weight.shape[0])

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
    model: str | Path | nn.Module, tokenizer: Any = None, *, kind: str = "auto", dtype: str = "auto",
    device: str = "auto", trust_remote_code: bool = False, quantize: str = "",
) -> LanguageModel:  # fmt: skip
    """Load a hub id or a local folder with ``from_pretrained``, or take a model and tokenizer that are loaded.

    Args:
        model: hub id, folder, or a ``transformers`` model in memory, which then is put in evaluation mode.
        tokenizer: of a model in memory.
        kind: one of ``dfolora.task.KINDS``, or ``auto``: what the config's architecture says.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto``: float32 on a CPU, bfloat16 on a GPU that has it; a
            model in memory stays as it is.
        device: a torch device, or ``auto``: the GPU where there is one; a model in memory stays where it is.
        trust_remote_code: let the repository's own Python code run.
        quantize: ``8bit`` or ``4bit``: keep the base weights so, by bitsandbytes; nothing: as they are.

    Raises:
        UserError: the model cannot be found or loaded, lacks weights that its answers depend on, or a name is unknown.
    """
    if not isinstance(model, nn.Module):
        if tokenizer is not None:
            raise UserError(f"tokenizer: {str(model)!r} comes with its own; give one only with a model in memory")
        return open_model(
            str(model), kind=kind, dtype=dtype, device=device, trust_remote_code=trust_remote_code, quantize=quantize
        ).read_weights()
    if tokenizer is None:
        raise UserError("tokenizer: a model in memory needs one; give it as the second argument")
    if quantize or trust_remote_code:
        raise UserError("model: quantize and trust_remote_code are for models that are loaded here, not in memory")
    if dtype != "auto":
        model = model.to(pick_dtype(dtype, torch.device("cpu")))
    return wrap(model if device == "auto" else model.to(pick_device(device)), tokenizer, kind)


def open_model(
    name: str, *, kind: str = "auto", dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False,
    quantize: str = "",
) -> LanguageModel:  # fmt: skip
    """Load the config and tokenizer of a hub id or folder, and leave the weights for ``read_weights``.

    What a prompt needs can be checked before gigabytes are read. The arguments are those of ``load``. Only safetensors
    weights are read.

    Raises:
        UserError: as ``load``, but for what only the weights show.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(dtype, torch_device)
    if kind != "auto" and kind not in KINDS:
        raise unknown("kind", kind, ["auto", *KINDS])
    path = path_of(name)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    quantized = _quantization(quantize, torch_dtype, torch_device)
    with refusing(name, ""):
        config = transformers.AutoConfig.from_pretrained(path, **options)
    model_kind = kind_of(config) if kind == "auto" else cast(Kind, kind)
    with refusing(name, model_kind):
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
        # Without its files, transformers makes up a tokenizer that knows special tokens and nothing else.
        raise UserError(f"model: {name!r} comes without tokenizer files; add tokenizer.json to it")
    check_index(path, name)

    def read() -> Any:
        with refusing(name, model_kind):
            # What a checkpoint lacks, such as a pooler that nobody reads, is drawn anew: the same each time.
            with quiet(), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                model, report = _AUTO_CLASSES[model_kind].from_pretrained(
                    path, dtype=torch_dtype, use_safetensors=True, output_loading_info=True, **options, **quantized
                )
            check_complete(model.eval(), report["missing_keys"], name, model_kind)
            return model if quantized else model.to(torch_device)

    skeleton = _skeleton(config, model_kind, options)
    pooling = pooling_of(path, name) if model_kind == "encoder" else "mean"
    opened = wrap(read() if skeleton is None else skeleton, tokenizer, model_kind, name, pooling)
    opened.reader = None if skeleton is None else read
    return opened


def _skeleton(config: Any, kind: Kind, options: dict[str, Any]) -> Any:
    """The model without weights; None where it cannot be built so."""
    try:
        with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            return _AUTO_CLASSES[kind].from_config(config, **options)
    except Exception:  # of somebody's own model, or of no such kind: reading the weights will tell
        return None


def _quantization(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` is told for quantised weights: nothing where none are wanted."""
    if not name:
        return {}
    if name not in QUANTIZATIONS:
        raise unknown("quantize", name, QUANTIZATIONS)
    missing = [library for library in ("bitsandbytes", "accelerate") if importlib.util.find_spec(library) is None]
    if missing:
        raise UserError(f"quantize: {name} needs {' and '.join(missing)}; pip install 'dfolora[quantize]'")
    config = transformers.BitsAndBytesConfig(
        load_in_8bit=name == "8bit", load_in_4bit=name == "4bit", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}}


def wrap(model: Any, tokenizer: Any, kind: str = "auto", name: str = "", pooling: str = "mean") -> LanguageModel:
    """Take a model that is already in memory: evaluation mode, no gradients, padding on the right.

    Raises:
        UserError: its kind cannot be told, or it is to fill in masks and has no mask token.
    """
    if kind == "auto":
        kind = _kind_of_model(model)
    elif kind not in KINDS:
        raise unknown("kind", kind, ["auto", *KINDS])
    model.eval().requires_grad_(False)
    name = name or str(getattr(model, "name_or_path", "") or "")
    language_model = LanguageModel(model, tokenizer, kind, name, pooling)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= language_model.vocabulary:
        # Padding is masked, so any token with an embedding serves; the end token is the custom.
        end = tokenizer.eos_token_id
        usual = end is not None and end < language_model.vocabulary
        tokenizer.pad_token = tokenizer.eos_token if usual else tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "right"
    if kind == "masked" and (tokenizer.mask_token_id is None or tokenizer.mask_token_id >= language_model.vocabulary):
        where = "tokenizer" if tokenizer.mask_token_id is None else "embedding"
        raise UserError(f"model: {name!r} has no mask token in its {where}; use kind causal or encoder")
    return language_model


def _kind_of_model(model: Any) -> Kind:
    """By the class itself; its config may say nothing, or what it was made from."""
    described = {"architectures": [type(model).__name__], "is_encoder_decoder": model.config.is_encoder_decoder}
    try:
        return kind_of(SimpleNamespace(**described))
    except UserError:
        return kind_of(model.config)


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
        f"kind: cannot tell the kind of a model from its architectures, {', '.join(names) or 'none'}; say kind "
        + ", ".join(KINDS[:-1])
        + f" or {KINDS[-1]}"
    )


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).tolist()  # fails on ``meta`` too, which holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device: {name!r} cannot be used here; use auto, cpu, cuda or cuda:N") from error
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in DTYPES:
        raise unknown("dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


class quiet:
    """Silence transformers' progress bars, and its remarks on heads and poolers that are left out on purpose."""

    def __enter__(self) -> None:
        self.level = transformers.utils.logging.get_verbosity()
        transformers.utils.logging.set_verbosity(logging.ERROR)
        transformers.utils.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers.utils.logging.set_verbosity(self.level)
        transformers.utils.logging.enable_progress_bar()
