"""A model with a soft prompt in every layer: keys and values that stand before those of every text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfolora.errors import UserError
from dfolora.models.adapter import Layer
from dfolora.models.load import LanguageModel
from dfolora.models.prefix_folder import write_prefix
from dfolora.models.prompted import lookups
from dfolora.models.soft_prompt import prompt_forward
from dfolora.models.soft_tokens import SoftTokens
from dfolora.models.targets import keys_and_values
from dfolora.models.tuned import TunedModel

State = dict[str, Tensor]
"""Of one layer: ``k`` and ``v``, (m, width) each as its linear map gives them, before norms and rotations."""


class Places:
    """Where the soft tokens stand in what the model is called with, noted at every call."""

    def __init__(self, tokens: SoftTokens) -> None:
        self.tokens = tokens
        self.shape: tuple[int, ...] = ()
        self.row = self.column = self.which = torch.empty(0, dtype=torch.long)

    def note(self, module: nn.Module, args: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """A hook before the model's forward."""
        ids: Tensor = arguments["input_ids"] if "input_ids" in arguments else args[0]
        token, _ = self.tokens.split(ids)
        self.shape = tuple(ids.shape)
        self.row, self.column = (token >= self.tokens.vocabulary).nonzero(as_tuple=True)
        self.which = token[self.row, self.column] - self.tokens.vocabulary


class Part(NamedTuple):
    """What a linear map gives for soft tokens: ``values`` (P, m, width) in its output ``rows`` (None: in all)."""

    rows: Tensor | None
    values: Tensor


def prefix_forward(module: nn.Module, places: Places, parts: Sequence[Part]) -> Callable[..., Tensor]:
    """A forward of a map of keys or values, or of both, that gives P candidates' own for soft tokens.

    Returns:
        forward(x (P * R, T, in)) -> (P * R, T, out), candidate-major.
    """

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = type(module).forward(module, x, *args, **kwargs)
        if not len(places.row):
            return y
        if y.shape[:2] != places.shape:
            raise ValueError("keys and values of some tokens only, and nobody knows of which")
        own = y[places.row, places.column]  # (n, out)
        for rows, values in parts:
            candidate = places.row // (len(y) // len(values))
            found = values[candidate, places.which].to(y.dtype)
            own = found if rows is None else own.index_copy(1, rows.to(y.device), found)
        return y.index_put((places.row, places.column), own)

    return forward


class DeepPrompted(TunedModel):
    """A model whose layers know soft tokens, from when this is made until ``detach``.

    Attributes:
        tokens: how ids are read; places: where they stand.
        layers: the model's blocks; without modules.
        maps: per block, the maps of keys and values, see ``keys_and_values``.
        tuned: per layer, ``k`` and ``v`` as they stand, float32.
    """

    def __init__(self, language_model: LanguageModel, tokens: SoftTokens) -> None:
        """Find the maps; the model is as it was until ``write``.

        Raises:
            UserError: an encoder-decoder; a model whose keys and values are not known.
        """
        if language_model.kind == "seq2seq":
            raise UserError(
                "tune: deep-prompt is for models that are an encoder or a decoder alone; choose prompt for "
                f"{language_model.name!r}, which is both"
            )
        self.language_model, self.tokens = language_model, tokens
        found = keys_and_values(self.model)
        self.layers = [Layer(name, {}) for name in found]
        self.maps = list(found.values())
        self.versions, self.active = [0] * len(self.layers), [True] * len(self.layers)
        self.learned = {}
        self.tuned: list[State] = [{} for _ in self.layers]
        self.places = Places(tokens)
        self.model.register_forward_pre_hook(self.places.note, with_kwargs=True)
        lookup = self.model.get_submodule(lookups(language_model)[0])
        lookup.forward = prompt_forward(lookup, tokens, None, None, None)
        self._lookup = lookup

    @property
    def model(self) -> Any:
        return self.language_model.model

    def parts_of(self, layer: int, state: Mapping[str, Tensor]) -> dict[str, list[Part]]:
        """Candidates of a layer, ``k`` and ``v`` (P, m, width), by the linear map that they are put into."""
        parts: dict[str, list[Part]] = {}
        for part, (name, rows) in self.maps[layer].items():
            parts.setdefault(name, []).append(Part(rows, state[part]))
        return parts

    @torch.inference_mode()
    def of_words(self, prompt: Tensor) -> list[State]:
        """What the layers make of m words' embeddings (m, d) with nothing behind them."""
        device, dtype = self.language_model.device, next(self._lookup.parameters()).dtype
        before, found = self._lookup.forward, [State() for _ in self.layers]
        hooks = []
        for layer, maps in enumerate(self.maps):
            for part, (name, rows) in maps.items():

                def keep(
                    module: nn.Module, args: Any, y: Tensor, layer: int = layer, part: str = part,
                    rows: Tensor | None = rows,
                ) -> None:  # fmt: skip
                    own = y[0] if rows is None else y[0][:, rows.to(y.device)]
                    found[layer][part] = own.float().clone()

                hooks.append(self.model.get_submodule(name).register_forward_hook(keep))
        self._lookup.forward = prompt_forward(self._lookup, self.tokens, prompt.to(device, dtype)[None], None, None)
        try:
            self.model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids))
        finally:
            self._lookup.forward = before
            for hook in hooks:
                hook.remove()
        return found

    @property
    def ids(self) -> Tensor:
        """(1, m): the soft tokens alone."""
        return torch.tensor([self.tokens.before([])], device=self.language_model.device)

    def write(self, layer: int, state: Mapping[str, Tensor]) -> None:
        """Make a candidate, ``k`` and ``v`` (m, width), the incumbent of a layer."""
        self.tuned[layer] = {
            part: each.detach().to(self.language_model.device, torch.float32).clone() for part, each in state.items()
        }
        parts = self.parts_of(layer, {part: each[None] for part, each in self.tuned[layer].items()})
        for name, each in parts.items():
            module = self.model.get_submodule(name)
            module.forward = prefix_forward(module, self.places, each)
        self.moved(layer)

    def state(self) -> list[Any]:
        return [{part: each.clone() for part, each in state.items()} for state in self.tuned]

    def restore(self, state: Sequence[Any]) -> None:
        for layer, each in enumerate(state):
            self.write(layer, each)

    def clear(self) -> None:
        """Nothing: texts without soft tokens are read as the model reads them."""

    def _write_folder(self, folder: Path) -> None:
        write_prefix(folder, self.language_model, self.ids, self.tuned)


def load(language_model: LanguageModel, folder: str, tokens: SoftTokens, tensors: Mapping[str, Tensor]) -> DeepPrompted:
    """Put a deep prompt on a model; ``tensors`` as ``prefix_folder.read_prefix`` gives them.

    Raises:
        UserError: they are of another model.
    """
    deep = DeepPrompted(language_model, tokens)
    plain = deep.of_words(torch.zeros(tokens.count, language_model.model.get_input_embeddings().weight.shape[1]))
    wanted = {f"{layer}/{part}": each.shape for layer, state in enumerate(plain) for part, each in state.items()}
    if {name: part.shape for name, part in tensors.items()} != wanted:
        raise UserError(f"adapter: {folder!r} does not fit {language_model.name!r}: other layers, or of another width")
    for layer in range(len(deep.layers)):
        deep.write(layer, {part: tensors[f"{layer}/{part}"] for part in ("k", "v")})
    return deep
