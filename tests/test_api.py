"""The door for Python: whatever the command does, with objects wherever the command has names."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from tiny_models import SMALL, Command, csv_files, given, log, model
from tiny_questions import SMALL as SMALL_QUESTIONS
from tiny_questions import model as reader
from tiny_questions import squad_folder

import dfolora
from dfolora import Example, Optimizer, UserError
from dfolora.models.load import load
from dfolora.optimizers import make_optimizer
from dfolora.optimizers.cma import CMA
from dfolora.problems import objectives
from dfolora.subspaces import subspace_class


class Walk(Optimizer):
    """A random walk: each generation is drawn around the best point so far."""

    def __init__(
        self, *arguments: Any, reach: Annotated[float, "length of a step, in sigmas"] = 1.0, **common: Any
    ) -> None:
        super().__init__(*arguments, **common)
        self.reach = reach
        self.center = np.zeros(self.dim)

    def _ask(self) -> Any:
        return self.center + self.reach * self.sigma * self.rng.standard_normal((self.population, self.dim))

    def _tell(self, points: Any, losses: Any) -> None:
        self.center = self.best

    def _incumbent(self) -> Any:
        return self.center


def losses(run: Any) -> list[Any]:
    return [line["losses"] for line in log(run)]


def without_cost(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in ("token_layers", "forwards")} for line in lines]


# -- names and objects ----------------------------------------------------------------------------------------------


def test_a_run_is_that_of_the_command(command: Command, tmp_path: Path, options: dict[str, Any]) -> None:
    by_command = command.json(
        "tune", "--model", model("masked"), *csv_files(tmp_path), *SMALL, "--output", tmp_path / "c"
    )
    run = dfolora.tune(**options)
    assert log(run.folder) == log(by_command["run"])
    mere = ("seconds", "run", "adapter")
    assert {k: v for k, v in run.scores.items() if k not in mere} == {
        k: v for k, v in by_command.items() if k not in mere
    }
    assert run.adapter == str(tmp_path / "run" / "adapter")
    files = [Path(folder) / "adapter_model.safetensors" for folder in (run.adapter, by_command["adapter"])]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_nothing_is_printed(options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    dfolora.tune(**options)
    out, err = capfd.readouterr()
    assert out == ""
    assert "tuning" not in err


def test_names_and_objects_are_the_same_run(tmp_path: Path, options: dict[str, Any]) -> None:
    """Model, task, optimizer, subspace and objective as objects: the same candidates, the same losses."""
    by_name = dfolora.tune(**options)
    files = {name: options.pop(f"{name}_file") for name in ("train", "dev", "test")}
    task = dfolora.Task.from_files(
        files["train"], files["test"], files["dev"],
        template=options.pop("template"), words=options.pop("label_words"),
    )  # fmt: skip
    options |= {
        "model": load(options["model"]), "task": task, "optimizer": CMA, "subspace": subspace_class("pca"),
        "objective": objectives.cross_entropy, "output": str(tmp_path / "objects"),
    }  # fmt: skip
    by_object = dfolora.tune(**options)
    assert without_cost(log(by_object.folder)) == without_cost(log(by_name.folder))
    assert by_object.scores["tuned"] == by_name.scores["tuned"]
    again = dfolora.tune(**{**options, "output": str(tmp_path / "again")})  # what the first has tuned does not count
    assert without_cost(log(again.folder)) == without_cost(log(by_name.folder))
    assert dfolora.evaluate(options["model"], task)["metrics"] == by_name.scores["zero_shot"]
    assert dfolora.evaluate(options["model"], task, adapter=again.adapter)["metrics"] == by_name.scores["tuned"]


def test_an_optimizer_of_ones_own(tmp_path: Path, options: dict[str, Any]) -> None:
    first = dfolora.tune(**options, optimizer=Walk)
    assert first.scores["optimizer"].endswith("Walk")
    longer = dfolora.tune(**{**options, "output": str(tmp_path / "b")}, optimizer=Walk, reach=3.0)
    assert losses(first.folder)[1] != losses(longer.folder)[1]

    def factory(**arguments: Any) -> Optimizer:
        return Walk(**arguments, reach=3.0)

    for number, optimizer in enumerate((factory, functools.partial(Walk, reach=3.0))):
        other = dfolora.tune(**{**options, "output": str(tmp_path / str(number))}, optimizer=optimizer)
        assert log(other.folder) == log(longer.folder)


def test_an_instance_serves_a_search_of_all_layers_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    options |= {"mode": "joint", "subspace": "pca", "optimizer": "cma"}
    by_name = dfolora.tune(**options)
    dim = dfolora.problem(**{k: v for k, v in options.items() if k != "output"}).parts[0].dim
    from dfolora.seeds import seed_of

    def made() -> Optimizer:
        return make_optimizer("cma", dim, 4, 0.5, seed_of(13, "layer 0"), generations=6)

    by_instance = dfolora.tune(**options | {"optimizer": made(), "output": str(tmp_path / "b")})
    assert log(by_instance.folder) == log(by_name.folder)
    instance = made()
    with pytest.raises(UserError, match="^optimizer: this CMA "):
        dfolora.tune(**options | {"optimizer": instance, "mode": "layerwise", "output": str(tmp_path / "c")})
    assert not (tmp_path / "c").exists()


def test_a_subspace_of_ones_own(tmp_path: Path, options: dict[str, Any]) -> None:
    plain = subspace_class("pca")

    class Halved(plain):  # type: ignore[misc, valid-type]
        """Every edit of pca, half as large."""

        def factors(self, z: torch.Tensor) -> Any:
            return {name: (a, b / 2) for name, (a, b) in super().factors(z).items()}

    own = dfolora.tune(**options, subspace=Halved)
    smaller = dfolora.tune(**options | {"scale": 0.5, "output": str(tmp_path / "b")})
    # pca's edits grow with the scale: half the edit is half the scale
    for one, other in zip(losses(own.folder), losses(smaller.folder), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert [line["checksum"] for line in log(own.folder)] == [line["checksum"] for line in log(smaller.folder)]
    assert own.scores["subspace"].endswith("Halved")


def test_an_objective_of_ones_own(tmp_path: Path, options: dict[str, Any]) -> None:
    """A plain function of scores (P, N, C) and labels (N,), to (P, N) or (P,)."""

    def margin(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        right = scores.gather(-1, labels.expand(len(scores), -1)[..., None])[..., 0]
        return scores.sum(-1) - 2 * right

    by_example = dfolora.tune(**options, objective=margin)
    by_candidate = dfolora.tune(
        **options | {"output": str(tmp_path / "b")}, objective=lambda s, y: margin(s, y).mean(-1)
    )
    for one, other in zip(losses(by_example.folder), losses(by_candidate.folder), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert any(loss < 0 for line in losses(by_example.folder) for loss in line)
    with pytest.raises(UserError, match=r"^objective: for scores of shape \(\d, 6, 2\) it gave \(\)"):
        dfolora.tune(**options | {"output": str(tmp_path / "c")}, objective=lambda scores, labels: scores.mean())
    own = dfolora.tune(
        **{k: v for k, v in options.items() if k not in ("subspace_dim", "sigma", "population")}
        | {"method": "first-order", "output": str(tmp_path / "d"), "lr": 0.01},
        objective=margin,
    )
    assert losses(own.folder)[-1][0] < losses(own.folder)[1][0]


def test_a_reward_on_generated_text(tmp_path: Path) -> None:
    """The longer an answer, the better; the texts are those of the examples that they are given with."""
    seen: list[tuple[int, int]] = []

    def length(texts: list[str], examples: Sequence[Example]) -> list[float]:
        seen.append((len(texts), len(examples)))
        assert all(isinstance(text, str) for text in texts)
        assert all("question" in example.fields for example in examples)
        return [float(len(text.split())) for text in texts]

    options = given(["--task", "squad", "--model", reader("llama"), "--data", squad_folder(tmp_path / "data")])
    options |= given(SMALL_QUESTIONS)
    run = dfolora.tune(**options, reward=length, new_tokens=8, output=str(tmp_path / "run"))
    assert set(seen) == {(6, 6), (3, 3), (5, 5)}
    assert list(run.scores["tuned"]) == ["reward"]
    assert run.scores["dev_tuned"]["reward"] >= run.scores["dev_zero_shot"]["reward"]
    found = [loss for line in losses(run.folder) for loss in line]
    assert all(-8 <= loss <= 0 for loss in found)
    assert len(set(found)) > 2

    def mean(texts: list[str], examples: Sequence[Example]) -> float:
        return sum(len(text.split()) for text in texts) / len(texts)

    other = dfolora.tune(**options, reward=mean, new_tokens=8, output=str(tmp_path / "mean"))
    for one, two in zip(losses(run.folder), losses(other.folder), strict=True):
        assert one == pytest.approx(two)
    for number, (wrong, said) in enumerate(
        [
            (lambda t, e: [1.0, 2.0], "gave 2 numbers for"),
            (lambda t, e: None, "raised TypeError"),
            ("long", "unknown 'long'"),
        ]
    ):
        with pytest.raises(UserError, match=f"^reward: .*{said}") as caught:
            dfolora.tune(**options, reward=wrong, output=str(tmp_path / f"wrong{number}"))
        assert "\n" not in str(caught.value)


def test_own_files_to_an_adapter(tmp_path: Path) -> None:
    """From a notebook: a CSV in, an adapter out."""
    csv_files(tmp_path)
    task = dfolora.Task.from_files(
        tmp_path / "train.csv", test=tmp_path / "test.csv", template="{text} It was {mask}.", words="0=bad,1=great"
    )
    run = dfolora.tune(model("causal"), task, budget=40, shots=1, output=str(tmp_path / "run"))
    assert (Path(run.adapter) / "adapter_model.safetensors").is_file()
    assert set(run.scores["tuned"]) == {"accuracy", "macro_f1"}


# -- presets and settings -------------------------------------------------------------------------------------------


def test_a_preset_from_python_is_that_method(options: dict[str, Any]) -> None:
    """The constructor used to search with CMA-ES instead."""
    for name in ("sigma", "population", "rank", "subspace_dim"):
        del options[name]
    run = dfolora.tune(**options | {"preset": "mezo-lora", "batch": 4, "dev_every": 8})
    settings: Any = run.settings
    assert (settings.optimizer, settings.subspace, settings.mode) == ("spsa", "lora", "joint")
    assert (settings.sigma, settings.rank, settings.population) == (1e-2, 8, 2)
    assert settings.optimizer_options == {"lr": 5e-5, "update": "sgd", "noise": "gaussian", "paper_scale": True}
    assert {line["layer"] for line in log(run.folder)} == {None}
    assert [len(line) for line in losses(run.folder)[1:]] == [2] * 12
    reopened = dfolora.Run.open(run.folder, 30)
    reopened.close()
    assert reopened.settings.search == "spsa"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": "nonsense"}, "optimizer: unknown 'nonsense'"),
    ({"optimizer": 7}, "optimizer: 7 is none"),
    ({"optimizer": dict}, "optimizer: <class 'dict'> is none"),
    ({"population": -3}, "population: -3 cannot work"),
    ({"subspace": "nowhere"}, "subspace: unknown 'nowhere'"),
    ({"objective": "hing"}, "objective: unknown 'hing'; did you mean 'hinge'"),
    ({"preset": "mezo", "method": "search"}, "preset: mezo is for the method full-parameter"),
    ({"method": "first-order"}, "the method first-order does not take it"),
    ({"lr": 0.1}, "lr: cma does not take it; it is for"),
    ({"reach": 0.1}, "unknown 'reach'"),
    ({"optimizer": Walk, "raech": 0.1}, "raech"),
    ({"optimizer": Walk, "reach": "far"}, "reach: 'far' is not a number"),
    ({"task": "demo/sentiment"}, "task: 'demo/sentiment' and a file of your own exclude each other"),
    ({"model": 7}, "model: "),
    ({"budgte": 100}, "unknown 'budgte'; did you mean 'budget'"),
    ({"listener": None, "mode": "jiont"}, "mode: unknown 'jiont'; did you mean 'joint'"),
]


@pytest.mark.parametrize(("values", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, options: dict[str, Any], values: dict[str, Any], said: str
) -> None:
    """And no line speaks of flags to people who use Python."""
    with pytest.raises(UserError) as caught:
        dfolora.tune(**options | values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# -- a loop of one's own --------------------------------------------------------------------------------------------


def test_a_problem_gives_the_losses_of_the_log(tmp_path: Path, options: dict[str, Any]) -> None:
    """The search of a run, written by hand: a layer after the other, one optimizer each."""
    from dfolora.seeds import seed_of

    run = dfolora.tune(**options)
    problem = dfolora.problem(**{name: value for name, value in options.items() if name != "output"})
    searches = [
        make_optimizer("cma", part.dim, 4, 0.5, seed_of(13, f"layer {index}"), generations=3)
        for index, part in enumerate(problem.parts)
    ]
    found = []
    for generation in range(6):
        part = generation % 2
        candidates = searches[part].ask()
        scores = problem.losses(candidates, part)
        assert (scores.dtype, scores.shape) == (torch.float32, (4,))
        searches[part].tell(scores)
        problem.keep(searches[part].incumbent(), part)
        found.append(scores.tolist())
    for one, other in zip(found, losses(run.folder)[1:], strict=True):
        assert one == pytest.approx(other, rel=1e-7)
    problem.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "adapter_model.safetensors").is_file()
    with pytest.raises(UserError, match="^method: a problem is for search, not for first-order"):
        dfolora.problem(method="first-order")


# -- names of one's own ---------------------------------------------------------------------------------------------


def test_the_public_names() -> None:
    assert 10 <= len(dfolora.__all__) <= 21
    for name in dfolora.__all__:
        assert getattr(dfolora, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tuner'"):
        _ = dfolora.tuner
    assert dfolora.__version__.count(".") == 2
