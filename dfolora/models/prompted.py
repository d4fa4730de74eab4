"""A model with a soft prompt before every text, gated by the text or not; its own weights stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.errors import UserError
from dfolora.models.adapter import Layer
from dfolora.models.instances import Instances
from dfolora.models.load import LanguageModel
from dfolora.models.prompt_folder import check_width, read_prompt, write_prompt
from dfolora.models.soft_prompt import Gate, prompt_forward
from dfolora.models.soft_tokens import SoftTokens
from dfolora.models.targets import block_names
from dfolora.models.tuned import TunedModel

State = dict[str, Tensor]
"""``prompt`` (m, d), and where there is a gate ``b`` (m, k) and ``c`` (m,)."""


class Prompted(TunedModel):
    """A model whose look-up of embeddings knows soft tokens, from when this is made until ``detach``.

    Attributes:
        embedding: dotted path of the module that looks up the words of texts.
        tokens: how ids are read.
        instances: features of texts, where there is a gate; else None.
        prompt: (m, d) float32, as it stands; gate: of one candidate, or None.
        layers: the model's blocks, for the engine to count and cut; without modules.
    """

    def __init__(
        self, language_model: LanguageModel, tokens: SoftTokens, prompt: Tensor, instances: Instances | None = None
    ) -> None:
        """Put a prompt on a model, without a gate or with one that lets everything pass.

        Args:
            language_model: with its weights.
            tokens: m soft tokens.
            prompt: (m, d).
            instances: gives the texts' features to a gate; None: there is no gate.

        Raises:
            UserError: the model looks up no embeddings that could be edited.
        """
        self.language_model = language_model
        self.layers = [Layer(name, {}) for name in block_names(language_model.model)]
        self.versions = [0] * len(self.layers)
        self.active = [True] * len(self.layers)
        self.learned: dict[Hashable, Any] = {}
        self.tokens, self.instances = tokens, instances
        self.embedding, *others = lookups(language_model)
        for name in others:  # a decoder's, which reads no soft tokens
            module = self.model.get_submodule(name)
            module.forward = prompt_forward(module, tokens, None, None, None)
        self.write({"prompt": prompt, **self.open_gate()})

    @property
    def model(self) -> Any:
        return self.language_model.model

    def open_gate(self) -> State:
        """A gate that lets everything pass; {} where there is none."""
        if self.instances is None:
            return {}
        return {"b": torch.zeros(self.tokens.count, self.instances.count), "c": torch.zeros(self.tokens.count)}

    def write(self, state: Mapping[str, Tensor]) -> None:
        """Make a candidate the incumbent."""
        parameter = next(self.module.parameters())
        self.tuned = {name: part.detach().to(parameter.device, torch.float32).clone() for name, part in state.items()}
        self.module.forward = self.forward_of({name: part[None] for name, part in self.tuned.items()})
        for layer in range(len(self.layers)):
            self.moved(layer)

    def forward_of(self, state: Mapping[str, Tensor]) -> Any:
        """A forward of the look-up with candidates, each tensor (P, ...)."""
        gate = Gate(state["b"], state["c"]) if "b" in state else None
        prompt = state["prompt"].to(next(self.module.parameters()).dtype)
        return prompt_forward(self.module, self.tokens, prompt, gate, self.instances)

    @property
    def module(self) -> nn.Module:
        """What looks up the words of texts."""
        module: nn.Module = self.model.get_submodule(self.embedding)
        return module

    def state(self) -> list[Any]:
        return [{name: part.clone() for name, part in self.tuned.items()}]

    def restore(self, state: Sequence[Any]) -> None:
        self.write(state[0])

    def clear(self) -> None:
        """Nothing: texts without soft tokens are read as the model reads them."""

    def _write_folder(self, folder: Path) -> None:
        write_prompt(folder, self.language_model, self.tuned, self.instances)


def load(language_model: LanguageModel, folder: str, tokens: SoftTokens, instances: Instances | None) -> Prompted:
    """Put the prompt of a folder on a model.

    Args:
        language_model: with its weights.
        folder: as ``prompt_folder`` writes it.
        tokens, instances: of the encoder that texts come from; the features are filled in.

    Raises:
        UserError: files missing or spoiled, or of another model.
    """
    tensors = read_prompt(folder)
    check_width(language_model, folder, tensors["prompt"])
    if len(tensors["prompt"]) != tokens.count:
        raise UserError(
            f"adapter: {folder!r} says {tokens.count} soft tokens and holds {len(tensors['prompt'])}; a decoder's "
            "prompt beside the encoder's can be read by PEFT alone"
        )
    if instances is not None:
        instances.use(tensors["center"], tensors["axes"])
    prompted = Prompted(language_model, tokens, tensors["prompt"], instances)
    prompted.write({name: part for name, part in tensors.items() if name in ("prompt", "b", "c")})
    return prompted


def detach(model: nn.Module) -> None:
    """Take soft tokens and gates off a model: it looks up embeddings, and runs, as it did before."""
    ours = ("prompt_forward.", "prefix_forward.", "gated_forward.")
    for module in model.modules():
        if getattr(module.__dict__.get("forward"), "__qualname__", "").startswith(ours):
            del module.__dict__["forward"]
    for number, hook in list(model._forward_pre_hooks.items()):
        if hasattr(getattr(hook, "__self__", None), "tokens"):  # of what notes where soft tokens stand
            del model._forward_pre_hooks[number]
            model._forward_pre_hooks_with_kwargs.pop(number, None)


def lookups(language_model: LanguageModel) -> list[str]:
    """The modules that look up embeddings of token ids: that of texts first, then a decoder's if it is another.

    Raises:
        UserError: there is none that could be edited.
    """
    model, device = language_model.model, language_model.device
    texts = {"input_ids": torch.tensor([[2, 4, 3, 0, 2]], device=device)}
    if language_model.kind == "seq2seq":
        texts["decoder_input_ids"] = torch.tensor([[3, 0, 4]], device=device)
    found: dict[str, str] = {}
    hooks = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2 and len(weight) == language_model.vocabulary:

            def watch(module: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                for kind, ids in texts.items():
                    if args and isinstance(args[0], Tensor) and torch.equal(args[0], ids):
                        found.setdefault(kind, name)

            hooks.append(module.register_forward_pre_hook(watch))
    try:
        with torch.inference_mode(), contextlib.suppress(RuntimeError, ValueError, TypeError):
            model(**texts)
    finally:
        for hook in hooks:
            hook.remove()
    if "input_ids" not in found:
        raise UserError(
            f"tune: {language_model.name!r} looks up no input embeddings that a soft prompt could stand among; "
            "choose lora"
        )
    return list(dict.fromkeys(found[kind] for kind in texts if kind in found))


@contextlib.contextmanager
def learning(prompted: Prompted) -> Iterator[list[Tensor]]:
    """Within it the incumbent's tensors are leaves that gradients are taken of."""
    leaves = list(prompted.tuned.values())
    for leaf in leaves:
        leaf.requires_grad_(True)
    prompted.module.forward = prompted.forward_of({name: part[None] for name, part in prompted.tuned.items()})
    try:
        yield leaves
    finally:
        for leaf in leaves:
            leaf.requires_grad_(False)
        prompted.write(prompted.tuned)
