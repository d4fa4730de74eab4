"""The problem of tuning a deep prompt: numbers of a layer in, losses out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.deep_prompted import DeepPrompted
from dfolora.problems.adapters import Part
from dfolora.problems.parted import PartedProblem
from dfolora.problems.prompts import words_to_start
from dfolora.subspaces.prefixes import PrefixSpace


class PrefixProblem(PartedProblem[DeepPrompted]):
    """A problem whose parts are layers, searched in turn, or all at once with ``mode="joint"``."""

    parts: list[Part]

    def prepare(
        self, subspace: str = "random", dim: int = 500, scale: float = 1.0, text: str = "", mode: str = "layerwise",
        measured: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Build the parts; every layer starts at z = 0.

        Args:
            subspace, dim, scale: as for ``PrefixSpace``.
            text: words that the prompt starts from; '': drawn by the seed.
            mode: ``layerwise`` or ``joint``.
            measured: what an earlier call returned; None: found now.

        Returns:
            What the search starts from: ``<layer>/k`` and ``<layer>/v``.

        Raises:
            UserError: the model's own loss is not a number; measurements of another model.
        """
        deep = self.adapter
        if measured is None:
            states = deep.of_words(words_to_start(self.encoder, deep.tokens.count, text, self.seed))
        else:
            try:
                states = [
                    {part: measured[f"{layer}/{part}"].to(self.device) for part in ("k", "v")}
                    for layer in range(len(deep.layers))
                ]
            except KeyError as error:
                raise UserError(f"resume: measured.safetensors belongs to another model (it has no {error})") from error
        for layer, state in enumerate(states):
            deep.write(layer, state)
        self.check_base()
        spaces = [
            PrefixSpace(deep, layer, state, subspace, dim, self.seed, scale) for layer, state in enumerate(states)
        ]
        joint = mode == "joint"
        self.parts = [Part(None, spaces)] if joint else [Part(layer, [space]) for layer, space in enumerate(spaces)]
        self._verify()
        self.engine.reset_counts()
        return {f"{layer}/{part}": each.cpu() for layer, state in enumerate(states) for part, each in state.items()}

    def keep(self, candidate: Tensor, part: int = 0) -> None:
        chosen = self.parts[part]
        numbers = candidate[None].split([space.dim for space in chosen.subspaces], 1)
        first = chosen.layer or 0
        for layer, (space, z) in enumerate(zip(chosen.subspaces, numbers, strict=True), first):
            self.adapter.write(layer, {name: each[0] for name, each in space.state(z).items()})

    def save(self, folder: str | Path) -> None:
        """Write the deep prompt as a PEFT folder."""
        self.adapter.save(Path(folder), {"README.md": "# A deep prompt found by dfolora\n"})
