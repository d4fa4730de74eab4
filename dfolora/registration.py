"""Register optimizers, subspaces, objectives, rewards, tasks, methods and baselines of your own by name."""

from __future__ import annotations

from typing import Any

from dfolora.errors import unknown
from dfolora.registry import Registry


def register(kind: str, name: str, thing: Any, about: str = "") -> None:
    """Register something of your own under a name, for the rest of this process.

    An installed package does the same for every process by an entry point, in the group ``dfolora.optimizers``,
    ``dfolora.subspaces``, ``dfolora.objectives``, ``dfolora.rewards``, ``dfolora.tasks``, ``dfolora.methods``,
    ``dfolora.baselines``, ``dfolora.trackers``, ``dfolora.predictors``, ``dfolora.question_sets`` or
    ``dfolora.text_optimizers``.

    Args:
        kind: ``optimizer``, ``subspace``, ``objective``, ``reward``, ``task``, ``method``, ``baseline``, ``tracker``,
            ``predictor``, ``question-set`` or ``text-optimizer``.
        name: what users type.
        thing: an ``Optimizer``, ``Subspace``, ``Baseline``, ``Tracker``, ``Predictor`` or ``TextOptimizer`` class, a
            function of scores and labels (an objective) or of texts, examples and what stands in a user's brackets (a
            reward), a ``Task``, a ``QuestionSet``, a method's class of settings (docs/adding.md, docs/rewards.md).
        about: what it is, in one line; '': the first line of its docstring.

    Raises:
        UserError: an unknown kind, or a name that is built in.
    """
    _registry(kind).add(name, thing, about)


def _registry(kind: str) -> Registry:
    from dfolora import baselines, optimizers, reasoning, subspaces, tasks, texts
    from dfolora.problems import objectives, reward_source
    from dfolora.runs import trackers
    from dfolora.settings import methods
    from dfolora.tasks import reasoning as question_sets

    registries = {
        "optimizer": optimizers.REGISTRY,
        "subspace": subspaces.REGISTRY,
        "objective": objectives.REGISTRY,
        "task": tasks.REGISTRY,
        "method": methods.REGISTRY,
        "baseline": baselines.REGISTRY,
        "tracker": trackers.REGISTRY,
        "reward": reward_source.REGISTRY,
        "predictor": reasoning.REGISTRY,
        "question-set": question_sets.REGISTRY,
        "text-optimizer": texts.REGISTRY,
    }
    if kind not in registries:
        raise unknown("register", kind, registries)
    return registries[kind]
