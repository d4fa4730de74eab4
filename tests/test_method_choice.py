"""Which method a run has where none is named."""

from __future__ import annotations

from typing import Any

import pytest

from dfolora import Example, Task
from dfolora.opening import run_settings
from dfolora.settings.build import tune_settings

CHOSEN = [
    ({}, "tangent"),
    ({"budget": 400, "seed": 21, "objective": "hinge", "dtype": "bfloat16", "test-limit": 9}, "tangent"),
    ({"target": "o"}, "tangent"),  # search takes it, too
    ({"depth": 0.5, "halves": False}, "tangent"),
    ({"new_tokens": 4}, "search"),
    ({"reward": len}, "search"),
    ({"objective": "metric"}, "search"),
    ({"optimizer": "cma"}, "search"),
    ({"subspace": "lora"}, "search"),
    ({"population": 8}, "search"),
    ({"rank": 2}, "search"),
    ({"mode": "joint"}, "search"),
    ({"lr": 0.1, "optimizer": "spsa"}, "search"),
    ({"incumbent": "best"}, "search"),  # cma's own
    ({"method": "hybrid", "population": 4}, "hybrid"),
    ({"preset": "dfo-lora"}, "search"),
    ({"preset": "mezo"}, "full-parameter"),
]


@pytest.mark.parametrize(("values", "method"), CHOSEN, ids=[str(values) for values, _ in CHOSEN])
def test_the_method_that_options_ask_for(values: dict[str, Any], method: str) -> None:
    assert tune_settings(**values).method == method


def test_the_method_that_a_task_asks_for() -> None:
    """Where answers are generated there are no class scores to go by."""
    generated = Task.from_examples([Example({"text": "a"}, 0, ("b",))], template="{text}", new_tokens=3)
    for task, method in (
        ("squad", "search"),
        (generated, "search"),
        ("glue/sst2", "tangent"),
        ("demo/pair", "tangent"),
    ):
        assert run_settings(model="m", task=task).method == method
    assert run_settings(model="m", task="squad", method="first-order").method == "first-order"
    assert run_settings().method == "tangent"
    assert run_settings().task == "demo/sentiment"
