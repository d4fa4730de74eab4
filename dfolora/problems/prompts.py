"""The problem of tuning a soft prompt: numbers in, losses out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.prompted import Prompted
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.parted import PartedProblem
from dfolora.seeds import seed_of
from dfolora.subspaces.prompts import PromptSpace, starting_prompt


class PromptProblem(PartedProblem[Prompted]):
    """A problem with a single part: the soft prompt before every text, and its gate where there is one."""

    parts: list[PromptSpace]

    def prepare(
        self,
        subspace: str = "random",
        dim: int = 500,
        scale: float = 1.0,
        text: str = "",
        measured: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Build the part; the prompt starts at z = 0.

        Args:
            subspace, dim, scale: as for ``PromptSpace``.
            text: words that the prompt starts from; '': drawn by the seed.
            measured: what an earlier call returned; None: measure on the few-shot and dev set, labels unseen, now.

        Returns:
            What the search starts from: ``start`` (m, d), and for a gate the features' ``center`` and ``axes``.

        Raises:
            UserError: the model's own loss is not a number; measurements of another model.
        """
        start = begin(self, text, measured)
        self.check_base()
        self.parts = [PromptSpace(self.adapter, start, subspace, dim, self.seed, scale)]
        self.keep(torch.zeros(self.parts[0].dim))
        self._verify()
        self.engine.reset_counts()
        return measurements(self.adapter, start)

    def keep(self, candidate: Tensor, part: int = 0) -> None:
        self.adapter.write({name: found[0] for name, found in self.parts[part].state(candidate[None]).items()})

    def save(self, folder: str | Path) -> None:
        """Write the prompt as a folder: PEFT's, or with a gate ours."""
        self.adapter.save(Path(folder), {"README.md": "# A soft prompt found by dfolora\n"})


def begin(problem: PartedProblem[Prompted], text: str, measured: Mapping[str, Tensor] | None) -> Tensor:
    """Put the starting prompt on a problem's model, and its texts' features in their place; P0 (m, d)."""
    prompted = problem.adapter
    table = prompted.model.get_input_embeddings().weight
    if measured is None:
        start = words_to_start(problem.encoder, prompted.tokens.count, text, problem.seed)
        if prompted.instances is not None:
            prompted.instances.fit()
    else:
        try:
            start = measured["start"].to(table.device)
            if prompted.instances is not None:
                prompted.instances.use(measured["center"], measured["axes"])
        except KeyError as error:
            raise UserError(f"resume: measured.safetensors belongs to another run (it has no {error})") from error
        if start.shape != (prompted.tokens.count, table.shape[1]):
            raise UserError(f"resume: measured.safetensors belongs to another model ({tuple(start.shape)})")
    prompted.write({"prompt": start, **prompted.open_gate()})
    return start


def words_to_start(encoder: PromptEncoder, count: int, text: str, seed: int) -> Tensor:
    """P0 (m, d): the embeddings of a text's words, over and over, or of words drawn by a seed where it is empty."""
    table = encoder.language_model.model.get_input_embeddings().weight
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return starting_prompt(table, ids, count, seed_of(seed, "prompt"))


def measurements(prompted: Prompted, start: Tensor) -> dict[str, Tensor]:
    """What a run of prompts starts from, to be saved."""
    found = {"start": start.cpu()}
    if prompted.instances is not None:
        found["center"], found["axes"] = prompted.instances.fitted
    return found
