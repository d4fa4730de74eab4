"""Settings of the other methods of ``tune``, and all methods by name: one dataclass each, with just its own options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dfolora.errors import UserError, unknown
from dfolora.registry import Registry
from dfolora.settings.options import as_text, option
from dfolora.settings.tune import SEARCH, TuneSettings


@dataclass(frozen=True, kw_only=True)
class TangentSettings(TuneSettings):
    """Linearise the scores by a few probes, solve for the weights, move, a few times over."""

    method: ClassVar[str] = "tangent"

    directions: int = option(4, "directions of a module's output that are probed", group=SEARCH, least=1)
    promise: float = option(0.4, "share of the loss that a round aims at", group=SEARCH, above=0, most=0.99)
    enough: float = option(0.05, "loss on the examples at which they are fitted", group=SEARCH, above=0)
    step_size: float = option(0.2, "length of a probe, in lengths of the module's output", group=SEARCH, above=0)
    rounds: int = option(8, "most rounds of each half", group=SEARCH, least=1)
    halves: bool = option(
        True, "fit training and dev set each, judge each by the other, take the mean; off: training set", group=SEARCH
    )
    target: Any = option("o", "modules to adapt, by role or name: what writes into the residual stream", group=SEARCH)
    depth: float = option(0.67, "share of the layers that are adapted, the last ones", group=SEARCH, above=0, most=1)

    @property
    def search(self) -> str:
        return "gauss-newton"

    @property
    def rank(self) -> int:
        """Rank of the LoRA modules."""
        return self.directions * (2 if self.halves else 1)

    def check(self) -> None:
        super().check()
        if self.objective == "metric" or self.reward is not None:
            raise UserError(
                "objective: the method tangent needs the class scores of every example, and a metric or reward is one "
                "number; choose another objective, or the method search"
            )
        if self.patience is not None:
            raise UserError(
                f"patience: {self.patience} has no use in the method tangent, which goes on where its rounds have led; "
                "leave it out, take less rounds, or choose the method search"
            )
        if self.dev_every is not None:
            raise UserError(
                f"dev_every: {self.dev_every} has no use in the method tangent, which scores the dev set after every "
                "round on the training set; leave it out, or choose the method search"
            )


@dataclass(frozen=True, kw_only=True)
class FirstOrderSettings(TuneSettings):
    """LoRA as it is usually tuned: AdamW on A and B of all layers, by back-propagation."""

    method: ClassVar[str] = "first-order"

    lr: float = option(1e-3, "learning rate of AdamW", group=SEARCH, above=0)
    weight_decay: float = option(0.0, "AdamW's decay of A and B", group=SEARCH, least=0)
    rank: int = option(4, "rank of the LoRA modules", group=SEARCH, least=1)
    target: Any = option("", "modules to adapt, by role or name; nothing: query and key", group=SEARCH)

    @property
    def search(self) -> str:
        return "adamw"

    def check(self) -> None:
        super().check()
        if self.objective == "metric":
            raise UserError(f"objective: metric has no gradient; the method {self.method} needs another objective")


@dataclass(frozen=True, kw_only=True)
class HybridSettings(FirstOrderSettings):
    """Back-propagation to the layers that matter most, zeroth-order estimates for the rest."""

    method: ClassVar[str] = "hybrid"

    rho: float = option(
        0.5, "share of a whole backward pass that the first-order layers may cost", group=SEARCH, above=0, most=1
    )
    alpha: float = option(
        0.1, "rate of the zeroth-order part, as a share of lr; 0: leave that part out", group=SEARCH, least=0
    )
    first_order_layers: str = option(
        "importance", "which layers get gradients", group=SEARCH, choices=("importance", "last", "random")
    )
    optimizer: Any = option("spsa", "zeroth-order estimator of the other layers", group=SEARCH)
    optimizer_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "what the estimator takes itself"}
    )
    population: int = option(2, "probes of a step", group=SEARCH, least=1)
    sigma: float = option(1e-2, "standard deviation of a probe", group=SEARCH, above=0)

    @property
    def search(self) -> str:
        return f"adamw+{as_text(self.optimizer)}"

    def check(self) -> None:
        super().check()
        from dfolora.optimizers import check_optimizer, options_of

        if "lr" not in options_of(self.optimizer):
            raise UserError(f"optimizer: {as_text(self.optimizer)} is no zeroth-order estimator; try spsa")
        check_optimizer(self.optimizer, population=self.population, sigma=self.sigma, options=self.optimizer_options)
        self.require(1 + (self.population if self.alpha else 0))


@dataclass(frozen=True, kw_only=True)
class FullParameterSettings(TuneSettings):
    """Every weight of the model, in place and without gradients: MeZO and its kin."""

    method: ClassVar[str] = "full-parameter"

    optimizer: str = option("spsa", "estimator of the gradient: spsa, guided, greedy", group=SEARCH)
    population: int = option(2, "probes of a step", group=SEARCH, least=2)
    sigma: float = option(1e-3, "size of a probe: standard deviation of a weight's displacement", group=SEARCH, above=0)
    lr: float = option(1e-6, "learning rate", group=SEARCH, above=0)
    best_share: float | None = option(
        None, "guided: share of the pool that counts as its best; nothing: 0.5", group=SEARCH, above=0, most=0.999
    )
    paper_scale: bool = option(False, "step along an estimate as its paper scales it", group=SEARCH)
    batch: int | None = option(
        None, "examples that a step is scored on, drawn anew each time; nothing: all", group=SEARCH, least=1
    )

    @property
    def search(self) -> str:
        return f"full-{self.optimizer}"

    @property
    def size(self) -> int:
        """Evaluations of a step: pairs of probes, or a pool and the two sides of what it found."""
        return self.population // 2 * 2 if self.optimizer == "spsa" else self.population + 2

    def check(self) -> None:
        super().check()
        if self.optimizer not in FULL_PARAMETER:
            raise unknown("optimizer", self.optimizer, FULL_PARAMETER)
        if self.best_share is not None and self.optimizer != "guided":
            raise UserError(f"best_share: {self.optimizer} does not take it; it is for guided")
        if not isinstance(self.model, str):
            raise UserError(
                "model: all weights are moved, so that it is loaded anew at the end; give a hub id or a folder"
            )
        if self.quantize:
            raise UserError("quantize: weights that are quantised cannot be moved; leave it out")
        self.require(self.size)


FULL_PARAMETER = ("spsa", "guided", "greedy")
REGISTRY = Registry(
    "method",
    {
        "search": ("dfolora.settings.search:SearchSettings", "a black-box optimizer on each layer in turn"),
        "tangent": ("dfolora.settings.methods:TangentSettings", "linearise by probes, solve, move"),
        "first-order": ("dfolora.settings.methods:FirstOrderSettings", "LoRA by back-propagation and AdamW"),
        "hybrid": ("dfolora.settings.methods:HybridSettings", "gradients for some layers, estimates for the rest"),
        "full-parameter": ("dfolora.settings.methods:FullParameterSettings", "every weight, without gradients (MeZO)"),
    },
    "dfolora.methods",
)


class _Methods(Mapping[str, type[TuneSettings]]):
    """Name of a method -> the class of its settings, those of other packages included."""

    def __getitem__(self, name: str) -> type[TuneSettings]:
        if name not in REGISTRY.names():
            raise KeyError(name)
        kind = REGISTRY.get(name)
        if not (isinstance(kind, type) and issubclass(kind, TuneSettings)):
            raise UserError(f"method: {name!r} is {kind!r}, not a class of settings (a subclass of TuneSettings)")
        return kind

    def __iter__(self) -> Iterator[str]:
        ours = REGISTRY.builtin()
        return iter([*ours, *(name for name in REGISTRY.names() if name not in ours)])

    def __len__(self) -> int:
        return len(REGISTRY.names())


METHODS = _Methods()
