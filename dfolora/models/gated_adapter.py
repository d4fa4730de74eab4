"""LoRA whose rank-one components are weighted by the text: Delta W(x) = sum_i w_i(x) b_i a_i^T, one gate a layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter, Layer
from dfolora.models.instances import Instances
from dfolora.models.load import LanguageModel
from dfolora.models.prompt_folder import GATED_LORA, read_tensors
from dfolora.models.prompted import lookups
from dfolora.models.soft_prompt import Gate, prompt_forward
from dfolora.models.soft_tokens import SoftTokens
from dfolora.models.tuned import TunedModel

WEIGHTS = "gated_lora.safetensors"

State = dict[str, Tensor]
"""Of one layer: ``<module>/a`` (r, in), ``<module>/b`` (out, r), and of its gate ``b`` (r, k) and ``c`` (r,)."""


class Texts:
    """Which text each row of a call belongs to, noted at every call of the model."""

    def __init__(self, tokens: SoftTokens) -> None:
        self.tokens = tokens
        self.number = torch.zeros(0, dtype=torch.long)

    def note(self, module: nn.Module, args: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """A hook before the model's forward."""
        ids: Tensor = arguments["input_ids"] if "input_ids" in arguments else args[0]
        number = self.tokens.split(ids)[1].amax(1)
        goes_on = ids.shape[1] == 1 and len(ids) == len(self.number) and not bool(number.any())
        if not goes_on:  # a token that has just been generated says nothing: it belongs to the text before it
            self.number = number


def gated_forward(
    base: nn.Module, a: Tensor, b: Tensor, gate: Gate, texts: Texts, instances: Instances
) -> Callable[..., Tensor]:
    """A forward of W + sum_i w_i(x) b_i a_i^T.

    Args:
        base: W.
        a, b: (P, r, in) and (P, out, r).
        gate: of P candidates, ``b`` (P, r, k) and ``c`` (P, r).
        texts: which text a row belongs to; instances: the texts' features.

    Returns:
        forward(x (P * R, ..., in)) -> (P * R, ..., out), candidate-major.
    """

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = base(x)
        if len(x) != len(texts.number):
            raise ValueError("rows that nobody knows the texts of")
        features = instances.features(x.device)[texts.number].unflatten(0, (len(a), -1))  # (P, R, k)
        weights = (2 * torch.sigmoid(features @ gate.b.mT + gate.c[:, None])).to(x.dtype)  # (P, R, r)
        u = x.reshape(len(a), -1, x.shape[-1]) @ a.mT  # (P, R T, r)
        u = (u.view(*weights.shape[:2], -1, u.shape[-1]) * weights[:, :, None]).view(u.shape)
        return y + (u @ b.mT).view(y.shape)

    return forward


class GatedAdapter(TunedModel):
    """LoRA with a gate a layer.

    Attributes:
        lora: PEFT's modules, which hold nothing: this class runs instead of them.
        texts, instances: what the gates see.
        tuned: per layer what stands now, float32.
        layers: the adapted blocks, for the engine; without modules.
    """

    def __init__(self, lora: Adapter, tokens: SoftTokens, instances: Instances, language_model: LanguageModel) -> None:
        """Put empty gates on; every component weighs 1, and B is 0."""
        self.lora, self.tokens, self.instances, self.language_model = lora, tokens, instances, language_model
        self.layers = [Layer(layer.name, {}) for layer in lora.layers]
        self.versions, self.active = [0] * len(self.layers), [True] * len(self.layers)
        self.learned = {}
        for name in lookups(language_model):
            module = self.model.get_submodule(name)
            module.forward = prompt_forward(module, tokens, None, None, None)
        self.texts = Texts(tokens)
        self.model.register_forward_pre_hook(self.texts.note, with_kwargs=True)
        self.tuned: list[State] = [{} for _ in self.layers]
        for layer in range(len(self.layers)):
            self.write(layer, self.empty(layer))

    @property
    def model(self) -> Any:
        return self.lora.model

    def empty(self, layer: int) -> State:
        """A layer that adds nothing, with gates that let everything pass."""
        state: State = {}
        for name, module in self.lora.layers[layer].modules.items():
            a, b = module.factors()
            state |= {f"{name}/a": torch.zeros_like(a), f"{name}/b": torch.zeros_like(b)}
        return state | {"b": torch.zeros(self.lora.rank, self.instances.count), "c": torch.zeros(self.lora.rank)}

    def forward_of(self, module: Any, a: Tensor, b: Tensor, gate: Gate) -> Callable[..., Tensor]:
        """A forward of an adapted module with P candidates; ``module`` is PEFT's."""
        return gated_forward(module.base_layer, a, b, gate, self.texts, self.instances)

    def write(self, layer: int, state: Mapping[str, Tensor]) -> None:
        """Make a candidate the incumbent of a layer."""
        device, dtype = self.language_model.device, self.language_model.model.dtype
        self.tuned[layer] = {name: part.detach().to(device, torch.float32).clone() for name, part in state.items()}
        found = {name: part[None] for name, part in self.tuned[layer].items()}
        gate = Gate(found["b"], found["c"])
        for name, module in self.lora.layers[layer].modules.items():
            a, b = found[f"{name}/a"].to(dtype), found[f"{name}/b"].to(dtype)
            module.lora.forward = self.forward_of(module.lora, a, b, gate)
        self.moved(layer)

    def state(self) -> list[Any]:
        return [{name: part.clone() for name, part in state.items()} for state in self.tuned]

    def restore(self, state: Sequence[Any]) -> None:
        for layer, each in enumerate(state):
            self.write(layer, each)

    def clear(self) -> None:
        """The base model again: every B becomes 0."""
        for layer in range(len(self.layers)):
            self.write(layer, self.empty(layer))

    def _write_folder(self, folder: Path) -> None:
        center, axes = self.instances.fitted
        tensors = {f"{layer}/{name}": part.cpu().contiguous()
                   for layer, state in enumerate(self.tuned) for name, part in state.items()}  # fmt: skip
        tensors |= {"center": center, "axes": axes}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
        about = {
            "type": "gated LoRA", "base_model_name_or_path": self.language_model.name, "rank": self.lora.rank,
            "modules": [name for layer in self.lora.layers for name in layer.modules],
            "gate": "2 * sigmoid(b @ (axes @ (mean word embedding - center)) + c), one for each rank-one component",
        }  # fmt: skip
        (folder / GATED_LORA).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def load(language_model: LanguageModel, folder: str, tokens: SoftTokens, instances: Instances) -> GatedAdapter:
    """Put what a folder holds on a model; the features of ``instances`` are filled in.

    Raises:
        UserError: files missing or spoiled, or of another model.
    """
    path = Path(folder).expanduser()
    tensors = read_tensors(path / WEIGHTS)
    try:
        about = json.loads((path / GATED_LORA).read_text(encoding="utf-8"))
        rank, names = int(about["rank"]), [str(name) for name in about["modules"]]
        instances.use(tensors.pop("center"), tensors.pop("axes"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"adapter: {folder!r} holds no {GATED_LORA} that can be read ({error!s:.100})") from error
    gated = GatedAdapter(adapters.attach(language_model, rank, names), tokens, instances, language_model)
    for layer, state in enumerate(gated.tuned):
        found = {name: tensors.get(f"{layer}/{name}", torch.zeros(0)) for name in state}
        if any(found[name].shape != part.shape for name, part in state.items()):
            raise UserError(f"adapter: {folder!r} does not fit {language_model.name!r}: tensors of other shapes")
        gated.write(layer, found)
    return gated
