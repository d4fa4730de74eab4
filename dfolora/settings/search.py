"""Settings of the method ``search``: what is tuned, in which subspace, by which optimizer, on which workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from dfolora.errors import UserError
from dfolora.settings.options import as_text, option
from dfolora.settings.tune import RUN, SEARCH, TuneSettings

PROMPTS = ("prompt", "deep-prompt", "ipl")  # what stands before a text
GATED = ("ipl", "ipl-lora")  # what depends on it
TUNED = ("lora", "prompt", "deep-prompt", "ipl", "ipl-lora")


@dataclass(frozen=True, kw_only=True)
class SubspaceSettings(TuneSettings):
    """What every method takes that moves layers within subspaces, as ``opening_methods.open_problem`` reads it."""

    tune: str = option("lora", "what is tuned: " + ", ".join(TUNED), group=SEARCH, choices=TUNED)
    prompt_tokens: int = option(16, "soft tokens before every text", group=SEARCH, least=1)
    prompt_text: str = option(
        "", "words that the soft tokens start from, over and over; nothing: words drawn by the seed", group=SEARCH
    )
    gate_features: int = option(8, "features of a text that its gate sees", group=SEARCH, least=1)
    subspace: Any = option(
        "pca",
        "where to search: see `dfolora subspaces`; a prompt: random (the default there), full, or gate (of ipl alone)",
        group=SEARCH,
    )
    subspace_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "what the subspace takes itself"})
    subspace_dim: int = option(
        500, "numbers per layer that are searched; some subspaces have their own count", group=SEARCH, least=1
    )
    scale: float = option(1.0, "relative change of a module's output at |z| = sqrt(d)", group=SEARCH, above=0)
    rank: int = option(4, "rank of the LoRA modules", group=SEARCH, least=1)
    target: Any = option(
        "",
        "modules to adapt, by role or name; nothing: what suits the subspace, query and key but for aligned",
        group=SEARCH,
    )
    mode: str = option(
        "layerwise", "one layer at a time, or all layers at once", group=SEARCH, choices=("layerwise", "joint")
    )
    batch: int | None = option(
        None, "examples that a generation is scored on, drawn anew each time; nothing: all", group=SEARCH, least=1
    )
    engine: str = option(
        "batched",
        "batched; or sequential: one candidate a forward of the plain PEFT model, to compare",
        group=RUN,
        choices=("batched", "sequential"),
    )
    selection: str = option(
        "incumbent",
        "what the dev set is shown: the incumbents, or the last candidate sampled (DFO-LoRA's release)",
        group=RUN,
        choices=("incumbent", "sample"),
    )
    workers: int = option(
        0,
        "processes that score candidates, by Ray; 0: this one alone, or all that a cluster has room for",
        group=RUN,
        least=0,
    )
    ray_address: str = option("", "cluster that `ray start` began, such as 10.0.0.1:6379; nothing: here", group=RUN)
    slice_size: int | None = option(
        None, "candidates that a worker takes at once; nothing: a sixteenth of the population", group=RUN, least=1
    )

    @property
    def uses_workers(self) -> bool:
        """Whether other processes score the candidates."""
        return bool(self.workers or self.ray_address)

    @property
    def soft_tokens(self) -> int:
        """m, soft tokens before every text; 0 where it is not prompts that are tuned."""
        return self.prompt_tokens if self.tune in PROMPTS else 0

    def check(self) -> None:
        super().check()
        if self.tune not in PROMPTS and (self.prompt_text or self.prompt_tokens != 16):
            name = "prompt_text" if self.prompt_text else "prompt_tokens"
            raise UserError(f"{name}: {self.tune} has no soft tokens; it is for tune {', '.join(PROMPTS)}")
        if self.tune not in GATED and self.gate_features != 8:
            raise UserError(f"gate_features: {self.tune} has no gate; it is for tune {', '.join(GATED)}")
        if self.uses_workers and not isinstance(self.model, str):
            raise UserError("workers: they load the model anew, so that it must be a hub id or a folder")
        from dfolora.subspaces import subspace_options

        if self.tune in PROMPTS:
            wanted = ("random", "full", "gate") if self.tune == "ipl" else ("random", "full")
            if self.subspace not in wanted:
                raise UserError(
                    f"subspace: {as_text(self.subspace)} is none of tune {self.tune}; choose {', '.join(wanted)}"
                )
        declared = {} if self.tune in PROMPTS else subspace_options(self.subspace)
        for name in self.subspace_options:
            if name not in declared:
                raise UserError(f"{name}: the subspace {as_text(self.subspace)} does not take it")


@dataclass(frozen=True, kw_only=True)
class SearchSettings(SubspaceSettings):
    """A black-box optimizer searches the low-rank change of each layer in turn, or of all layers at once."""

    method: ClassVar[str] = "search"

    optimizer: Any = option("cma", "see `dfolora optimizers`", group=SEARCH)
    optimizer_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "what the optimizer takes itself"}
    )
    population: int = option(20, "candidates per generation", group=SEARCH, least=1)
    sigma: float = option(0.1, "standard deviation of the first candidates, or of every probe", group=SEARCH, above=0)
    bound: float | None = option(None, "search within +-bound; nothing: unbounded", group=SEARCH, above=0)
    visit: int = option(1, "generations per visit of a layer", group=SEARCH, least=1)

    @property
    def search(self) -> str:
        return str(as_text(self.optimizer))

    def check(self) -> None:
        super().check()
        from dfolora.optimizers import check_optimizer, wants_of

        check_optimizer(
            self.optimizer,
            population=self.population,
            sigma=self.sigma,
            bound=self.bound,
            options=self.optimizer_options,
        )
        wants = wants_of(self.optimizer)
        if wants != "losses" and (self.objective == "metric" or self.reward is not None):
            what = {"scores": "class scores", "example_losses": "loss"}.get(wants, wants)
            raise UserError(
                f"optimizer: {as_text(self.optimizer)} needs the {what} of every example, and a "
                "metric or reward is one number; choose another objective, or an optimizer such as cma"
            )
        self.require(self.population)
