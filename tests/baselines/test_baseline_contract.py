"""What holds for every baseline: it is fitted and scored as a run is, and never sees what it is scored on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import yaml
from test_superglue_end_to_end import copa
from tiny_models import Command, csv_files, given, model
from tiny_questions import model as reader
from tiny_questions import squad_folder

import dfolora
from dfolora import UserError
from dfolora.baselines import REGISTRY, make_baseline, options_of
from dfolora.baselines.base import Baseline
from dfolora.baselines.few_shot import FewShot
from dfolora.baselines.zero_shot import ZeroShot
from dfolora.models.load import LanguageModel
from dfolora.scoring import Predictions
from dfolora.task import KINDS, Example

NAMES = [name for name in REGISTRY.builtin() if name != "setfit" or find_spec("setfit")]
CASES = [(name, kind) for name in NAMES for kind in REGISTRY.get(name).kinds]
FILES = ["config.yaml", "environment.json", "predictions.jsonl", "scores.json"]


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Flags that name the small files."""
    return csv_files(tmp_path)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    """A folder with COPA, whose examples bring their own choices."""
    home = tmp_path / "data" / "COPA"
    home.mkdir(parents=True)
    for split in ("train", "dev32", "val"):
        (home / f"{split}.jsonl").write_text("".join(json.dumps(copa(i)) + "\n" for i in range(6)), encoding="utf-8")
    return str(tmp_path / "data")


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def with_other_labels(file: str) -> None:
    """Swap the two labels of a table."""
    rows = list(csv.reader(Path(file).read_text(encoding="utf-8").splitlines()))
    swapped = [f'"{text}",{1 - int(label)}\n' for text, label in rows[1:]]
    Path(file).write_text("text,label\n" + "".join(swapped), encoding="utf-8")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_folder_of_scores_and_predictions(
    name: str, kind: str, command: Command, data: list[str], tmp_path: Path
) -> None:
    flags = [name, "--model", model(kind), *data, "--seed", 21]
    scores = command.json("baseline", *flags, "--output", tmp_path / "a")
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == FILES
    assert json.loads((tmp_path / "a" / "scores.json").read_text("utf-8")) == scores
    assert (scores["method"], scores["optimizer"], scores["seed"], scores["evaluations"]) == ("baseline", name, 21, 0)
    assert scores["examples"] == {"train": 6, "dev": 6, "test": 12}
    found = lines(tmp_path / "a")
    right = 100 * sum(line["correct"] for line in found) / 12
    assert scores["tuned"]["accuracy"] == pytest.approx(right)
    for metrics in (scores["tuned"], scores["dev_tuned"], scores["zero_shot"], scores["dev_zero_shot"]):
        assert all(0 <= value <= 100 for value in metrics.values())
    plain = dfolora.evaluate(model(kind), **given(data))["metrics"]
    assert scores["zero_shot"] == ({} if name == "majority" else plain)
    assert (scores["token_layers"] > 0) == (name in ("calibrated", "logistic-regression"))
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text("utf-8"))
    assert (config["baseline"], config["seed"], config["model"]) == (name, 21, model(kind))
    again = dfolora.baseline(name, model(kind), output=str(tmp_path / "b"), seed=21, **given(data))
    assert lines(tmp_path / "b") == found  # the same seed, from Python
    mere = ("seconds", "run")
    assert {k: v for k, v in again.items() if k not in mere} == {k: v for k, v in scores.items() if k not in mere}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_labels_of_the_test_set_change_nothing_but_the_score(
    name: str, kind: str, data: list[str], tmp_path: Path
) -> None:
    options = given(data)
    before = dfolora.baseline(name, model(kind), output=str(tmp_path / "a"), **options)
    with_other_labels(options["test_file"])
    after = dfolora.baseline(name, model(kind), output=str(tmp_path / "b"), **options)
    for one, other in zip(lines(tmp_path / "a"), lines(tmp_path / "b"), strict=True):
        assert (one["prediction"], one["scores"]) == (other["prediction"], other["scores"])
        assert one["correct"] != other["correct"]
    assert after["tuned"]["accuracy"] == pytest.approx(100 - before["tuned"]["accuracy"])
    assert (after["details"], after["dev_tuned"]) == (before["details"], before["dev_tuned"])


@pytest.mark.parametrize("name", ["majority", "calibrated", "in-context"])
def test_only_what_chooses_looks_at_the_labels_of_the_dev_set(name: str, data: list[str], tmp_path: Path) -> None:
    options = given(data)
    dfolora.baseline(name, model("causal"), output=str(tmp_path / "a"), **options)
    with_other_labels(options["dev_file"])
    dfolora.baseline(name, model("causal"), output=str(tmp_path / "b"), **options)
    assert [line["scores"] for line in lines(tmp_path / "a")] == [line["scores"] for line in lines(tmp_path / "b")]


@pytest.mark.parametrize("kind", KINDS)
def test_zero_shot_is_what_evaluate_gives(kind: str, data: list[str], tmp_path: Path) -> None:
    scores = dfolora.baseline("zero-shot", model(kind), output=str(tmp_path / "a"), **given(data))
    file = tmp_path / "evaluated.jsonl"
    found = dfolora.evaluate(model(kind), predictions=str(file), **given(data))
    assert scores["tuned"] == scores["zero_shot"] == found["metrics"]
    assert (tmp_path / "a" / "predictions.jsonl").read_bytes() == file.read_bytes()


# -- names, classes, instances --------------------------------------------------------------------------------------


class LastWord(Baseline):
    """The class that a text's last word had most often."""

    classes_only = True
    seen: Sequence[Example] = ()

    def __init__(self, *, otherwise: Annotated[int, "class of a word that was not there"] = 0) -> None:
        self.otherwise = otherwise

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        self.by_word = {example.fields["text"].split()[-1]: example.label for example in few_shot.train}
        return {"words": len(self.by_word)}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        LastWord.seen = examples
        words = [example.fields["text"].split()[-1] for example in examples]
        classes = [self.by_word.get(word, self.otherwise) for word in words]
        return Predictions(classes, list(torch.eye(2)[torch.tensor(classes)]))


def test_one_of_ones_own_by_name_class_and_instance(command: Command, data: list[str], tmp_path: Path) -> None:
    dfolora.register("baseline", "last-word", LastWord)
    flags = ["--model", model("masked"), *data, "--otherwise", 1]
    by_name = command.json("baseline", "last-word", *flags, "--output", tmp_path / "a")
    assert {example.label for example in LastWord.seen} == {0}  # labels are hidden
    assert (by_name["optimizer"], by_name["details"]) == ("last-word", {"words": 3})
    options = given(data)
    by_class = dfolora.baseline(LastWord, model("masked"), output=str(tmp_path / "b"), otherwise=1, **options)
    instance = dfolora.baseline(LastWord(otherwise=1), model("masked"), output=str(tmp_path / "c"), **options)
    assert by_class["tuned"] == instance["tuned"] == by_name["tuned"]
    assert by_class["optimizer"].endswith("LastWord")
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text("utf-8"))
    assert config["otherwise"] == 1
    other = dfolora.baseline(LastWord, model("masked"), output=str(tmp_path / "d"), **options)
    assert lines(tmp_path / "d") != lines(tmp_path / "a")
    assert other["details"] == by_class["details"]
    assert command.json("baselines")["last-word"] == "The class that a text's last word had most often."
    again = command.json(
        "baseline", "last-word", "--config", tmp_path / "a" / "config.yaml", "--output", tmp_path / "e"
    )
    assert again["tuned"] == by_name["tuned"]


def test_their_options_are_flags(command: Command) -> None:
    with pytest.raises(SystemExit):
        command("baseline", "calibrated", "--help")
    out = command.capsys.readouterr().out
    assert "--by {threshold,contextual}" in out
    assert "--ridge X" in out
    assert options_of("in-context")["demonstrations"].type is int
    assert options_of(LastWord()) == {}


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["major"], "baseline: unknown 'major'; did you mean 'majority'?"),
        (["calibrated", "--by", "luck"], "--by: unknown 'luck'; choose one of contextual, threshold"),
        (["calibrated", "--ridge", "0"], "--ridge: 0.0 cannot work; give a number above 0"),
        (["calibrated", "--ridge", "a"], "--ridge: 'a' is not a number"),
        (["majority", "--by", "threshold"], "flag: unknown '--by'"),
        (["in-context", "--demonstrations", "0"], "--demonstrations: 0 cannot work; the least is 1"),
        (
            ["in-context", "--demonstrations", "7"],
            "--demonstrations: 7 is more than the 6 training examples; it may be 1 to 6",
        ),
        (["in-context", "--kind", "encoder"], "baseline: in-context is not for a sentence encoder"),
        (["setfit"], "baseline: SetFit is not for a causal model, only for encoder"),
        (["zero-shot", "--seed", "-1"], "--seed: -1 cannot work; the least is 0"),
        (["zero-shot", "--test-split", "val"], "--test-split: unknown 'val'"),
        (["zero-shot", "--budget", "20"], "flag: unknown '--budget'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    flags: list[str], line: str, command: Command, data: list[str], tmp_path: Path
) -> None:
    name, *more = flags
    assert command("baseline", name, "--model", model("causal"), *data, *more, "--output", tmp_path / "out" / "a") == 2
    assert len(command.said) == 1
    assert line in command.said[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(command: Command, data: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x", encoding="utf-8")
    assert command("baseline", "majority", "--model", model("causal"), *data, "--output", tmp_path / "out") == 2
    assert "--output: " in command.said[-1]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_demonstrations_that_do_not_fit(command: Command, data: list[str], tmp_path: Path) -> None:
    """The model has 264 positions; a text of 250 words leaves no room."""
    file = Path(given(data)["test_file"])
    file.write_text('text,label\n"' + "good " * 260 + '",1\n"bad film",0\n', encoding="utf-8")
    flags = ["--model", model("causal"), *data, "--output", tmp_path / "out" / "a"]
    assert command("baseline", "in-context", *flags) == 2
    assert "--demonstrations: none fits beside the prompt of " in command.said[-1]
    assert command.said[-1].endswith("cut the texts by a max_length of less than 132")
    assert list((tmp_path / "out").iterdir()) == []
    assert command("baseline", "in-context", *flags, "--max-length", 100) == 0


@pytest.mark.parametrize("name", ["majority", "calibrated", "logistic-regression"])
def test_choices_and_generated_answers(name: str, command: Command, tmp_path: Path, questions: str) -> None:
    flags = ["--model", model("causal"), "--data", questions, "--task", "superglue/copa"]
    assert command("baseline", name, *flags) == 2
    assert "each one of 'superglue/copa' brings its own choices; use zero-shot or in-context" in command.said[-1]
    flags = ["--model", reader("llama"), "--data", squad_folder(tmp_path / "questions"), "--task", "squad"]
    assert command("baseline", name, *flags) == 2
    assert "the answers of 'squad' are generated; use zero-shot or in-context" in command.said[-1]


@pytest.mark.parametrize("name", ["zero-shot", "in-context"])
@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq"])
def test_choices_are_asked(name: str, kind: str, tmp_path: Path, questions: str) -> None:
    out = str(tmp_path / "a")
    scores = dfolora.baseline(name, model(kind), "superglue/copa", data=questions, output=out)
    assert 0 <= scores["tuned"]["accuracy"] <= 100
    assert len(lines(tmp_path / "a")) == 6


@pytest.mark.parametrize("name", ["zero-shot", "in-context"])
def test_answers_are_generated(name: str, tmp_path: Path) -> None:
    out, data = str(tmp_path / "a"), str(squad_folder(tmp_path / "questions"))
    scores = dfolora.baseline(name, reader("llama"), "squad", data=data, output=out, new_tokens=3)
    assert list(scores["tuned"]) == ["f1", "em"]
    assert all({"index", "prediction", "gold"} <= set(line) and line["gold"] for line in lines(tmp_path / "a"))


def test_a_baseline_has_no_adapter(command: Command, data: list[str], tmp_path: Path) -> None:
    command.json("baseline", "majority", "--model", model("causal"), *data, "--output", tmp_path / "a")
    assert command("evaluate", tmp_path / "a") == 2
    assert "holds a baseline, which has none" in command.said[-1]
    assert command("tune", "--resume", tmp_path / "a") == 2
    assert len(command.said) == 1


def test_majority_needs_no_weights(data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: LanguageModel) -> LanguageModel:
        raise AssertionError("weights are read")

    monkeypatch.setattr(LanguageModel, "read_weights", read)
    scores = dfolora.baseline("majority", model("causal"), output=str(tmp_path / "a"), **given(data))
    assert (scores["tuned"]["accuracy"], scores["zero_shot"], scores["token_layers"]) == (50.0, {}, 0)
    with pytest.raises(AssertionError, match="weights are read"):
        dfolora.baseline("zero-shot", model("causal"), output=str(tmp_path / "b"), **given(data))
    assert not list(tmp_path.glob("b*"))


def test_ctrl_c_leaves_nothing(
    command: Command, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: ZeroShot, examples: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ZeroShot, "predict", interrupted)
    flags = ["--model", model("causal"), *data, "--output", tmp_path / "out" / "a"]
    assert command("baseline", "zero-shot", *flags) == 130
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_no_baseline() -> None:
    for thing in (3, dict, dfolora.Optimizer):
        with pytest.raises(UserError, match="^baseline: .* is none; give a name such as 'majority'"):
            dfolora.baseline(thing)
    with pytest.raises(UserError, match="^otherwise: LastWord has no such option; it takes none"):
        make_baseline(LastWord(), {"otherwise": 1})


def test_setfit_says_what_it_needs(
    command: Command, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "setfit" else find_spec(name))
    assert command("baseline", "setfit", "--model", model("encoder"), *data, "--output", tmp_path / "a") == 2
    assert command.said == ["dfolora: baseline: setfit needs the package of that name; pip install 'dfolora[setfit]'"]


def test_a_setfit_that_does_not_go_with_transformers_is_one_line(
    command: Command, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "setfit-1.0.dist-info").mkdir(parents=True)
    (site / "setfit-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: setfit\nVersion: 1.0\n")
    (site / "setfit.py").write_text("from transformers.training_args import default_logdirs\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(__import__("sys").modules, "setfit", raising=False)
    assert command("baseline", "setfit", "--model", model("encoder"), *data, "--output", tmp_path / "a") == 2
    assert "baseline: setfit 1.0 and transformers 5" in command.said[-1]
    assert "do not go together (cannot import name 'default_logdirs'" in command.said[-1]
    assert len(command.said) == 1


@pytest.mark.skipif(not find_spec("setfit"), reason="setfit is not installed")
def test_a_pickle_beside_the_model_is_not_read(data: list[str], tmp_path: Path) -> None:
    """What setfit itself would load as the model's own head runs code when it is loaded."""
    folder = tmp_path / "model"
    shutil.copytree(model("encoder"), folder)
    mark = tmp_path / "ran"
    (folder / "model_head.pkl").write_bytes(f"cbuiltins\nopen\n(V{mark}\nVw\ntR.".encode())
    dfolora.baseline("setfit", str(folder), **given(data), output=str(tmp_path / "out"))
    assert not mark.exists()
