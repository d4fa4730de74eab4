"""One dataclass = keyword arguments = YAML file = command-line flags. Everything that a run depends on is here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfolora.errors import UserError, unknown
from dfolora.settings.options import Options, at_least, flag, option
from dfolora.settings.presets import PRESETS


@dataclass(frozen=True)
class ModelConfig(Options):
    """Which model and which task: what ``tune`` and ``evaluate`` share."""

    model: str = option("", "hub id or folder; nothing: the demo's own model")
    task: str = option("", "see `dfolora tasks`; nothing: demo/sentiment")
    kind: str = option("auto", "masked, causal, seq2seq, encoder; auto: what the model's config says")
    dtype: str = option("auto", "float32, bfloat16, float16; auto: float32 on a CPU, bfloat16 on a GPU")
    device: str = option("auto", "cpu, cuda, cuda:N; auto: a GPU where there is one")
    quantize: str = option("", "8bit or 4bit: keep the base weights so (needs bitsandbytes); nothing: as they are")
    trust_remote_code: bool = option(False, "let the model repository's own Python code run")
    chunk_tokens: int = option(
        0, "most padded tokens in one forward; 0: 2048 on a CPU, 32768 on a GPU, less where memory is short"
    )
    max_length: int = option(0, "most tokens per row; 0: the model's limit, 512 at most")
    data: str = option("", "folder with the task's files; nothing: from the Hub")
    shots: int = option(16, "examples per class, where a training set is drawn")
    split_seed: int = option(-1, "seed of the few-shot split; -1: the value of --seed")
    seed: int = option(13, "seed of the search, and of the split unless --split-seed says otherwise")
    train_file: str = option("", "your own training examples: csv, tsv or jsonl")
    dev_file: str = option("", "your own examples for selection; nothing: split off the training file")
    test_file: str = option("", "your own held-out examples")
    text_columns: str = option("text", "columns with text, separated by commas; the template's {names}")
    label_column: str = option("label", "column with the label")
    template: str = option("", "prompt such as '{text} It was {mask}.'; overrides a task's own")
    label_words: str = option("", "a word per label value, such as '0=bad,1=great'; for a sentence encoder, sentences")
    shorten: str = option("", "the text column that is cut when a prompt is too long; nothing: the first")

    @property
    def data_seed(self) -> int:
        return self.seed if self.split_seed < 0 else self.split_seed

    def check(self) -> None:
        for name in ("shots",):
            at_least(self, name, 1)
        for name in ("chunk_tokens", "max_length", "seed"):
            at_least(self, name, 0)
        for name in ("seed", "split_seed"):
            if getattr(self, name) >= 2**32:
                raise UserError(f"{flag(name)}: {getattr(self, name)} cannot work; the most is {2**32 - 1}")


@dataclass(frozen=True)
class TuneConfig(ModelConfig):
    """Everything about one run of ``tune``."""

    method: str = option(
        "gradient-free",
        "gradient-free; first-order: AdamW by back-propagation; hybrid: that for some layers; full-parameter: every "
        "weight of the model, without gradients",
    )
    optimizer: str = option("cma", "see `dfolora optimizers`")
    subspace: str = option("pca", "where to search: pca, frozen-a, xs, full, factors, lora, paper")
    subspace_dim: int = option(500, "numbers per layer that are searched; xs, full, factors and lora have their own")
    scale: float = option(1.0, "relative change of a module's output at |z| = sqrt(d)")
    rank: int = option(4, "rank of the LoRA modules")
    target: str = option("", "names of modules to adapt, separated by commas; nothing: query and key")
    mode: str = option("layerwise", "layerwise: one layer at a time; joint: all layers at once")
    objective: str = option("cross-entropy", "what is minimised: cross-entropy, hinge, likelihood, metric")
    budget: int = option(3000, "evaluations: candidates, or first-order steps, on the whole few-shot set")
    population: int = option(20, "candidates per generation")
    batch: int = option(0, "examples that a generation is scored on, drawn anew each time; 0: all of them")
    sigma: float = option(0.1, "standard deviation of the first candidates; of a zeroth-order estimator's every probe")
    bound: float = option(0.0, "search within +-bound; 0: unbounded")
    lr: float = option(0.0, "learning rate of a zeroth-order estimator, 0: its own; of first-order, 0: 1e-3")
    weight_decay: float = option(0.0, "first-order: AdamW's decay of A and B")
    rho: float = option(0.5, "hybrid: share of a whole backward pass that the first-order layers may cost")
    alpha: float = option(0.1, "hybrid: rate of the zeroth-order part, as a share of --lr; 0: leave that part out")
    first_order_layers: str = option("importance", "hybrid: which layers get gradients: importance, last, random")
    update: str = option("", "step of a zeroth-order estimator: sgd, momentum, adam; nothing: its own")
    noise: str = option("", "its probes: gaussian, rademacher, plane (random, of few dimensions); nothing: its own")
    plane_dim: int = option(0, "dimensions of --noise plane; 0: 32")
    plane_steps: int = option(0, "steps until --noise plane takes another one; 0: 10")
    best_share: float = option(0.0, "guided: share of the pool that counts as its best; 0: 0.5")
    weights: str = option("", "es: centred (losses) or ranks; nothing: centred")
    antithetic: bool = option(False, "es: probe every direction from both sides")
    paper_scale: bool = option(False, "step along an estimate as its paper scales it, so that the paper's rates apply")
    incumbent: str = option("mean", "what a layer holds between visits: mean (of the search distribution) or best")
    engine: str = option(
        "batched", "batched; or sequential: one candidate a forward of the plain PEFT model, to compare"
    )
    visit: int = option(1, "generations per visit of a layer")
    dev_every: int = option(0, "evaluations between looks at the dev set; 0: once per sweep; without sweeps 20 in all")
    selection: str = option("incumbent", "what is looked at: incumbent, or sample (the release's last candidate)")
    preset: str = option(
        "", "a paper's settings: dfo-lora, mezo-lora, mezo-gv-lora, mezo-greedy-lora; mezo, mezo-gv, mezo-greedy"
    )
    test_split: str = option("test", "scored at the end: test, dev (which selection saw) or none")
    output: str = option("", "run folder; nothing: a new one under runs/")

    @property
    def generation_size(self) -> int:
        """Evaluations of one generation: a population, one step along a gradient, or both."""
        if self.method == "full-parameter":  # a step: pairs of probes, or a pool and the two sides of what it found
            return self.population // 2 * 2 if self.optimizer == "spsa" else self.population + 2
        probes = 0 if self.method == "first-order" or (self.method == "hybrid" and not self.alpha) else self.population
        return probes + (self.method != "gradient-free")

    @property
    def search(self) -> str:
        """What does the work, for run folders and scores."""
        names = {
            "first-order": "adamw",
            "hybrid": f"adamw+{self.optimizer}",
            "full-parameter": f"full-{self.optimizer}",
        }
        return names.get(self.method, self.optimizer)

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """What the optimizer is told beyond what all of them take: what was given, and is not its own default."""
        given = {name: getattr(self, name) for name in _OPTIONAL if getattr(self, name)}
        return {**given, "incumbent": "best"} if self.incumbent == "best" else given

    @classmethod
    def fill(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """A preset and a method bring settings of their own where nothing else was given."""
        preset = str(values.get("preset") or "")
        if preset and preset not in PRESETS:
            raise unknown("--preset", preset, PRESETS)
        own = PRESETS.get(preset, {})
        method, meant = values.get("method", ""), own.get("method", "gradient-free")
        if preset and method and method != meant:
            raise UserError(f"--preset: {preset} is for --method {meant}, not for {method}")
        values = {**own, **values}
        return {**_METHODS.get(str(values.get("method")), {}), **values}

    def check(self) -> None:
        super().check()
        for name in ("budget", "population", "rank", "visit", "subspace_dim"):
            at_least(self, name, 1)
        for name in ("batch", "dev_every", "bound", "lr", "weight_decay", "best_share", "plane_dim", "plane_steps"):
            at_least(self, name, 0)
        for name in ("sigma", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{flag(name)}: {getattr(self, name)} cannot work; give a number above 0")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(flag(name), getattr(self, name), choices)
        for name in ("weight_decay", "rho", "alpha", "first_order_layers"):
            takers = ("hybrid",) if name != "weight_decay" else ("first-order", "hybrid")
            if self.method not in takers and getattr(self, name) != getattr(TuneConfig, name):
                raise UserError(f"{flag(name)}: it is for --method {' and '.join(takers)}, not for {self.method}")
        if self.method == "gradient-free":
            self._check_gradient_free()
        elif self.method == "full-parameter":
            self._check_full_parameter()
        else:
            self._check_first_order()

    def _check_gradient_free(self) -> None:
        if self.budget < self.population:
            raise UserError(f"--budget: {self.budget} is less than one generation of --population {self.population}")
        if self.incumbent == "best" and self.optimizer not in ("cma", "sep-cma"):
            raise UserError(f"--incumbent: best is for cma and sep-cma; {self.optimizer} has one rule of its own")
        self._check_options()

    def _check_full_parameter(self) -> None:
        self._refuse(_OF_ADAPTERS)
        if self.optimizer not in _FULL_PARAMETER:
            raise unknown("--optimizer", self.optimizer, _FULL_PARAMETER)
        if self.best_share and self.optimizer != "guided":
            raise UserError(f"--best-share: {self.optimizer} does not take it; it is for guided")
        if self.population < 2:
            raise UserError(f"--population: {self.population} is too few for {self.optimizer}; it takes at least 2")
        if not 0 <= self.lr < math.inf:
            raise UserError(f"--lr: {self.lr} cannot work; give a finite number, 0 or more")
        if not 0 <= self.best_share < 1:
            raise UserError(f"--best-share: {self.best_share} cannot work; give a share between 0 and 1, such as 0.5")
        if self.budget < self.generation_size:
            raise UserError(f"--budget: {self.budget} is less than one step, {self.generation_size} evaluations")

    def _refuse(self, names: tuple[str, ...]) -> None:
        """Refuse what means nothing to the method: any such option that is not at its default."""
        for name in names:
            if getattr(self, name) != getattr(TuneConfig, name):  # a field's default is the class's attribute
                raise UserError(f"{flag(name)}: --method {self.method} does not take it")

    def _check_first_order(self) -> None:
        self._refuse((*_OF_SEARCH, *(() if self.method == "hybrid" else _OF_ESTIMATORS)))
        if self.objective == "metric":
            raise UserError(f"--objective: metric has no gradient; --method {self.method} needs another objective")
        for name in ("lr", "weight_decay", "alpha"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{flag(name)}: {getattr(self, name)} cannot work; give a finite number, 0 or more")
        if self.method == "hybrid":
            if not 0 < self.rho <= 1:
                raise UserError(f"--rho: {self.rho} cannot work; give a share above 0, at most 1")
            if self.budget < self.generation_size:
                raise UserError(f"--budget: {self.budget} is less than one step, {self.generation_size} evaluations")
            from dfolora.optimizers import options_of

            if "lr" not in options_of(self.optimizer):
                raise UserError(f"--optimizer: {self.optimizer} is no zeroth-order estimator; try spsa")
            self._check_options()

    def _check_options(self) -> None:
        """Refuse an option for an optimizer that does not take it."""
        if not any(getattr(self, name) for name in _OPTIONAL):
            return
        from dfolora.optimizers import optimizer_names, options_of  # loads torch: `dfolora --help` needs none

        for name in _OPTIONAL:
            if getattr(self, name) and name not in options_of(self.optimizer):
                takers = [other for other in optimizer_names() if name in options_of(other)]
                raise UserError(f"{flag(name)}: {self.optimizer} does not take it; it is for {', '.join(takers)}")


# Options of some optimizers; empty, zero or false leaves them to the optimizer.
_OPTIONAL = ("lr", "update", "noise", "plane_dim", "plane_steps", "best_share", "weights", "antithetic", "paper_scale")

# Options that mean nothing to back-propagation, and those that a hybrid's zeroth-order part takes. The preset comes
# first: it is what the user gave, the rest follows from it.
_OF_SEARCH = (
    "preset", "subspace", "subspace_dim", "scale", "mode", "bound", "incumbent", "engine", "batch", "visit",
    "selection",
)  # fmt: skip
_OF_ESTIMATORS = ("optimizer", "population", "sigma", *(name for name in _OPTIONAL if name != "lr"))

# Options that mean nothing where there is no adapter.
_OF_ADAPTERS = (
    "quantize", "rank", "target", "subspace", "subspace_dim", "scale", "mode", "bound", "incumbent", "engine", "visit",
    "selection", "update", "noise", "plane_dim", "plane_steps", "weights", "antithetic",
)  # fmt: skip
_FULL_PARAMETER = ("spsa", "guided", "greedy")

# What a method takes where nothing was given.
_METHODS: dict[str, dict[str, Any]] = {
    "hybrid": {"optimizer": "spsa", "population": 2, "sigma": 1e-2},
    "full-parameter": {"optimizer": "spsa", "population": 2, "sigma": 1e-3},
}

_CHOICES = {
    "method": ("gradient-free", "first-order", "hybrid", "full-parameter"),
    "first_order_layers": ("importance", "last", "random"),
    "engine": ("batched", "sequential"),
    "mode": ("layerwise", "joint"),
    "incumbent": ("mean", "best"),
    "selection": ("incumbent", "sample"),
    "test_split": ("test", "dev", "none"),
}


@dataclass(frozen=True)
class EvaluateConfig(ModelConfig):
    """What ``evaluate`` needs."""

    adapter: str = option("", "folder of a saved adapter; nothing: the model as it is")
    split: str = option("test", "train, dev (dev32) or test (val)")


@dataclass(frozen=True)
class BenchConfig(ModelConfig):
    """What ``bench`` measures. A named case fills in what was not given."""

    case: str = option("", "settings that are reported by name: cpu-roberta12, cpu-llama12, cpu-fewglue, gpu-...")
    shape: str = option("", "a model of a known size with random weights, such as roberta-large; or give --model")
    examples: int = option(32, "N: sequences per candidate, where no task is named")
    tokens: int = option(64, "T: tokens per sequence, where no task is named")
    lengths: str = option(
        "", "instead of --examples and --tokens: few-shot lengths of rte, cb, boolq, separated by commas"
    )
    population: int = option(20, "P: candidates per generation")
    rank: int = option(4, "rank of the LoRA modules")
    layers: str = option("", "layers of the sweep, separated by commas; nothing: all")
    repetitions: int = option(5, "interleaved repetitions; ratios are their medians")
    threads: int = option(1, "threads on a CPU; with 1, processor time is measured instead of the clock")
    levers: bool = option(False, "measure the layer-wise row without each saving as well")

    def check(self) -> None:
        super().check()
        for name in ("examples", "tokens", "population", "rank", "repetitions", "threads"):
            at_least(self, name, 1)
