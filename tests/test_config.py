"""One dataclass = keyword arguments = YAML = flags; and what setup.cfg says about the package."""

from __future__ import annotations

import configparser
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dfolora.errors import UserError
from dfolora.settings.config import EvaluateConfig, TuneConfig
from dfolora.settings.options import build, flag, read_yaml
from dfolora.settings.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = [f.name for f in dataclasses.fields(TuneConfig) if type(f.default) in (int, float)]


def test_build_takes_what_each_field_holds() -> None:
    config = build(TuneConfig, {"budget": "1e3", "sigma": "0.5", "dev-every": 40, "model": "m", "target": ["q", "k"]})
    assert (config.budget, config.sigma, config.dev_every, config.target) == (1000, 0.5, 40, "q,k")
    assert type(config.budget) is int
    assert build(TuneConfig, {"label_words": {0: "bad", 1: "great"}}).label_words == "0=bad,1=great"
    assert build(TuneConfig, {"trust_remote_code": True}).trust_remote_code is True
    assert build(TuneConfig, {}) == TuneConfig()


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_refuse_words_and_halves(name: str) -> None:
    for value in ("many", None, True, [1, 2], {"a": 1}):
        with pytest.raises(UserError, match=flag(name)):
            build(TuneConfig, {name: value})
    if isinstance(getattr(TuneConfig, name), int):
        for value in ("2.5", "inf", "nan"):
            with pytest.raises(UserError, match=flag(name)):
                build(TuneConfig, {name: value})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"budget": 0}, "--budget: 0"),
        ({"budget": 19}, "--budget: 19 .* --population 20"),
        ({"population": 0}, "--population: 0"),
        ({"rank": 0}, "--rank: 0"),
        ({"visit": 0}, "--visit: 0"),
        ({"subspace_dim": 0}, "--subspace-dim: 0"),
        ({"shots": 0}, "--shots: 0"),
        ({"seed": -1}, "--seed: -1"),
        ({"seed": 2**32}, "--seed: 4294967296"),
        ({"split_seed": 2**32}, "--split-seed: 4294967296"),
        ({"dev_every": -1}, "--dev-every: -1"),
        ({"bound": -0.5}, "--bound: -0.5"),
        ({"sigma": 0}, "--sigma: 0"),
        ({"sigma": "nan"}, "--sigma: nan"),
        ({"scale": -1}, "--scale: -1"),
        ({"scale": "inf"}, "--scale: inf"),
        ({"mode": "jiont"}, "--mode: unknown 'jiont'.*'joint'"),
        ({"selection": "best"}, "--selection: unknown 'best'"),
        ({"test_split": "tset"}, "--test-split: unknown 'tset'.*'test'"),
        ({"incumbent": "beast"}, "--incumbent: unknown 'beast'.*'best'"),
        ({"incumbent": "best", "optimizer": "random"}, "--incumbent: best"),
        ({"lr": 0.1}, "--lr: cma does not take it; it is for es, fzoo, greedy, guided, spsa, subzero"),
        ({"lr": -0.1, "optimizer": "spsa"}, "--lr: -0.1"),
        ({"best_share": 0.25, "optimizer": "greedy"}, "--best-share: greedy does not take it; it is for guided"),
        ({"weights": "ranks", "optimizer": "spsa"}, "--weights: spsa does not take it; it is for es"),
        ({"noise": "gaussian", "optimizer": "subzero"}, "--noise: subzero does not take it"),
        ({"paper_scale": True, "optimizer": "random"}, "--paper-scale: random does not take it"),
        ({"update": "sgd", "optimizer": "nevergrad:PSO"}, "--update: nevergrad:PSO does not take it"),
        ({"update": "sgd", "optimizer": "spas"}, "optimizer: unknown 'spas'.*'spsa'"),
        ({"preset": ["mezo"]}, "--preset: unknown .*'mezo'"),
        ({"preset": "dfo-loar"}, "--preset: unknown 'dfo-loar'.*'dfo-lora'"),
        ({"budgt": 100}, "unknown 'budgt'.*'budget'"),
        ({"trust_remote_code": "perhaps"}, "--trust-remote-code: 'perhaps' is not true or false"),
    ],
)
def test_values_that_cannot_work(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        build(TuneConfig, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_what_was_not_given(preset: str) -> None:
    config = build(TuneConfig, {"preset": preset})
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]
    assert config != TuneConfig()
    changed = build(TuneConfig, {"preset": preset, "sigma": 0.25, "objective": "hinge"})
    assert (changed.sigma, changed.objective) == (0.25, "hinge")
    assert changed.budget == config.budget


def test_an_optimizer_is_told_the_options_that_were_given() -> None:
    assert build(TuneConfig, {"optimizer": "spsa"}).optimizer_options == {}
    config = build(TuneConfig, {"optimizer": "guided", "lr": "1e-3", "best_share": 0.25, "paper_scale": True})
    assert config.optimizer_options == {"lr": 1e-3, "best_share": 0.25, "paper_scale": True}
    assert build(TuneConfig, {"incumbent": "best"}).optimizer_options == {"incumbent": "best"}


def test_every_field_says_what_it_is() -> None:
    for kind in (TuneConfig, EvaluateConfig):
        for field in dataclasses.fields(kind):
            assert len(field.metadata["help"]) > 8, field.name


def test_the_split_follows_the_seed_until_it_has_its_own() -> None:
    assert build(TuneConfig, {"seed": 21}).data_seed == 21
    assert build(TuneConfig, {"seed": 21, "split_seed": 0}).data_seed == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [("budget: [1", "not YAML"), ("- budget", "name: value"), ("7: 8", "name: value"), ("\x00", "not YAML")],
)
def test_yaml_that_is_no_config(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=named) as caught:
        read_yaml(str(file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_yaml_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing\n", encoding="utf-8")
    assert read_yaml(str(tmp_path / "run.yaml")) == {}
    with pytest.raises(UserError, match="cannot read"):
        read_yaml(str(tmp_path / "other.yaml"))


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_folder_with_code_is_packaged() -> None:
    options = _setup_cfg()["options"]
    folders = dict(line.replace(" ", "").split("=") for line in options["package_dir"].split("\n") if line)
    listed = {folders.get(name, name.replace(".", "/")) for name in options["packages"].split()}
    found = {
        file.parent.relative_to(ROOT).as_posix()
        for top in ("dfolora", "tasks")
        for file in (ROOT / top).rglob("*.py")
        if "demo_model" not in file.parts
    }
    assert found == listed


def test_files_that_are_no_code_are_packaged_too() -> None:
    data = _setup_cfg()["options.package_data"]
    assert "demo_model/*" in data["dfolora.tasks"].split()
    assert "py.typed" in data["dfolora"].split()
    assert (ROOT / "dfolora" / "py.typed").is_file()
    others = {
        file.relative_to(ROOT).parts[:2]
        for top in ("dfolora", "tasks")
        for file in (ROOT / top).rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts and "." not in file.name[:1]
    }
    assert others <= {("dfolora", "py.typed"), ("tasks", "demo_model")}
