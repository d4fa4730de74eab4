"""From the numbers of a candidate to a soft prompt and its gate.

Black-Box Tuning (arXiv 2201.03514): P = P0 + reshape(A z), with A random and fixed, its numbers scaled so that the
entries of A z for z ~ N(0, I) have the standard deviation of the embedding table (times ``scale``). A gate's logits for
such z have standard deviation 1. z = 0 is P0 with a gate that lets everything pass.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfolora.engine.soft_prompt import SoftPrompt
from dfolora.errors import UserError
from dfolora.models.prompted import Prompted
from dfolora.models.soft_prompt import Gate
from dfolora.subspaces.directions import normal


class PromptSpace:
    """What a search of a soft prompt moves.

    Attributes:
        layer: None: a prompt belongs to no layer.
        dim: d, of the prompt and then of the gate.
    """

    layer: int | None = None

    def __init__(self, prompted: Prompted, start: Tensor, subspace: str, dim: int, seed: int, scale: float) -> None:
        """Draw the projection.

        Args:
            prompted: the model with its prompt; with a gate where it has ``instances``.
            start: P0 (m, d).
            subspace: ``random``: ``dim`` numbers are projected; ``full``: every entry of P is searched; ``gate``: none.
            dim: numbers of the prompt, for ``random``.
            seed: of the projection.
            scale: see above.

        Raises:
            UserError: a ``gate`` that has no feature to go by.
        """
        self._prompted = prompted
        self._start = start.to(prompted.model.device, torch.float32)
        table = prompted.model.get_input_embeddings().weight
        unit = scale * float(table.float().std())
        count, width = start.shape
        self._projection: Tensor | None = None
        self._unit = unit
        if subspace == "random":
            self._projection = (normal(seed, "prompt", dim, count * width) * unit / math.sqrt(dim)).to(start.device)
        of_prompt = {"random": dim, "full": count * width, "gate": 0}[subspace]
        self._features = 0 if prompted.instances is None else prompted.instances.count
        of_gate = count * (self._features + 1) if prompted.instances is not None else 0
        self.dim = of_prompt + of_gate
        self._of_prompt = of_prompt
        if prompted.instances is not None and not self._features:
            raise UserError("tune: ipl needs texts that differ; all of the few-shot set are the same")

    def state(self, z: Tensor) -> dict[str, Tensor]:
        """Candidates (P, d) as tensors: ``prompt`` (P, m, d), and of a gate ``b`` (P, m, k) and ``c`` (P, m)."""
        z = z.to(self._start.device, torch.float32)
        moved, gate = z[:, : self._of_prompt], z[:, self._of_prompt :]
        if self._projection is not None:
            change = moved @ self._projection.to(z.device)
        else:
            change = moved * self._unit if self._of_prompt else moved.new_zeros(len(z), self._start.numel())
        state = {"prompt": self._start + change.view(len(z), *self._start.shape)}
        if self._prompted.instances is not None:
            numbers = gate.view(len(z), len(self._start), -1) / math.sqrt(self._features + 1)
            state |= {"b": numbers[..., :-1].contiguous(), "c": numbers[..., -1].contiguous()}
        return state

    def edits(self, z: Tensor) -> dict[str, SoftPrompt]:
        """Candidates (P, d) as an edit of the look-up of embeddings."""
        state = self.state(z)
        gate = Gate(state["b"], state["c"]) if "b" in state else None
        prompted = self._prompted
        return {prompted.embedding: SoftPrompt(state["prompt"], gate, prompted.tokens, prompted.instances)}


def starting_prompt(table: Tensor, ids: list[int], count: int, seed: int) -> Tensor:
    """P0 (m, d) float32: the embeddings of some words, over and over, or where none are named of words drawn by a seed.

    Args:
        table: (V, d), the embeddings.
        ids: the words.
        count: m.
        seed: of the draw.
    """
    if ids:
        chosen = [ids[index % len(ids)] for index in range(count)]
    else:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(table), (count,), generator=generator).tolist()
    return table[torch.tensor(chosen, device=table.device)].detach().float().clone()
