"""LoRA as it is usually tuned, by gradients: AdamW on A and B of all layers at once. The reference for the search.

Everything around it is what gradient-free search has: the same reading of the model, objective, few-shot set as one
batch, looks at the dev set, run folder and adapter. A step is one evaluation of the objective on the whole few-shot
set, with one backward pass for each forward; see ``Gradient`` for what these count as.

PEFT's initialisation: A uniform in +-1/sqrt(in), PyTorch's Kaiming default, and B zero, so that it starts exactly at
the base model. alpha / r is 1. No dropout, no schedule, no warm-up: a run depends on its seed by A alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.methods.gradient import Gradient
from dfolora.methods.search import Progress, check_base, digest
from dfolora.models.adapter import Adapter
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import make_objective
from dfolora.problems.selection import Selection
from dfolora.runs.folder import Generation, Run, checksum, finite
from dfolora.settings.config import TuneConfig
from dfolora.subspaces.lora import Lora
from dfolora.task import Example

LR = 1e-3
LOOKS = 20  # at the dev set in a run, where --dev-every does not say


class FirstOrder:
    """Tunes an adapter on a few-shot set by back-propagation.

    Attributes:
        adapter: holds the current factors while running, the selected ones afterwards.
        engine: the training batch.
        selection: the dev set, and the adapter that it likes best so far.
        chosen: indices of the layers that gradients are taken of: all of them.
        size: evaluations of a step.
        last: the line of the log at which the run stands.
    """

    def __init__(
        self,
        adapter: Adapter,
        scorer: PromptEncoder,
        train: Sequence[Example],
        dev: Sequence[Example],
        config: TuneConfig,
    ) -> None:
        self.adapter = adapter
        self.config = config
        rows = scorer.encode(train)
        self.selection = Selection(adapter, scorer, dev, "incumbent", config.chunk_tokens)
        self.data_checksum = digest([rows, self.selection.rows])
        self.engine = Gradient(adapter, rows, scorer.labels(train), config.chunk_tokens)
        self.labels = scorer.labels(train).to(self.engine.rows.owner.device)
        task = scorer.task
        self.objective = make_objective(
            config.objective, lambda found: task.main(task.measure(train, found)), task.new_tokens > 0
        )
        self.modules = {name: module for layer in adapter.layers for name, module in layer.modules.items()}
        self.last = self.selection.best
        self.size = 1
        self._choose(range(len(adapter.layers)))

    def prepare(self, resume: Run | None = None) -> None:
        """Set the factors to where they start, or to where an interrupted run goes on; its log is cut back to there.

        Raises:
            UserError: the base model's own loss is not a number; the run's state is damaged or not that of its log.
        """
        check_base(self.engine, self.labels, self.config)
        for index, layer in enumerate(self.adapter.layers):
            start = {}
            for name, module in layer.modules.items():
                a, b = module.factors()
                # The draw of --subspace lora, so that zeroth-order runs of the same seed start from the same A.
                drawn = Lora.a_side(module, a, self.config.rank, self.config.seed)
                start[name] = (drawn[None], torch.zeros_like(b)[None])
            self.adapter.write(index, start)
        self.engine.reset_counts()
        if resume is not None and resume.replay:
            self._go_on(resume)

    def fit(self, run: Run, progress: Progress = lambda state, best: None) -> None:
        """Step until the budget is spent; then load the selected adapter.

        A loss that is not a number ends the run: there is no gradient, and every step after it would be the same.
        """
        state = run.replay[-1] if run.replay else self.selection.begin(run, None)
        progress(state, self.selection.best)
        for factor in self.factors:
            factor.requires_grad_(True)
        while state.evaluations + self.size <= self.config.budget:
            started = time.perf_counter()
            here = self._checksum()
            losses = self._generation()
            before, state = state, state.next(self.engine, here, finite(losses), started)
            due = look_is_due(self.config, self.size, before, state)
            if due:
                self.selection.look(state)
            run.log(state)
            if due:
                self._save(run, state.generation)
            progress(state, self.selection.best)
            if not losses[0].isfinite():
                break
        for factor in self.factors:
            factor.requires_grad_(False)
        self.last = state
        self.selection.restore()

    # -- parts of the loop ------------------------------------------------------------------------------------------

    def _choose(self, layers: Sequence[int]) -> None:
        """Make these layers the ones that AdamW tunes."""
        self.chosen = list(layers)
        modules = [module for index in layers for module in self.adapter.layers[index].modules.values()]
        self.factors = [factor for module in modules for factor in module.factors()]
        rate = self.config.lr or LR
        self.optimizer = torch.optim.AdamW(self.factors, lr=rate, weight_decay=self.config.weight_decay)

    def _generation(self) -> Tensor:
        """One step; the losses that it took, that of the factors before it first."""
        losses = self._gradient()
        if bool(losses.isfinite()):
            self.optimizer.step()
            for index in self.chosen:
                self.adapter.moved(index)
        self.optimizer.zero_grad()
        return losses.cpu()

    def _gradient(self) -> Tensor:
        """The loss (1,); leaves its gradient in the factors."""
        losses = self.engine(self.objective)
        for module in self.modules.values():
            grad = module.factors()[1].grad
            if module.rows is not None and grad is not None:  # value rows of a fused projection are not adapted
                kept = torch.zeros_like(grad)
                kept[module.rows] = grad[module.rows]
                grad.copy_(kept)
        return losses

    def _checksum(self) -> str:
        factors = [factor for module in self.modules.values() for factor in module.factors()]
        return checksum(torch.cat([factor.detach().float().flatten().cpu() for factor in factors])[None])

    # -- interruption -----------------------------------------------------------------------------------------------

    def _go_on(self, run: Run) -> None:
        """Load what was kept at the last look that was. What was logged after it will be run again."""
        self.selection.begin(run, run.replay[0])
        tensors, generation = run.load_state()
        ahead = run.replay[generation + 1 : generation + 2]
        if not generation:
            run.rewind(0)
            return
        try:
            self._load(tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"--resume: the state of {str(run.folder)!r} belongs to another model") from error
        if ahead and ahead[0].checksum != self._checksum():
            raise UserError(f"--resume: {str(run.folder)!r} cannot go on: its state is not the one that was logged")
        run.rewind(generation)
        for line in run.replay:
            if line.dev and line.generation:
                self.selection.choose(line)
        self.selection.kept = [
            {name: (tensors[f"kept/{name}/a"][None], tensors[f"kept/{name}/b"][None]) for name in layer.modules}
            for layer in self.adapter.layers
        ]

    def _save(self, run: Run, generation: int) -> None:
        """Write the factors, the selected ones, AdamW's moments and the layers that they are of."""
        tensors = {"chosen": torch.tensor(self.chosen)}
        for what, factors in (("now", self.adapter.state()), ("kept", self.selection.kept)):
            for layer in factors:
                for name, (a, b) in layer.items():
                    tensors[f"{what}/{name}/a"], tensors[f"{what}/{name}/b"] = a[0], b[0]
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors.update({f"adamw/{number}/{name}": tensor for name, tensor in moments.items()})
        run.save_state(tensors, generation)

    def _load(self, tensors: dict[str, Tensor]) -> None:
        for index, layer in enumerate(self.adapter.layers):
            now = {name: (tensors[f"now/{name}/a"][None], tensors[f"now/{name}/b"][None]) for name in layer.modules}
            self.adapter.write(index, now)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("adamw/"):
                _, number, name = key.split("/")
                moments.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})


def look_is_due(config: TuneConfig, size: int, before: Generation, state: Generation) -> bool:
    """Whether the dev set is to be asked after a step, of so many evaluations, of a method that has no sweeps."""
    every = config.dev_every or max(1, config.budget // LOOKS)
    last = state.evaluations + size > config.budget and not config.dev_every
    return last or state.evaluations // every > before.evaluations // every
