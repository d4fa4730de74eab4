"""The PEFT side: attach LoRA, group its modules by transformer layer, read and write one layer's factors, save, load.

LoRA (arXiv 2106.09685): a linear map W of shape (out, in) becomes W + B A with A (r, in) and B (out, r). The scale
alpha / r is 1 here, so that what a subspace writes is what the model gets.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.adapter_folder import checked_config
from dfolora.models.load import LanguageModel
from dfolora.models.probe import features
from dfolora.models.targets import block_of, colliding, searched_rows, targets_of, text_blocks
from dfolora.models.tuned import TunedModel

Factors = dict[str, tuple[Tensor, Tensor]]
"""One layer's candidates: module name -> (A (P, r, in), B (P, out, r)). A or B may be expanded views over P."""

_TASK_TYPES = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION"}


@dataclass(frozen=True)
class LoraModule:
    """One adapted linear map.

    Attributes:
        name: dotted path in the unwrapped model.
        lora: PEFT's own layer; ``lora.base_layer`` is the original.
        in_features, out_features: of the original.
        rows: the output rows that are searched (R,), int64; None means all. In a fused query-key-value projection the
            value rows stay as they are.
    """

    name: str
    lora: Any
    in_features: int
    out_features: int
    rows: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The original weight as (out, in), float32; GPT-2's Conv1D stores it transposed."""
        weight = self.lora.base_layer.weight
        if getattr(weight, "quant_state", None) is not None or not weight.dtype.is_floating_point:
            weight = _dequantised(self.lora.base_layer)
        return (weight.T if self.lora.fan_in_fan_out else weight).float()

    def factors(self) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r) as they are now; views, not copies."""
        return self.lora.lora_A["default"].weight, self.lora.lora_B["default"].weight


@dataclass(frozen=True)
class Layer:
    """A transformer block that holds adapted modules. ``name`` is the block's dotted path."""

    name: str
    modules: dict[str, LoraModule]


@dataclass
class Adapter(TunedModel):
    """LoRA on a model, by layer.

    Attributes:
        peft_model: PEFT's wrapper; saving goes through it.
        model: the wrapped model itself, whose forward takes the model's own arguments.
        layers: the adapted blocks, in the order of their names in the model.
        versions: per layer, how often its factors were written; caches of hidden states compare it.
        active: per layer, False while its factors are known to add nothing (B is 0), so that nothing need be computed.
        learned: what the engine has found out about the model.
    """

    peft_model: PeftModel
    layers: list[Layer]
    versions: list[int] = field(default_factory=list)
    active: list[bool] = field(default_factory=list)
    learned: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.versions = [0] * len(self.layers)
        self.active = [bool(self._b_norm(layer) != 0) for layer in self.layers]

    @staticmethod
    def _b_norm(layer: Layer) -> Tensor:
        return torch.stack([module.factors()[1].abs().max().float() for module in layer.modules.values()]).max()

    @property
    def model(self) -> Any:
        return self.peft_model.get_base_model()

    @property
    def rank(self) -> int:
        return int(next(iter(self.layers[0].modules.values())).factors()[0].shape[0])

    def moved(self, layer: int) -> None:
        """To be called once a layer's factors have been changed in place."""
        super().moved(layer)
        self.active[layer] = bool(self._b_norm(self.layers[layer]) != 0)

    def write(self, layer: int, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Make one candidate, factors of P = 1, the incumbent of a layer."""
        with torch.no_grad():
            for name, (a, b) in factors.items():
                current_a, current_b = self.layers[layer].modules[name].factors()
                current_a.copy_(a[0])
                current_b.copy_(b[0])
        self.moved(layer)

    def read(self, layer: int) -> Factors:
        """A copy of a layer's incumbent as factors of P = 1."""
        return {name: (m.factors()[0].detach()[None].clone(), m.factors()[1].detach()[None].clone())
                for name, m in self.layers[layer].modules.items()}  # fmt: skip

    def state(self) -> list[Factors]:
        """A copy of every layer's incumbent."""
        return [self.read(index) for index in range(len(self.layers))]

    def restore(self, state: Sequence[Factors]) -> None:
        for index, factors in enumerate(state):
            self.write(index, factors)

    def clear(self) -> None:
        """The base model again: every B becomes 0."""
        for index, factors in enumerate(self.state()):
            self.write(index, {name: (a, torch.zeros_like(b)) for name, (a, b) in factors.items()})

    def _write_folder(self, folder: Path) -> None:
        """A standard PEFT folder with safetensors."""
        with warnings.catch_warnings():
            # PEFT asks the hub whether the vocabulary changed; offline it says that it could not.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            self.peft_model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def attach(language_model: LanguageModel, rank: int = 4, targets: Sequence[str] = ()) -> Adapter:
    """Put empty LoRA modules (A = B = 0) on a model.

    Args:
        language_model: what ``models.load`` gave.
        rank: r >= 1.
        targets: roles (``targets.ROLES``) or ends of module names; empty means query and key of self-attention.

    Raises:
        UserError: a rank that cannot work; a target that the model does not have.
    """
    model = language_model.model
    chosen = targets_of(model, targets)
    smallest = most_rank(model, chosen)
    if not 1 <= rank <= smallest:
        raise UserError(f"rank: {rank} cannot work; the adapted modules allow 1 to {smallest}")
    config = LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(chosen), bias="none",
        exclude_modules=colliding(chosen, model) or None,
        fan_in_fan_out=type(model.get_submodule(next(iter(chosen)))).__name__ == "Conv1D",
    )  # fmt: skip
    # get_peft_model draws A at random from torch's global generator; leave that generator as it was.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # of one model's Linear beside its Conv1D
        peft_model = get_peft_model(model, config)
    saved: Any = peft_model.peft_config["default"]
    saved.base_model_name_or_path = language_model.name
    saved.task_type = _TASK_TYPES.get(language_model.kind)  # for those who load it with AutoPeftModelFor...
    adapter = Adapter(_frozen(peft_model), _layers(peft_model, chosen))
    with torch.no_grad():
        for layer in adapter.layers:
            for module in layer.modules.values():
                module.factors()[0].zero_()
    return adapter


def most_rank(model: Any, names: Iterable[str]) -> int:
    """The highest rank that an update of each of some linear maps can have: their least number of inputs or outputs."""
    return min(min(features(model.get_submodule(name))) for name in names)


def detach(language_model: LanguageModel) -> None:
    """Take all LoRA modules off a model: it is as it was before ``attach`` or ``load``."""
    model = language_model.model
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    if hasattr(model, "peft_config"):  # by which PEFT knows a model that it has changed
        del model.peft_config


def load(language_model: LanguageModel, folder: str) -> Adapter:
    """Load a saved LoRA adapter of this model.

    Raises:
        UserError: no adapter there, one for another model, or one with parts that the engine does not know (DoRA, ...).
    """
    model = language_model.model
    config = checked_config(model, folder, language_model.name)
    targets = dict.fromkeys(config.target_modules or (), "qk")  # PEFT shortens the names once it has them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PEFT only warns of missing weights; here that is another model's adapter
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            device = str(language_model.device)
            peft_model = PeftModel.from_pretrained(
                model, str(Path(folder).expanduser()), config=config, torch_device=device
            )
    except Exception as error:  # of PEFT, safetensors or torch; what could be foreseen has been looked for
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"adapter: {folder!r} does not fit {language_model.name!r} ({reason:.200})") from error
    layers = _layers(_frozen(peft_model), targets)
    if not layers:
        raise UserError(f"adapter: {folder!r} adapts no block of {language_model.name!r} that reads text")
    _fold_scale(peft_model, layers)
    return Adapter(peft_model, layers)


def _fold_scale(peft_model: PeftModel, layers: Sequence[Layer]) -> None:
    """Move alpha / r into B: here the scale is 1, in the modules and in the configuration that a save would write."""
    with torch.no_grad():
        for layer in layers:
            for module in layer.modules.values():
                module.factors()[1].mul_(module.lora.scaling["default"])
                module.lora.scaling["default"] = 1.0
    config: Any = peft_model.peft_config["default"]
    config.lora_alpha, config.alpha_pattern, config.use_rslora = config.r, dict(config.rank_pattern), False


def _frozen(peft_model: PeftModel) -> PeftModel:
    peft_model.eval().requires_grad_(False)
    return peft_model


def _layers(peft_model: PeftModel, targets: dict[str, str]) -> list[Layer]:
    """The adapted modules by block; ``targets``: path -> parts of a fused projection that are searched."""
    model = peft_model.get_base_model()
    run, rows = text_blocks(model), searched_rows(model, targets)
    grouped: dict[str, dict[str, LoraModule]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            block = block_of(model, name)
            if block is None:
                raise UserError(f"adapter: {name!r} lies outside the model's layers")
            if run is None or block in run:  # others do nothing to a text
                grouped.setdefault(block, {})[name] = LoraModule(
                    name, module, *features(module.base_layer), rows.get(name)
                )
    return [Layer(block, modules) for block, modules in grouped.items()]


def _dequantised(linear: Any) -> Tensor:
    weight = linear.weight
    if type(weight).__name__ == "Int8Params":
        # Not by PEFT, which on a CPU leaves the layer without its scales. Rows are scaled to 127 (LLM.int8()).
        scales = linear.state.SCB if linear.state.SCB is not None else weight.SCB
        return weight.data.float() * scales.float()[:, None] / 127
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(linear)
