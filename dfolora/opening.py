"""Build what a run works with from its settings: task, examples, model, problem, method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from dfolora.engine import Engine, SequentialEngine
from dfolora.engine.shifts import ShiftEngine
from dfolora.errors import UserError, unknown
from dfolora.methods.first_order import FirstOrder
from dfolora.methods.full_parameter.method import AllWeights
from dfolora.methods.gradient import Gradient
from dfolora.methods.hybrid import Hybrid
from dfolora.methods.method import Method
from dfolora.methods.search import Search
from dfolora.methods.tangent.tangent import Tangent
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models.bare import Bare
from dfolora.models.load import LanguageModel
from dfolora.models.targets import read_by_answers
from dfolora.optimizers import make_optimizer
from dfolora.problems.adapters import AdapterProblem
from dfolora.problems.demonstrations import with_demonstrations
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import REGISTRY as OBJECTIVES
from dfolora.problems.problem import Problem
from dfolora.problems.rewards import rewarded
from dfolora.seeds import seed_of
from dfolora.settings.build import method_of, tune_settings
from dfolora.settings.methods import (
    FirstOrderSettings,
    FullParameterSettings,
    HybridSettings,
    SearchSettings,
    SubspaceSettings,
    TangentSettings,
    TuneSettings,
)
from dfolora.settings.model import ModelSettings
from dfolora.subspaces import subspace_class
from dfolora.task import Example, Task
from dfolora.template import names
from dfolora.workers import ray_crew
from dfolora.workers.pool import Pool

Examples = Callable[[str], list[Example]]
"""split -> examples: a task's ``load`` with its source filled in."""


def run_settings(**values: Any) -> TuneSettings:
    """The settings of a run: as ``tune_settings``, the demo where nothing is named, a method that fits the task.

    Raises:
        UserError: options that cannot work, a task without a model, or a model without a task.
    """
    from dfolora.tasks import is_generated

    values = {name.replace("-", "_"): value for name, value in values.items()}
    method = method_of(values, is_generated(values.get("task")))
    return cast(TuneSettings, with_demo(tune_settings(**{**values, "method": method})))


def with_demo(settings: Any) -> Any:
    """Fill in the demo where no task is named, and its model where a demo task has none.

    Raises:
        UserError: a task without a model, or a model without a task.
    """
    from dfolora import tasks
    from dfolora.tasks.demo import MODEL_DIR

    task, model = settings.task, settings.model
    if not (task or settings.train_file or settings.dev_file or settings.test_file):
        if model or settings.data:
            raise UserError("task: which one? see `dfolora tasks`, or give a train_file for data of your own")
        task = "demo/sentiment"
    if not model:
        if not str(task).startswith("demo/"):
            if isinstance(task, str) and task:
                tasks.about(task)  # a mistyped task comes first
            raise UserError("model: which one? give a Hugging Face id or a folder")
        model = str(MODEL_DIR)
    return dataclasses.replace(settings, task=task, model=model)


def task_names() -> list[str]:
    """The name of every registered task."""
    from dfolora import tasks

    return tasks.task_names()


def open_task(settings: ModelSettings) -> tuple[Task, Examples]:
    """Load a task, with the user's prompt in place of its own, and a function that loads its examples.

    Raises:
        UserError: an unknown task, or a prompt that does not fit it.
    """
    from dfolora.tasks import get_task
    from dfolora.tasks.common import Source
    from dfolora.tasks.draw import some_of
    from dfolora.tasks.files import file_task, with_prompt

    source = Source(Path(settings.data).expanduser() if settings.data else None, settings.shots, settings.data_seed)
    columns = settings.text_columns
    if file := settings.train_file or settings.dev_file or settings.test_file:
        task = file_task(
            file,
            settings.dev_file or None,
            settings.test_file or None,
            text_columns=[name.strip() for name in columns.split(",")] if isinstance(columns, str) else list(columns),
            label_column=settings.label_column,
            template=settings.template,
            label_words=settings.label_words or "0=bad,1=great",
            shorten=settings.shorten or None,
        )
    else:
        task = settings.task if isinstance(settings.task, Task) else get_task(settings.task)
        task = with_prompt(task, settings.template, settings.label_words, settings.shorten)
    if settings.new_tokens is not None:
        task = dataclasses.replace(task, new_tokens=settings.new_tokens)
    if settings.reward is not None:
        task = rewarded(task, settings.reward)

    def load(split: str) -> list[Example]:
        loaded = task.load(split, source)
        return some_of(loaded, settings.test_limit) if settings.test_limit and split == "test" else loaded

    return task, load


def open_model(settings: ModelSettings) -> LanguageModel:
    """The model; what is not in memory yet comes without its weights, which ``read_weights`` puts in.

    Raises:
        UserError: it cannot be loaded.
    """
    if isinstance(settings.model, LanguageModel):
        adapters.detach(settings.model)
        return settings.model
    if not isinstance(settings.model, (str, Path)):
        raise UserError(f"model: {settings.model!r} is no name, no folder and nothing that dfolora.load_model gives")
    return models.open_model(
        str(settings.model), kind=settings.kind, dtype=settings.dtype, device=settings.device,
        trust_remote_code=settings.trust_remote_code, quantize=settings.quantize,
    )  # fmt: skip


def open_prompt(settings: ModelSettings, task: Task, example: Example) -> PromptEncoder:
    """The model, without its weights if they are not in memory, and the task's prompts for it.

    Args:
        settings: which model, and how long a prompt may be.
        task: what is asked.
        example: one of its examples, to see that the prompt fits them.

    Raises:
        UserError: the model cannot be loaded, or the prompt does not fit.
    """
    encoder = PromptEncoder(open_model(settings), task, settings.max_length or 0)
    check_prompt(encoder, example)
    return encoder


def open_prompts(settings: TuneSettings, task: Task, train: list[Example]) -> tuple[PromptEncoder, list[Example]]:
    """As ``open_prompt``, behind demonstrations where the settings ask for some; and what is left to train on.

    Raises:
        UserError: as ``open_prompt``, or demonstrations that cannot be had.
    """
    encoder = open_prompt(settings, task, train[0])
    if settings.demonstrations is None:
        return encoder, train
    encoder, left = with_demonstrations(encoder, train, settings.demonstrations, settings.seed)
    check_examples(encoder.task, left)
    return encoder, left


def check_examples(task: Task, train: Sequence[Example]) -> None:
    """Raise UserError if a training set is empty or holds a single class."""
    if not train:
        raise UserError(f"task: the training set of {task.name!r} is empty")
    if task.new_tokens == 0 and len({example.label for example in train}) < 2 and not task.one_class_train:
        raise UserError(f"task: the training set of {task.name!r} holds one class only; two are needed to tell apart")


def check_prompt(encoder: PromptEncoder, example: Example) -> None:
    """Raise UserError if the template or ``shorten`` names a field that the examples lack."""
    template = encoder.prompt.template
    for name in names(template):
        if name != "mask" and name not in example.fields:
            raise unknown(f"template: {template!r}", name, example.fields)
    if encoder.task.shorten and encoder.task.shorten not in example.fields:
        raise unknown("shorten", encoder.task.shorten, example.fields)


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
        _attach(settings, language_model), encoder, train, dev, settings.objective, None, settings.seed,
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
) -> tuple[AdapterProblem, dict[str, Tensor]]:
    """Build the problem of a search, with its parts; arguments and errors as for ``open_method``."""
    make_engine = SequentialEngine if settings.engine == "sequential" else Engine
    problem = AdapterProblem(
        _attach(settings, language_model), encoder, train, dev, settings.objective, settings.batch, settings.seed,
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
        UserError: Ray is missing, or its cluster does not answer.
    """
    if isinstance(settings, SubspaceSettings) and settings.uses_workers:
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
    return open_problem(settings, encoder.language_model.read_weights(), encoder, train, dev, measured)[0]


def _search(settings: SearchSettings, problem: AdapterProblem) -> Search:
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
    names = read_by_answers(model, language_model.kind, _targets(settings.target), settings.depth)
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


def _attach(settings: SubspaceSettings | FirstOrderSettings, language_model: LanguageModel) -> adapters.Adapter:
    targets = _targets(settings.target)
    if not targets and isinstance(settings, SubspaceSettings):
        targets = [subspace_class(settings.subspace).target]
    return adapters.attach(language_model, settings.rank, targets)


def _targets(target: Any) -> list[str]:
    names = target.split(",") if isinstance(target, str) else target
    return [str(name).strip() for name in names if str(name).strip()]
