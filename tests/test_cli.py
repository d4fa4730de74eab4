"""The command as a person or a script uses it, on tiny random models and files of their own."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_models import SMALL, Command, csv_files, log, model, rows

from dfolora.optimizers import optimizer_names
from dfolora.settings.methods import HybridSettings, TangentSettings
from dfolora.settings.model import EvaluateSettings
from dfolora.settings.options import flag
from dfolora.settings.search import SearchSettings
from dfolora.tasks import task_names

KEYS = {
    "model", "task", "optimizer", "subspace", "seed", "evaluations", "token_layers", "seconds", "zero_shot", "tuned",
    "dev_zero_shot", "dev_tuned", "run", "adapter",
}  # fmt: skip
RUN_FILES = {
    "config.yaml",
    "environment.json",
    "log.jsonl",
    "measured.safetensors",
    "adapter",
    "scores.json",
    "predictions.jsonl",
    "zero_shot_predictions.jsonl",
    "lock",
}
ADAPTER_FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
    "dfolora.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.mark.parametrize("kind", ["masked", "causal", "encoder"])
def test_tune_then_evaluate(command: Command, tmp_path: Path, kind: str) -> None:
    files, output = csv_files(tmp_path), tmp_path / "run"
    scores = command.json("tune", "--model", model(kind), *files, *SMALL, "--output", output)

    assert set(scores) >= KEYS
    assert (scores["model"], scores["optimizer"], scores["subspace"]) == (model(kind), "cma", "pca")
    assert (scores["seed"], scores["evaluations"], scores["run"]) == (13, 24, str(output))
    assert scores["token_layers"] > 0
    assert scores["seconds"] > 0
    for name in ("zero_shot", "tuned", "dev_zero_shot", "dev_tuned"):
        assert list(scores[name]) == ["accuracy", "macro_f1"]
    assert scores["dev_tuned"]["accuracy"] >= scores["dev_zero_shot"]["accuracy"]

    assert {path.name for path in output.iterdir()} == RUN_FILES
    assert {path.name for path in Path(scores["adapter"]).iterdir()} == ADAPTER_FILES
    assert json.loads((output / "scores.json").read_text(encoding="utf-8")) == scores
    assert str(output) in command.err
    assert "file:train" in command.err

    evaluate = ["evaluate", "--model", model(kind), *files]
    assert command.json(*evaluate, "--adapter", scores["adapter"])["metrics"] == scores["tuned"]
    assert command.json(*evaluate)["metrics"] == scores["zero_shot"]
    on_dev = command.json("evaluate", *files, "--adapter", scores["adapter"], "--split", "dev")
    assert on_dev["metrics"] == scores["dev_tuned"]  # and the adapter itself says which model it is for
    assert (on_dev["split"], on_dev["examples"], on_dev["model"]) == ("dev", 6, model(kind))


def test_tables_for_people(command: Command, tmp_path: Path) -> None:
    files = csv_files(tmp_path)
    assert command("tune", "--model", model("masked"), *files, *SMALL, "--output", tmp_path / "run") == 0
    lines = [line for line in command.out.splitlines() if "accuracy" in line]
    assert [line.split()[:2] for line in lines] == [["dev", "6"], ["test", "12"]]
    assert f"adapter: {tmp_path / 'run' / 'adapter'}" in command.out
    assert "file:train" in command.out
    assert "24/24" in command.err
    assert command("evaluate", "--model", model("masked"), *files) == 0
    assert command.out.startswith("file:train, test: 12 examples\n  accuracy")
    assert command.err == f"loading {model('masked')}\n"


def test_yaml_and_flags_are_the_same_run(command: Command, tmp_path: Path) -> None:
    files = csv_files(tmp_path)
    pairs = dict(zip(files[::2], files[1::2], strict=True))
    written = {name.removeprefix("--"): value for name, value in pairs.items() if name != "--label-words"}
    written |= {"label-words": {0: "bad", 1: "great"}, "model": model("masked"), "budget": 24, "population": 4}
    written |= {"rank": 2, "sigma": 0.5, "subspace-dim": 7, "output": str(tmp_path / "a")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    first = command.json("tune", "--config", tmp_path / "run.yaml", "--subspace-dim", 20)
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text(encoding="utf-8"))
    assert config["subspace_dim"] == 20  # the flag wins
    unset = {name for name in config if config[name] is None}
    assert not unset
    assert {"method", "optimizer", "population", "template"} < set(config)

    flags = command.json("tune", "--model", model("masked"), *files, *SMALL, "--output", tmp_path / "b")
    again = command.json("tune", "--config", tmp_path / "a" / "config.yaml", "--output", tmp_path / "c")
    tuned = command.json("tune", "--config", tmp_path / "a" / "config.yaml", "--output", tmp_path / "d", "--seed", 1)
    assert log(tuned["run"]) != log(again["run"])
    assert log(first["run"]) == log(flags["run"]) == log(again["run"])
    assert first["tuned"] == flags["tuned"] == again["tuned"]
    # the same file serves evaluate, which leaves aside what is about tuning alone
    scored = command.json("evaluate", "--config", tmp_path / "a" / "config.yaml", "--adapter", first["adapter"])
    assert scored["metrics"] == first["tuned"]


def test_the_seed_decides(command: Command, tmp_path: Path) -> None:
    files = csv_files(tmp_path)
    logs = []
    for number, seed in enumerate((13, 13, 14)):
        output = tmp_path / str(number)
        command.json("tune", "--model", model("causal"), *files, *SMALL, "--seed", seed, "--output", output)
        logs.append(log(output))
    assert logs[0] == logs[1]
    losses = [[line["losses"] for line in lines[1:]] for lines in logs]
    assert all(one != other for one, other in zip(losses[0], losses[2], strict=True))


def test_csv_tsv_and_jsonl_alike(command: Command, tmp_path: Path) -> None:
    """Two text columns, none of them called text, and labels that are words."""
    table = [(text, "music, film", "yes" if label == "1" else "no") for text, label in rows()]
    names = ("what", "more", "verdict")
    (tmp_path / "a.csv").write_text(
        "\n".join([",".join(names), *('"{}","{}",{}'.format(*row) for row in table)]) + "\n", encoding="utf-8"
    )
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(row) for row in (names, *table)) + "\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in table), encoding="utf-8"
    )
    logs = []
    for suffix in ("csv", "tsv", "jsonl"):
        output = tmp_path / suffix
        scores = command.json(
            "tune", "--model", model("masked"), "--train-file", tmp_path / f"a.{suffix}", "--text-columns", "what,more",
            "--label-column", "verdict", "--template", "{what} and {more}. It was {mask}.", "--shots", 2,
            "--label-words", "no=bad,yes=great", "--test-split", "none", *SMALL, "--output", output,
        )  # fmt: skip
        assert scores["examples"] == {"train": 4, "dev": 4, "none": 0}
        assert scores["tuned"] == scores["zero_shot"] == {}
        logs.append(log(output))
    assert logs[0] == logs[1] == logs[2]


def test_a_test_file_alone_can_be_evaluated(command: Command, tmp_path: Path) -> None:
    files = csv_files(tmp_path)
    whole = command.json("evaluate", "--model", model("masked"), *files)
    files = files[:4] + files[-2:]
    assert "--train-file" not in files
    alone = command.json("evaluate", "--model", model("masked"), *files)
    assert alone["metrics"] == whole["metrics"]


def test_listings(command: Command) -> None:
    assert set(command.json("tasks")) == set(task_names())
    assert set(command.json("optimizers")) == {*optimizer_names(), "nevergrad:<Name>"}
    for name in ("tasks", "optimizers"):
        listed = command.json(name)
        assert command(name) == 0
        assert [line.split(maxsplit=1) for line in command.out.splitlines()] == [[*pair] for pair in listed.items()]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["tune"], TangentSettings),
        (["tune", "--population", 8], SearchSettings),
        (["tune", "--task", "squad"], SearchSettings),
        (["tune", "--method", "hybrid"], HybridSettings),
        (["evaluate"], EvaluateSettings),
    ],
)
def test_help_names_every_flag(command: Command, words: list[object], kind: type) -> None:
    with pytest.raises(SystemExit) as done:
        command(*words, "--help")
    assert done.value.code == 0
    text = command.capsys.readouterr().out
    for field in dataclasses.fields(kind):
        named = re.search(rf"^  {flag(field.name)}\b(?!-)", text, re.MULTILINE) is not None
        assert named == bool(field.metadata.get("group")), field.name
    assert "  --json" in text
    assert "  --config FILE" in text
    assert ("  --resume RUN" in text) == (words[0] == "tune")


def test_without_a_command_it_says_how(command: Command) -> None:
    assert command() == 0
    for name in ("tune", "evaluate", "tasks", "optimizers"):
        assert f"\n    {name}" in command.out


def test_as_a_program(tmp_path: Path) -> None:
    """``python -m dfolora``, in a process of its own, from another folder."""
    start = [sys.executable, "-m", "dfolora"]
    done = subprocess.run([*start, "tasks", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "superglue/cb" in json.loads(done.stdout)
    bad = subprocess.run([*start, "tune", "--task", "superglue/bc"], capture_output=True, text=True, cwd=tmp_path)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_name_get_new_folders(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = csv_files(tmp_path)
    for name in ("train-cma-seed13", "train-cma-seed13-2"):
        scores = command.json("tune", "--model", model("masked"), *files, *SMALL)
        assert Path(scores["run"]) == Path("runs") / name
        assert (tmp_path / scores["adapter"] / "adapter_model.safetensors").is_file()
