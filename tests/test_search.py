"""The loop: every setting runs and means what it says, selection never harms, NaN never wins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tiny_models import SMALL, Command, Tune, log, model

from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.log import Line, checksum
from dfolora.methods.search import Search
from dfolora.problems import problem as problems
from dfolora.problems.objectives import REGISTRY as OBJECTIVES
from dfolora.problems.selection import Selection
from dfolora.settings.presets import PRESETS
from dfolora.subspaces import REGISTRY as SUBSPACES


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tune:
    return Tune(Command(capsys), tmp_path)


def config_of(scores: dict[str, Any]) -> LoraConfig:
    return LoraConfig.from_pretrained(scores["adapter"])


@pytest.mark.parametrize("mode", ["layerwise", "joint"])
@pytest.mark.parametrize("subspace", SUBSPACES.names())
def test_every_subspace(tune: Tune, subspace: str, mode: str) -> None:
    scores, lines = tune("--subspace", subspace, "--mode", mode)
    assert scores["subspace"] == subspace
    layers = [line["layer"] for line in lines[1:]]
    assert layers == ([0, 1] * 3 if mode == "layerwise" else [None] * 6)
    assert [line["sweep"] for line in lines[1:]] == ([1, 1, 2, 2, 3, 3] if mode == "layerwise" else [1, 2, 3, 4, 5, 6])
    losses = [loss for line in lines[1:] for loss in line["losses"]]
    assert len(losses) == 24
    assert len(set(losses)) == 24  # every candidate is another model
    assert [line["evaluations"] for line in lines] == [0, 4, 8, 12, 16, 20, 24]
    assert len({line["checksum"] for line in lines}) == 7


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES.names() if name != "likelihood"])
def test_every_objective_of_label_words(tune: Tune, objective: str) -> None:
    _, lines = tune("--objective", objective)
    losses = {loss for line in lines[1:] for loss in line["losses"]}
    if objective == "metric":  # minus the accuracy on six examples
        assert all(abs(loss * 6 / 100 - round(loss * 6 / 100)) < 1e-4 for loss in losses)
        assert len(losses) > 1
        assert max(losses) <= 0
    else:
        assert all(loss > 0 for loss in losses)
        _, other = tune("--objective", "hinge" if objective == "cross-entropy" else "cross-entropy")
        assert lines[1]["checksum"] == other[1]["checksum"]
        assert lines[1]["losses"] != other[1]["losses"]


def test_a_search_lowers_the_loss(tune: Tune) -> None:
    _, lines = tune("--budget", 200, "--population", 10, "--sigma", 0.3)
    first, last = (sum(line["losses"]) / 10 for line in (lines[1], lines[-1]))
    assert last < 0.75 * first


def test_estimators_are_told_their_options(tune: Tune) -> None:
    scores, lines = tune("--optimizer", "guided", "--best-share", 0.25, "--lr", 0.01, "--visit", 2, "--noise", "plane")
    step = [(0, 4), (0, 2), (1, 4), (1, 2)]  # what is left of the budget does not hold another population
    assert [(line["layer"], len(line["losses"])) for line in lines[1:]] == [*step, *step[:-1]]
    assert math.isfinite(scores["tuned"]["accuracy"])
    runs = [tune("--optimizer", "spsa", *changes)[1] for changes in ([], ["--lr", 1], ["--update", "sgd"])]
    assert len({lines[1]["checksum"] for lines in runs}) == 1
    assert len({lines[-1]["checksum"] for lines in runs}) == 3


def test_visits_and_looks(tune: Tune) -> None:
    _, lines = tune("--visit", 2)
    assert [line["layer"] for line in lines[1:]] == [0, 0, 1, 1, 0, 0]
    assert [line["sweep"] for line in lines[1:]] == [1, 1, 1, 1, 2, 2]
    assert [line["generation"] for line in lines if line["dev"]] == [0, 4, 6]
    _, lines = tune()
    assert [line["generation"] for line in lines if line["dev"]] == [0, 2, 4, 6]
    _, lines = tune("--dev-every", 4, "--budget", 14)  # a generation that would pass the budget is not begun
    assert [line["generation"] for line in lines if line["dev"]] == [0, 1, 2, 3]
    _, lines = tune("--dev-every", 10)
    assert [line["evaluations"] for line in lines if line["dev"]] == [0, 12, 20]
    assert [line["dev_token_layers"] for line in lines] == sorted(line["dev_token_layers"] for line in lines)


def test_rank_and_target(tune: Tune) -> None:
    scores, _ = tune("--rank", 3)
    config = config_of(scores)
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (3, 3, model("masked"))
    assert {name.rsplit(".", 1)[-1] for name in config.target_modules} == {"query", "key"}
    assert len(config.target_modules) == 4
    scores, _ = tune("--target", "value, dense")
    assert {name.rsplit(".", 1)[-1] for name in config_of(scores).target_modules} == {"value", "dense"}


def test_what_a_layer_holds(tune: Tune) -> None:
    _, mean = tune("--incumbent", "mean")
    _, best = tune("--incumbent", "best")
    assert mean[1]["losses"] == best[1]["losses"]  # the first generation knows of no incumbent
    assert mean[2]["checksum"] == best[2]["checksum"]
    assert mean[2]["losses"] != best[2]["losses"]  # the second layer is searched above another first one


def test_a_bound_reaches_the_search(tune: Tune) -> None:
    _, free = tune("--sigma", 2)
    _, bound = tune("--sigma", 2, "--bound", 2)
    assert free[1]["checksum"] != bound[1]["checksum"]


def test_the_preset(tune: Tune) -> None:
    scores, lines = tune("--preset", "dfo-lora", "--subspace", "paper")
    config = (Path(scores["run"]) / "config.yaml").read_text(encoding="utf-8")
    assert "selection: sample" in config
    assert "incumbent: best" in config
    assert "population: 4" in config  # the flags of SMALL win over it
    assert "sigma: 0.5" in config
    assert [line["generation"] for line in lines if line["dev"]] == [0]  # every 100 evaluations, and there are 24
    assert scores["dev_tuned"] == scores["dev_zero_shot"]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("mezo") and name.endswith("-lora")])
def test_the_presets_of_mezo(tune: Tune, preset: str) -> None:
    scores, lines = tune("--preset", preset, "--lr", 1, "--dev-every", 6)
    assert scores["subspace"] == "lora"
    assert {line["layer"] for line in lines} == {None}
    assert [len(line["losses"]) for line in lines[1:4]] == [4, 4 if preset == "mezo-lora" else 2, 4]
    assert len({line["checksum"] for line in lines}) == len(lines)
    looks = [line["dev"]["loss"] for line in lines if line["dev"]]
    assert len(set(looks)) > 1  # what is looked at has moved


@pytest.mark.parametrize("seed", range(6))
def test_selection_is_the_best_look(tune: Tune, seed: int) -> None:
    scores, lines = tune("--seed", seed, kind="causal" if seed % 2 else "masked")
    looks = [(line["dev"]["main"], -line["dev"]["loss"], -line["evaluations"]) for line in lines if line["dev"]]
    assert (scores["dev_tuned"]["accuracy"], -scores["selected_at"]) == (max(looks)[0], max(looks)[2])
    assert scores["dev_tuned"]["accuracy"] >= scores["dev_zero_shot"]["accuracy"]
    on_dev = tune.command.json("evaluate", *tune.files, "--adapter", scores["adapter"], "--split", "dev")
    assert on_dev["metrics"] == scores["dev_tuned"]


def selecting(rule: str, best: Line) -> Selection:
    """A selection that has seen ``best``, without a model."""
    selection = Selection.__new__(Selection)
    selection.rule = rule
    selection.adapter = type("Adapter", (), {"state": lambda _: "new"})()  # type: ignore[assignment]
    selection.best, selection.state = best, "base"  # type: ignore[assignment]
    return selection


def look(generation: int, main: float, loss: float | None) -> Line:
    return Line(generation=generation, dev={"metrics": {}, "main": main, "loss": loss})


@pytest.mark.parametrize(
    ("selection", "best", "new", "taken"),
    [
        ("incumbent", look(0, 50.0, 1.0), look(2, 50.0, 0.9), True),  # a tie goes to the lower loss
        ("incumbent", look(0, 50.0, 1.0), look(2, 50.0, 1.0), False),  # a full tie to the older
        ("incumbent", look(0, 50.0, 1.0), look(2, 50.0, 1.1), False),
        ("incumbent", look(0, 50.0, 1.0), look(2, 60.0, 9.0), True),
        ("incumbent", look(0, 50.0, 1.0), look(2, 40.0, 0.1), False),
        ("incumbent", look(0, 50.0, 1.0), look(2, 99.0, None), False),  # a loss of NaN: the metric is luck
        ("incumbent", look(2, 50.0, None), look(4, 10.0, 5.0), True),
        ("sample", look(0, 50.0, 1.0), look(2, 40.0, 2.0), True),  # the release's base model is no candidate
        ("sample", look(2, 50.0, 1.0), look(4, 50.0, 0.5), False),
        ("sample", look(2, 50.0, 1.0), look(4, 60.0, 5.0), True),
        ("sample", look(2, 50.0, 1.0), look(4, 60.0, None), False),
    ],
)
def test_selection_rules(selection: str, best: Line, new: Line, taken: bool) -> None:
    holder = selecting(selection, best)
    holder.look(new)
    assert holder.best is (new if taken else best)
    assert holder.state == ("new" if taken else "base")


def test_sample_selection_keeps_the_sample(tune: Tune) -> None:
    """The adapter that is saved is the last candidate of the selected generation, not the layers' incumbents."""
    scores, lines = tune("--selection", "sample", "--dev-every", 4)
    incumbents, _ = tune("--dev-every", 4)
    assert scores["selected_at"] > 0
    assert [line["dev"]["loss"] for line in lines[1:]] != [line["dev"]["loss"] for line in log(incumbents["run"])[1:]]
    on_dev = tune.command.json("evaluate", *tune.files, "--adapter", scores["adapter"], "--split", "dev")
    assert on_dev["metrics"] == scores["dev_tuned"]


def spoil(monkeypatch: pytest.MonkeyPatch, spoilt: Any) -> None:
    """Make the objective lose the candidates whose indices ``spoilt`` gives for a call number, from 1."""
    make, calls = problems.make_objective, iter(range(1, 10**6))

    def made(*arguments: Any) -> Any:
        of = make(*arguments)

        def spoiling(examples: Any) -> Any:
            def objective(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                losses = of(examples)(scores, labels)
                losses[spoilt(next(calls))] = math.nan
                return losses

            return objective

        return spoiling

    monkeypatch.setattr(problems, "make_objective", made)


@pytest.mark.parametrize("optimizer", ["cma", "es", "fireworks", "fzoo", "random", "sep-cma", "spsa", "nevergrad:PSO"])
def test_candidates_without_a_loss(tune: Tune, monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    # inf becomes NaN in the log, that is null, and what is told is worse than any finite loss
    spoil(monkeypatch, lambda call: [call % 4])
    scores, lines = tune("--optimizer", optimizer)
    assert [line["losses"].index(None) for line in lines[1:]] == [1, 2, 3, 0, 1, 2]
    assert "every loss is NaN" not in tune.command.err
    assert math.isfinite(scores["tuned"]["accuracy"])
    assert scores["dev_tuned"]["accuracy"] >= scores["dev_zero_shot"]["accuracy"]


def test_a_generation_without_a_loss(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda call: [0, 1, 2, 3])
    scores, lines = tune()
    assert all(line["losses"] == [None] * 4 for line in lines[1:])
    assert tune.command.err.count("every loss is NaN") == 1
    assert "generation 1:" in tune.command.err
    assert scores["selected_at"] == 0  # nothing moved, so the base model stays
    assert scores["tuned"] == scores["zero_shot"]


def test_a_broken_adapter_is_not_selected(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter under which the model gives NaN may be right by luck: argmax of NaN is class 0."""
    inside = Selection.measure
    lucky = {"metrics": {"accuracy": 100.0, "macro_f1": 100.0}, "main": 100.0, "loss": None}

    def broken(self: Selection, line: Line) -> None:
        inside(self, line)
        if line.generation == 2:
            line.dev = lucky

    monkeypatch.setattr(Selection, "measure", broken)
    scores, lines = tune()
    assert lines[2]["dev"] == json.loads(json.dumps(lucky))
    assert scores["selected_at"] != 8


def test_a_model_that_is_broken_from_the_start(tune: Tune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(problems, "cross_entropy", lambda scores, labels: scores.new_full((1, 6), math.nan))
    output = tmp_path / "run"
    assert tune.command("tune", "--model", model("masked"), *tune.files, *SMALL, "--output", output) == 2
    assert "--dtype" in tune.command.err
    assert "nan" in tune.command.err
    assert len(tune.command.said) == 1
    assert not output.exists()


def test_a_repeated_line_of_another_size() -> None:
    search, z = Search.__new__(Search), torch.zeros(4, 2)
    search._ask = lambda before: (0, z)  # type: ignore[method-assign]
    line = Line(generation=1, checksum=checksum(z), losses=[1.0, 2.0, 3.0])
    with pytest.raises(UserError, match=r"^resume: generation 1 has 3 losses for 4 candidates"):
        search.repeat(Line(), line)
    line.checksum = checksum(z + 1)
    with pytest.raises(UserError, match="generation 1 is not the logged one"):
        search.repeat(Line(), line)


@pytest.mark.parametrize("optimizer", ["cma", "guided"])
@pytest.mark.parametrize("objective", ["cross-entropy", "metric"])
def test_minibatches(tune: Tune, monkeypatch: pytest.MonkeyPatch, optimizer: str, objective: str) -> None:
    """Every generation draws its own examples, but for the two of one guided step; tokens are paid for these only."""
    drawn: list[list[int]] = []
    plain = Engine.scores

    def look(self: Engine, factors: Any, examples: Any = None) -> torch.Tensor:
        if examples is not None:  # not the comparison before the search
            drawn.append(examples.tolist())
        return plain(self, factors, examples)

    monkeypatch.setattr(Engine, "scores", look)
    flags = ("--optimizer", optimizer, "--objective", objective, "--visit", 2, "--budget", 40, "--population", 4)
    flags += ("--lr", 0.05) if optimizer == "guided" else ()  # a ladder of rates would have generations of its own
    scores, lines = tune(*flags, "--batch", 3)
    assert all(len(examples) == len(set(examples)) == 3 for examples in drawn)
    assert len({tuple(examples) for examples in drawn}) > len(drawn) // 4
    if optimizer == "guided":
        assert [len(line["losses"]) for line in lines[1:5]] == [4, 2, 4, 2]
        assert all(pool == probes for pool, probes in zip(drawn[::2], drawn[1::2], strict=False))
    monkeypatch.setattr(Engine, "scores", plain)
    assert scores["token_layers"] < tune(*flags)[0]["token_layers"]
