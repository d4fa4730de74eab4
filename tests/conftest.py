"""What every test gets: one thread, and registries that forget."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    from dfolora import baselines, optimizers, subspaces, tasks
    from dfolora.problems import objectives
    from dfolora.settings import methods

    modules = (optimizers, subspaces, tasks, objectives, methods, baselines)
    for registry in (module.REGISTRY for module in modules):
        monkeypatch.setattr(registry, "_added", dict(registry._added))
