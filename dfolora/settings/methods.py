"""Settings of ``tune``: one dataclass per method, with just the options that the method takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dfolora.errors import UserError, unknown
from dfolora.registry import Registry
from dfolora.settings.goal import read_goal
from dfolora.settings.model import DATA, ModelSettings
from dfolora.settings.options import as_text, option

SEARCH, RUN = "Search", "Run"


@dataclass(frozen=True, kw_only=True)
class TuneSettings(ModelSettings):
    """Options that every method takes."""

    method: ClassVar[str] = ""

    objective: Any = option(
        "cross-entropy", "what is minimised: cross-entropy, hinge, likelihood, metric", group=SEARCH
    )
    budget: int = option(3000, "evaluations: candidates, or gradient steps, on the few-shot set", group=SEARCH, least=1)
    extend: int | None = option(
        None,
        "evaluations that a run goes on to beyond its budget: --resume RUN --budget N",
        group=RUN,
        least=1,
    )
    dev_every: int | None = option(
        None,
        "evaluations between looks at the dev set; nothing: once per sweep, without sweeps 20 in all",
        group=RUN,
        least=1,
    )
    demonstrations: int | None = option(
        None,
        "training examples that stand in front of every prompt with their answers, and are not trained on",
        group=DATA,
        least=1,
    )
    stop_at: str = option(
        "", "dev score in percent at which the run ends, or loss=X: a dev loss; nothing: by the budget alone", group=RUN
    )
    patience: int | None = option(
        None,
        "looks at the dev set without a better one after which the run ends; nothing: no limit",
        group=RUN,
        least=1,
    )
    track: Any = option("", "where to follow the run: tensorboard, wandb, trackio, separated by commas", group=RUN)
    push_to_hub: str = option(
        "",
        "repository on the Hugging Face Hub for the adapter and its card, such as me/reviews; token in HF_TOKEN",
        group=RUN,
    )
    test_split: str = option(
        "test", "scored at the end: test, dev (which selection saw) or none", group=RUN, choices=("test", "dev", "none")
    )
    output: str = option("", "run folder; nothing: a new one under runs/", group=RUN)

    @property
    def evaluations(self) -> int:
        """Evaluations at which the run ends: the budget, or what it was extended to."""
        return self.extend or self.budget

    @property
    def search(self) -> str:
        """Name of what does the tuning, such as ``cma`` or ``adamw``, for run folders and scores."""
        raise AttributeError("every method says it")

    def check(self) -> None:
        super().check()
        read_goal(self.stop_at)
        if (self.dev_file or self.test_file) and not self.train_file:
            raise UserError(f"train_file: there is none to go with {self.dev_file or self.test_file!r}")

    def open(self, language_model: Any, encoder: Any, train: Any, dev: Any, measured: Any = None) -> Any:
        """Build a method of another package, as ``opening.open_method`` does; None: it is built in."""
        return None

    def require(self, size: int) -> None:
        """Raise UserError if the budget is less than one step of ``size`` evaluations."""
        if self.budget < size:
            raise UserError(f"budget: {self.budget} is less than one step of {size} evaluations")


@dataclass(frozen=True, kw_only=True)
class SubspaceSettings(TuneSettings):
    """What every method takes that moves layers within subspaces, as ``opening.open_problem`` reads it."""

    subspace: Any = option("pca", "where to search: see `dfolora subspaces`", group=SEARCH)
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

    def check(self) -> None:
        super().check()
        if self.uses_workers and not isinstance(self.model, str):
            raise UserError("workers: they load the model anew, so that it must be a hub id or a folder")
        from dfolora.subspaces import subspace_options

        declared = subspace_options(self.subspace)
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
        "search": ("dfolora.settings.methods:SearchSettings", "a black-box optimizer on each layer in turn"),
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
