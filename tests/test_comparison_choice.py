"""What the methods of a grid mean, and which of several choices the dev sets pick."""

from __future__ import annotations

from typing import Any

from dfolora.comparison import run as runs
from dfolora.comparison.entry import entries, seeds_of


def test_what_methods_mean() -> None:
    def options(method: Any) -> dict[str, Any]:
        return dict(entries("methods", [method])[0].options)

    assert options("default --budget 9") == {"budget": "9"}
    assert options("hybrid") == {"method": "hybrid"}
    assert options("full-parameter --lr=1e-5") == {"method": "full-parameter", "lr": "1e-5"}
    assert options("dfo-lora") == {"preset": "dfo-lora"}
    assert options("guided --population 4") == {"optimizer": "guided", "population": "4"}
    assert options("nevergrad:PSO") == {"optimizer": "nevergrad:PSO"}
    assert options("spsa --paper-scale --dev-every 8") == {"optimizer": "spsa", "paper_scale": True, "dev_every": "8"}
    assert options({"method": "spsa", "dev-every": 8}) == {"optimizer": "spsa", "dev_every": 8}
    tried = entries("methods", "spsa --try lr=0.1/0.3 --try sigma=1/2")[0].choices()
    assert tried == [{"lr": lr, "sigma": sigma} for lr in ("0.1", "0.3") for sigma in ("1", "2")]
    assert entries("models", "a/b/all-MiniLM-L6-v2")[0].label == "all-MiniLM-L6-v2"
    assert seeds_of("13, 21") == seeds_of([13, 21]) == [13, 21]


class Dev:
    """A cell as far as the choice looks at it."""

    searched = True

    def __init__(self, score: float, loss: float) -> None:
        self.found = {"dev": {"accuracy": score}, "dev_loss": loss}

    def result(self) -> dict[str, Any]:
        return self.found


def test_dev_chooses_by_the_mean_then_by_the_loss() -> None:
    def better(first: list[Dev], second: list[Dev]) -> bool:
        return runs.dev_score(first) > runs.dev_score(second)  # type: ignore[arg-type]

    assert better([Dev(80, 9), Dev(90, 9)], [Dev(84, 1), Dev(84, 1)])
    assert better([Dev(80, 0.4)], [Dev(80, 0.5)])
    assert better([Dev(80, 9), Dev(80, 9)], [Dev(99, 0)])  # the other one's second run failed
    assert better([Dev(1, 9)], [])
