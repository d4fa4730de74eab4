"""Build a run's method from its settings, the problem that it minimises, and the workers that score candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from dfolora.engine import Engine, SequentialEngine
from dfolora.engine.shifts import ShiftEngine
from dfolora.errors import UserError
from dfolora.methods.first_order import FirstOrder
from dfolora.methods.full_parameter.method import AllWeights
from dfolora.methods.gradient import Gradient
from dfolora.methods.hybrid import Hybrid
from dfolora.methods.method import Method
from dfolora.methods.search import Search
from dfolora.methods.tangent.tangent import Tangent
from dfolora.models import adapter as adapters
from dfolora.models.bare import Bare
from dfolora.models.load import LanguageModel
from dfolora.models.targets import read_by_answers
from dfolora.opening import open_prompt
from dfolora.opening_tuned import attach, open_soft_problem, targets
from dfolora.optimizers import make_optimizer
from dfolora.problems.adapters import AdapterProblem
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import REGISTRY as OBJECTIVES
from dfolora.problems.parted import PartedProblem
from dfolora.problems.problem import Problem
from dfolora.seeds import seed_of
from dfolora.settings.methods import FirstOrderSettings, FullParameterSettings, HybridSettings, TangentSettings
from dfolora.settings.search import SearchSettings, SubspaceSettings
from dfolora.settings.tune import TuneSettings
from dfolora.subspaces import subspace_class
from dfolora.task import Example, Task
from dfolora.workers import ray_crew
from dfolora.workers.pool import Pool


def open_method(
    settings: TuneSettings,
    language_model: LanguageModel,
    encoder: PromptEncoder,
    train: Sequence[Example],
    dev: Sequence[Example],
    measured: dict[str, Tensor] | None = None,
) -> tuple[Method[Any], dict[str, Tensor]]:
    """Build the method that the settings ask for.

    Args:
        settings: of the run.
        language_model, encoder, train, dev: what is tuned, and on what.
        measured: what the run measured on the data when it began; None: measure it now.

    Returns:
        The method, and what was measured.

    Raises:
        UserError: settings that do not fit the model or the data.
    """
    if (opened := settings.open(language_model, encoder, train, dev, measured)) is not None:
        return cast("tuple[Method[Any], dict[str, Tensor]]", opened)
    if isinstance(settings, SearchSettings):
        problem, found = open_problem(settings, language_model, encoder, train, dev, measured)
        return _search(settings, problem), found
    if isinstance(settings, FullParameterSettings):
        whole = Problem(
            Bare(language_model), encoder, train, dev, settings.objective, settings.batch, settings.seed,
            chunk_tokens=settings.chunk_tokens,
        )  # fmt: skip
        return AllWeights(whole, settings), {}
    if isinstance(settings, TangentSettings):
        return _tangent(settings, language_model, encoder, train, dev), {}
    assert isinstance(settings, FirstOrderSettings), "there are five methods"
    labels = encoder.labels(train)
    with_gradient = Problem(
        attach(settings, language_model), encoder, train, dev, settings.objective, None, settings.seed,
        chunk_tokens=settings.chunk_tokens,
        make_engine=lambda adapter, rows, chunk: Gradient(adapter, rows, labels, chunk),
    )  # fmt: skip
    if not isinstance(settings, HybridSettings):
        method = FirstOrder(
            with_gradient, settings.rank, settings.evaluations, settings.dev_every, settings.lr, settings.weight_decay
        )
        return method, {}

    def estimator(dim: int, lr: float) -> Any:
        return make_optimizer(
            settings.optimizer, dim, population=settings.population, sigma=settings.sigma, seed=settings.seed,
            **{**settings.optimizer_options, "lr": lr},
        )  # fmt: skip

    hybrid = Hybrid(
        with_gradient, estimator, settings.population, settings.rank, settings.evaluations, settings.dev_every,
        settings.lr, settings.weight_decay, settings.rho, settings.alpha, settings.first_order_layers,
    )  # fmt: skip
    return hybrid, {}


def open_problem(
    settings: SubspaceSettings,
    language_model: LanguageModel,
    encoder: PromptEncoder,
    train: Sequence[Example],
    dev: Sequence[Example],
    measured: dict[str, Tensor] | None = None,
) -> tuple[PartedProblem[Any], dict[str, Tensor]]:
    """Build the problem of a search, with its parts; arguments and errors as for ``open_method``."""
    make_engine = SequentialEngine if settings.engine == "sequential" else Engine
    if settings.tune != "lora":
        return open_soft_problem(settings, language_model, encoder, train, dev, measured, make_engine)
    problem = AdapterProblem(
        attach(settings, language_model), encoder, train, dev, settings.objective, settings.batch, settings.seed,
        settings.selection, settings.chunk_tokens, make_engine,
    )  # fmt: skip
    found = problem.prepare(
        subspace_class(settings.subspace), settings.rank, settings.subspace_dim, settings.scale, settings.mode,
        measured, settings.subspace_options,
    )  # fmt: skip
    if settings.uses_workers:
        made = partial(_in_worker, _settings_of_workers(settings, encoder), encoder.task, train, dev, found)
        hire = partial(ray_crew.RayCrew, made, settings.workers, settings.ray_address, settings.device != "cpu")
        problem.evaluator = Pool(problem, hire, settings.slice_size)
    return problem, found


def check_workers(settings: TuneSettings) -> None:
    """Find out early whether the workers that are asked for can be had.

    Raises:
        UserError: Ray is missing, its cluster does not answer, or it is not LoRA that is tuned.
    """
    if isinstance(settings, SubspaceSettings) and settings.uses_workers:
        if settings.tune != "lora":
            raise UserError(f"workers: they score lora alone, not {settings.tune}; leave them out")
        ray_crew.check(settings.ray_address)


def _settings_of_workers(settings: SubspaceSettings, encoder: PromptEncoder) -> SubspaceSettings:
    """What a worker must know to build the problem: no optimizer, and what was registered here under a name itself."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(SubspaceSettings)}
    model, objective = encoder.language_model, settings.objective
    if isinstance(objective, str) and objective not in OBJECTIVES.builtin():
        objective = OBJECTIVES.get(objective)
    folder = Path(model.name).expanduser()
    values |= {
        "model": str(folder.resolve()) if folder.exists() else model.name, "kind": model.kind,
        "dtype": str(next(model.model.parameters()).dtype).removeprefix("torch."),
        "device": "cpu" if settings.device == "cpu" else "auto", "task": encoder.task.name, "objective": objective,
        "subspace": subspace_class(settings.subspace), "workers": 0, "ray_address": "",
        "train_file": "", "dev_file": "", "test_file": "",
    }  # fmt: skip
    return SubspaceSettings(**values)


def _in_worker(
    settings: SubspaceSettings,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    measured: dict[str, Tensor],
) -> AdapterProblem:
    """The problem of a search once more, from what the driver has of it; the model is loaded anew."""
    encoder = open_prompt(settings, task, train[0])
    problem = open_problem(settings, encoder.language_model.read_weights(), encoder, train, dev, measured)[0]
    assert isinstance(problem, AdapterProblem), "workers score LoRA alone"
    return problem


def _search(settings: SearchSettings, problem: PartedProblem[Any]) -> Search:
    parts = len(problem.parts)
    # What plans with its generations plans with the budget that the run began with.
    generations = max(1, settings.budget // (settings.population * parts))

    def make(index: int, dim: int) -> Any:
        return make_optimizer(
            settings.optimizer, dim, population=settings.population, sigma=settings.sigma,
            seed=seed_of(settings.seed, f"layer {index}"), generations=generations, bound=settings.bound,
            **settings.optimizer_options,
        )  # fmt: skip

    return Search(
        problem, make, settings.population, settings.evaluations, settings.dev_every, settings.visit, settings.selection
    )


def _tangent(
    settings: TangentSettings,
    language_model: LanguageModel,
    encoder: PromptEncoder,
    train: Sequence[Example],
    dev: Sequence[Example],
) -> Tangent:
    if encoder.task.new_tokens:
        raise UserError(
            f"method: tangent needs class scores, and answers of {encoder.task.name!r} are generated; "
            "choose another method, such as search"
        )
    model = language_model.model
    names = read_by_answers(model, language_model.kind, targets(settings.target), settings.depth)
    most = adapters.most_rank(model, names) * settings.directions // settings.rank
    if settings.directions > most:
        raise UserError(f"directions: {settings.directions} cannot work; the adapted modules allow 1 to {most}")
    if settings.evaluations != settings.budget:
        raise UserError(
            f"budget: a run of the method tangent deals it out when it begins, and ends where {settings.budget} "
            "evaluations took it; start a new run for more"
        )
    problem = Problem(
        adapters.attach(language_model, settings.rank, names), encoder, train, dev, settings.objective, None,
        settings.seed, chunk_tokens=settings.chunk_tokens, make_engine=ShiftEngine,
    )  # fmt: skip
    return Tangent(
        problem, settings.evaluations, settings.directions, settings.promise, settings.enough, settings.step_size,
        settings.rounds, settings.halves, settings.seed,
    )  # fmt: skip
