"""One dataclass for each method = keyword arguments = YAML = flags."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import Command

from dfolora.errors import UserError
from dfolora.optimizers import make_optimizer, optimizer_names, options_of
from dfolora.settings.build import saved, settings, tune_settings
from dfolora.settings.methods import METHODS, FirstOrderSettings, FullParameterSettings, HybridSettings
from dfolora.settings.model import BenchSettings, EvaluateSettings
from dfolora.settings.options import Options, flag, hints, option
from dfolora.settings.presets import PRESETS
from dfolora.settings.search import SearchSettings
from dfolora.settings.tune import TuneSettings
from dfolora.settings.yaml_file import read_yaml

ROOT = Path(__file__).resolve().parents[1]
EVERY = (*METHODS.values(), EvaluateSettings, BenchSettings)


def fields(kind: type[Options]) -> dict[str, Any]:
    return {field.name: field for field in dataclasses.fields(kind)}


NUMBERS = [
    (kind, name) for kind in EVERY for name, field in fields(kind).items() if type(field.default) in (int, float)
]
ANY_VALUE = {int: 3, float: 0.25, bool: True, str: "word"}


def search(**values: Any) -> SearchSettings:
    made = tune_settings(method="search", **values)
    assert isinstance(made, SearchSettings)
    return made


# -- values ---------------------------------------------------------------------------------------------------------


def test_each_field_takes_what_it_holds() -> None:
    made = search(budget="1e3", sigma="0.5", **{"dev-every": 40}, model="m", target=["q", "k"])
    assert (made.budget, made.sigma, made.dev_every, made.target) == (1000, 0.5, 40, ["q", "k"])
    assert type(made.budget) is int
    assert search(label_words={0: "bad", 1: "great"}).label_words == {0: "bad", 1: "great"}
    assert search(trust_remote_code="true").trust_remote_code is True
    assert search() == SearchSettings()


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=[f"{kind.__name__} {name}" for kind, name in NUMBERS])
def test_numbers_refuse_words_and_halves(kind: type[Options], name: str) -> None:
    """The dataclass itself does, so that nobody gets past it."""
    for value in ("many", None, True, [1, 2], {"a": 1}, "nan", "inf"):
        with pytest.raises(UserError, match=f"^{name}: "):
            kind(**{name: value})
    if type(fields(kind)[name].default) is int:
        with pytest.raises(UserError, match=f"^{name}: '2.5' is not a whole number"):
            kind(**{name: "2.5"})


CANNOT_WORK: list[tuple[dict[str, Any], str]] = [
    ({"budget": 0}, "budget: 0 cannot work; the least is 1"),
    ({"budget": 19, "optimizer": "cma"}, "budget: 19 is less than one step of 20 evaluations"),
    ({"population": 0}, "population: 0"),
    ({"population": -3}, "population: -3"),
    ({"population": 2}, "population: 2 is too few for CMA"),
    ({"rank": 0}, "rank: 0"),
    ({"directions": 0}, "directions: 0"),
    ({"promise": 1.0}, "promise: 1.0 cannot work; the most is 0.99"),
    ({"depth": 1.5}, "depth: 1.5 cannot work; the most is 1"),
    ({"method": "tangent", "objective": "metric"}, "objective: the method tangent needs the class scores"),
    ({"method": "tangent", "population": 4}, "population: the method tangent does not take it; it is for search, hyb"),
    ({"halves": False, "sigma": 1}, "halves: cma does not take it|halves: the method search does not take it"),
    ({"visit": 0}, "visit: 0"),
    ({"batch": 0}, "batch: 0"),
    ({"subspace_dim": 0}, "subspace_dim: 0"),
    ({"shots": 0}, "shots: 0"),
    ({"seed": -1}, "seed: -1"),
    ({"seed": 2**32}, "seed: 4294967296"),
    ({"split_seed": 2**32}, "split_seed: 4294967296"),
    ({"dev_every": -1}, "dev_every: -1"),
    ({"bound": -0.5}, "bound: -0.5"),
    ({"bound": 0.05}, "sigma: 0.1 does not fit a bound of 0.05"),
    ({"sigma": 0}, "sigma: 0"),
    ({"sigma": "nan"}, "sigma: nan"),
    ({"scale": -1}, "scale: -1"),
    ({"scale": "inf"}, "scale: inf"),
    ({"mode": "jiont"}, "mode: unknown 'jiont'.*'joint'"),
    ({"selection": "best"}, "selection: unknown 'best'"),
    ({"test_split": "tset"}, "test_split: unknown 'tset'.*'test'"),
    ({"method": "serach"}, "method: unknown 'serach'.*'search'"),
    ({"incumbent": "beast"}, "incumbent: unknown 'beast'.*'best'"),
    ({"incumbent": "best", "optimizer": "random"}, "incumbent: random does not take it"),
    ({"lr": 0.1}, "lr: cma does not take it; it is for es, fzoo, greedy, guided, spsa, subzero"),
    ({"lr": -0.1, "optimizer": "spsa"}, "lr: -0.1"),
    ({"lr": "atuo", "optimizer": "spsa"}, "lr: 'atuo' is neither a number nor auto"),
    ({"lr": True, "optimizer": "spsa"}, "lr: True is not a number"),
    ({"best_share": 0.25, "optimizer": "greedy"}, "best_share: greedy does not take it; it is for guided"),
    ({"weights": "ranks", "optimizer": "spsa"}, "weights: spsa does not take it; it is for es"),
    ({"noise": "gaussian", "optimizer": "subzero"}, "noise: subzero does not take it"),
    ({"paper_scale": True, "optimizer": "random"}, "paper_scale: random does not take it"),
    ({"update": "sgd", "optimizer": "nevergrad:PSO"}, "update: nevergrad:PSO does not take it"),
    ({"update": "sgd", "optimizer": "spas"}, "optimizer: unknown 'spas'.*'spsa'"),
    ({"optimizer": "nonsense"}, "optimizer: unknown 'nonsense'"),
    ({"subspace": "nonsense"}, "subspace: unknown 'nonsense'"),
    ({"preset": ["mezo"]}, "preset: unknown .*'mezo'"),
    ({"preset": "dfo-loar"}, "preset: unknown 'dfo-loar'.*'dfo-lora'"),
    ({"budgt": 100}, "unknown 'budgt'.*'budget'"),
    ({"trust_remote_code": "perhaps"}, "trust_remote_code: 'perhaps' is not true or false"),
    ({"reward_timeout": 0}, "reward_timeout: 0"),
    ({"temperature": "hot"}, "temperature: 'hot' is not a number"),
    ({"optimizer_options": [1]}, "optimizer_options: "),
    ({"optimizer_options": {"lr": 1}}, "lr: cma does not take it"),
    ({"template": ["a"]}, "template: .*is not text"),
]


@pytest.mark.parametrize(("values", "named"), CANNOT_WORK, ids=[str(values) for values, _ in CANNOT_WORK])
def test_values_that_cannot_work(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match="^(option: )?" + named) as caught:
        tune_settings(**values)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_the_constructor_checks_as_well() -> None:
    """What once searched with CMA-ES under another name, or was found out hours later."""
    for values in ({"optimizer": "nonsense"}, {"population": -3}, {"mode": "jiont"}, {"subspace": "nowhere"}):
        with pytest.raises(UserError, match=f"^{next(iter(values))}: "):
            SearchSettings(**values)
    with pytest.raises(TypeError, match="preset"):
        SearchSettings(preset="mezo")  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchSettings().population = -3  # type: ignore[misc]
    with pytest.raises(UserError, match="^population: -3"):
        dataclasses.replace(SearchSettings(), population=-3)


# -- a method takes what it takes, by construction -------------------------------------------------------------------


STRANGERS = [
    (method, name)
    for method, kind in METHODS.items()
    for name in sorted({name for other in METHODS.values() for name in fields(other)} - set(fields(kind)))
    if name != "optimizer_options"
]


@pytest.mark.parametrize(("method", "name"), STRANGERS)
def test_an_option_of_another_method_is_refused(method: str, name: str) -> None:
    kind = METHODS[method]
    with pytest.raises(TypeError, match=name):
        kind(**{name: 1})
    if name in options_of("cma") | options_of("spsa") and "optimizer_options" in fields(kind):
        return  # an optimizer of this method may take it
    with pytest.raises(UserError) as caught:
        tune_settings(**{"method": method, name: 1})
    assert str(caught.value).startswith(f"{name}: ")
    assert "does not take it; it is for " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_there_is_something_to_refuse() -> None:
    refused = {method: {name for m, name in STRANGERS if m == method} for method in METHODS}
    assert {"subspace", "population", "sigma", "mode", "selection", "batch", "rho"} <= refused["first-order"]
    assert {"rank", "target", "weight_decay", "subspace", "mode"} <= refused["full-parameter"]
    assert {"rho", "alpha", "weight_decay", "first_order_layers", "lr"} <= refused["search"]
    assert {"subspace", "mode", "visit", "bound"} <= refused["hybrid"]


@pytest.mark.parametrize("name", optimizer_names())
def test_what_an_optimizer_takes_is_what_its_class_says(name: str) -> None:
    """Every option that any of them has: taken where the class has it, refused elsewhere."""
    taken = options_of(name)
    every = {option: each for other in optimizer_names() for option, each in options_of(other).items()}
    assert len(every) >= 6
    for wanted, each in every.items():
        some = {int: 2, float: 0.25, bool: True, str: "word", float | str: 0.25}
        value = each.choices[0] if each.choices else some[each.type]
        more = {"noise": "plane"} if wanted.startswith("plane") and "noise" in taken else {}
        if wanted in taken:
            made = search(optimizer=name, **{wanted: value}, **more)
            assert made.optimizer_options == {wanted: value, **more}
            assert make_optimizer(name, 10, 20, **made.optimizer_options).dim == 10
        else:
            with pytest.raises(UserError, match=f"^{wanted}: {name} does not take it"):
                search(optimizer=name, **{wanted: value})


def test_an_optimizer_is_told_the_options_that_were_given() -> None:
    assert search(optimizer="spsa").optimizer_options == {}
    made = search(optimizer="guided", lr="1e-3", best_share=0.25, paper_scale=True)
    assert made.optimizer_options == {"lr": 1e-3, "best_share": 0.25, "paper_scale": True}
    assert search(optimizer="fzoo", lr="auto").optimizer_options == {"lr": "auto"}
    assert search(incumbent="best").optimizer_options == {"incumbent": "best"}
    assert search(optimizer="guided", optimizer_options={"lr": 1e-3}, best_share=0.25).optimizer_options == {
        "lr": 1e-3,
        "best_share": 0.25,
    }
    hybrid = tune_settings(method="hybrid", update="sgd")
    assert isinstance(hybrid, HybridSettings)
    assert hybrid.optimizer_options == {"update": "sgd"}
    full = tune_settings(method="full-parameter", optimizer="guided", best_share=0.25, paper_scale=True)
    assert isinstance(full, FullParameterSettings)
    assert (full.best_share, full.paper_scale) == (0.25, True)


# -- Python, YAML and flags ------------------------------------------------------------------------------------------


def as_written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("method", METHODS)
def test_python_yaml_and_flags_are_equal(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option that the method takes, each with another value than its default."""
    kind, values = METHODS[method], dict[str, Any]()
    special = {
        "task": "", "dtype": "float32", "device": "cpu", "kind": "causal", "quantize": "", "model": "some/model",
        "objective": "hinge", "test_split": "dev", "budget": 5000, "optimizer": "guided", "subspace": "full",
        "tune": "ipl",
        "mode": "joint", "selection": "sample", "engine": "sequential", "first_order_layers": "last", "bound": 2.0,
        "extend": 6000, "population": 6, "rho": 0.75, "halves": False, "stop_at": "loss=0.5",
    }  # fmt: skip
    if method == "tangent":
        special |= {"dev_every": "", "patience": "", "reward": ""}  # are refused there
    for name, hint in hints(kind).items():
        if not fields(kind)[name].metadata.get("group") or special.get(name) == "":
            continue
        kinds = [each for each in ANY_VALUE if str(each.__name__) in str(hint)]
        values[name] = special.get(name, ANY_VALUE[kinds[0]] if kinds else "word")
    assert len(values) > 20
    assert [name for name, value in values.items() if value == fields(kind)[name].default] == []
    own = {name: 0.25 for name in ("best_share",) if name not in values and "optimizer_options" in fields(kind)}
    expected = tune_settings(method=method, **values, **own)
    assert {name: getattr(expected, name) for name in values} == values

    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"method": method, **values, **own}), encoding="utf-8")
    assert tune_settings(**read_yaml(file)) == expected
    assert tune_settings(method=method, **{n: as_written(value) for n, value in {**values, **own}.items()}) == expected
    assert tune_settings(**yaml.safe_load(yaml.safe_dump(saved(expected)))) == expected

    asked: list[dict[str, Any]] = []

    def tune(**given: Any) -> None:
        asked.append({name: value for name, value in given.items() if name not in ("resume", "listener")})
        raise UserError("task: enough")

    monkeypatch.setattr("dfolora.api.tune", tune)
    command = Command(capsys)
    flags = ["--method", method]
    for name, value in {**values, **own}.items():
        off = flag(name).replace("--", "--no-", 1)
        flags += [flag(name)] if value is True else [off] if value is False else [flag(name), as_written(value)]
    assert command("tune", *flags) == 2
    assert command("tune", "--config", file) == 2
    assert command("tune", "--config", file, "--seed", 99) == 2
    found = [tune_settings(**given) for given in asked]
    assert found == [expected, expected, dataclasses.replace(expected, seed=99)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_what_was_not_given(preset: str) -> None:
    made = tune_settings(preset=preset)
    found = saved(made)
    assert {name: found[name] for name in PRESETS[preset]} == PRESETS[preset]
    assert made != type(made)()
    changed = tune_settings(preset=preset, sigma=0.25, objective="hinge")
    assert (saved(changed)["sigma"], changed.objective) == (0.25, "hinge")
    assert changed.budget == made.budget
    assert tune_settings(**found) == made  # a saved run does not need to know of presets


def test_a_preset_is_for_its_method() -> None:
    assert isinstance(tune_settings(preset="mezo"), FullParameterSettings)
    assert isinstance(tune_settings(preset="mezo-lora"), SearchSettings)
    with pytest.raises(UserError, match="^preset: mezo is for the method full-parameter, not for first-order"):
        tune_settings(preset="mezo", method="first-order")


# -- what they say of themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_every_field_says_what_it_is(kind: type[Options]) -> None:
    for field in dataclasses.fields(kind):
        assert len(field.metadata["help"]) > 8, field.name
        assert "\n" not in field.metadata["help"]


def test_a_run_is_named_after_what_searches() -> None:
    names = [tune_settings(method=method).search for method in METHODS]
    assert names == ["cma", "gauss-newton", "adamw", "adamw+spsa", "full-spsa"]
    assert {kind.method for kind in METHODS.values()} == set(METHODS)
    assert all(issubclass(kind, TuneSettings) for kind in METHODS.values())


def test_the_split_follows_the_seed_until_it_has_its_own() -> None:
    assert search(seed=21).data_seed == 21
    assert search(seed=21, split_seed=0).data_seed == 0


def test_how_far_a_run_goes() -> None:
    assert search(budget=40).evaluations == 40
    assert search(budget=40, extend=60).evaluations == 60
    with pytest.raises(UserError, match="^objective: metric has no gradient"):
        FirstOrderSettings(objective="metric")
    guided = tune_settings(method="full-parameter", optimizer="guided", population=4)
    assert isinstance(guided, FullParameterSettings)
    assert (guided.size, FullParameterSettings(population=5).size) == (6, 4)


def test_other_commands_refuse_what_they_do_not_take() -> None:
    assert settings(EvaluateSettings, split="dev", **{"max-length": "64"}).max_length == 64
    with pytest.raises(UserError, match="unknown 'optimizer'"):
        settings(EvaluateSettings, optimizer="cma")
    with pytest.raises(UserError, match="^task: 'a' and a file of your own exclude each other"):
        settings(EvaluateSettings, task="a", test_file="b.csv")


def test_options_of_ones_own() -> None:
    """A method in another file declares its options as these do."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(Options):
        steps: int = option(3, "how many", least=1, most=9)
        rule: str = option("up", "which way", choices=("up", "down"))

    assert Mine(steps="4", rule="down").steps == 4  # type: ignore[arg-type]
    for values, said in (({"steps": 10}, "the most is 9"), ({"rule": "dwon"}, "did you mean 'down'")):
        with pytest.raises(UserError, match=said):
            Mine(**values)  # type: ignore[arg-type]
