"""Bad input: exit code 2, one line on standard error that names the flag and the value, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
from tiny_models import SMALL, Command, csv_files, model, rows


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "no cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def refused(command: Command, *arguments: object) -> str:
    """The one line that a call is refused with."""
    before = set(Path("..").rglob("*"))
    assert command(*arguments) == 2, command.out + command.err
    assert command.out == ""
    assert command.err.endswith("\n")
    (line,) = command.said
    assert line.startswith("dfolora: ")
    assert "Traceback" not in command.err
    assert set(Path("..").rglob("*")) == before
    return line


def says(line: str, *parts: str) -> None:
    """Whether each part is there; an option's name may be as Python has it, since the same line meets both."""
    for part in parts:
        name = part.lstrip("-").replace("-", "_") if part.startswith("--") else part
        assert part in line or name in line


# One changed flag of a tune that would work, and what the line has to say. FILES stands for the folder of the files.
ONE_FLAG = [
    ("--model", "/no/such/folder", ["--model", "/no/such/folder"]),
    ("--model", "nobody/no-such-model", ["--model", "nobody/no-such-model"]),
    ("--model", "", ["--model"]),
    ("--kind", "maskd", ["--kind", "maskd", "'masked'"]),
    ("--kind", "seq2seq", ["--model", "seq2seq"]),
    ("--dtype", "float46", ["--dtype", "float46", "'float16'"]),
    ("--device", "gpu", ["--device", "gpu"]),
    ("--optimizer", "cmaa", ["optimizer", "cmaa", "'cma'"]),
    ("--optimizer", "nevergrad:PSOO", ["optimizer", "nevergrad:PSOO", "'nevergrad:PSO'"]),
    ("--subspace", "frozen_a", ["subspace", "frozen_a", "'frozen-a'"]),
    ("--objective", "cross_entropy", ["--objective", "cross_entropy", "'cross-entropy'"]),
    ("--preset", "dfolora", ["--preset", "dfolora", "'dfo-lora'"]),
    ("--mode", "joined", ["--mode", "joined", "'joint'"]),
    ("--test-split", "val", ["--test-split", "val"]),
    ("--budgt", "8", ["--budgt", "'--budget'"]),
    ("--budget", "lots", ["--budget", "lots"]),
    ("--budget", "2.5", ["--budget", "2.5"]),
    ("--budget", "3", ["--budget", "3", "one step of 4 evaluations"]),
    ("--seed", "-1", ["--seed", "-1"]),
    ("--seed", "99999999999", ["--seed", "99999999999"]),
    ("--sigma", "0", ["--sigma", "0"]),
    ("--sigma", "small", ["--sigma", "small"]),
    ("--bound", "0.1", ["sigma", "bound", "0.1"]),
    ("--population", "2", ["population", "2"]),
    ("--population", "0", ["--population", "0"]),
    ("--rank", "0", ["--rank", "0"]),
    ("--rank", "33", ["--rank", "33", "32"]),
    ("--subspace-dim", "1", ["--subspace-dim", "1"]),
    ("--target", "querry", ["--target", "querry", "'query'"]),
    ("--max-length", "9999", ["--max-length", "9999"]),
    ("--max-length", "3", ["--max-length", "3"]),
    ("--train-file", "FILES/trian.csv", ["--train-file", "trian.csv"]),
    ("--dev-file", "FILES/dve.csv", ["--dev-file", "dve.csv"]),
    ("--test-file", "FILES/tset.csv", ["--test-file", "tset.csv"]),
    ("--task", "superglue/cb", ["--task", "superglue/cb"]),
    ("--text-columns", "txt", ["--text-columns", "txt"]),
    ("--label-column", "lable", ["--label-column", "lable", "'label'"]),
    ("--shorten", "label", ["--shorten", "label"]),
    ("--template", "{text} It was", ["--template", "{text} It was", "{mask}"]),
    ("--template", "{text} {mask} {mask}", ["--template", "{text} {mask} {mask}"]),
    ("--template", "{txt} It was {mask}.", ["--template", "{txt}", "text"]),
    ("--template", "{text} It was {mask.", ["--template", "{text} It was {mask."]),
    ("--template", "{} It was {mask}.", ["--template", "{} It was {mask}."]),
    ("--template", "", ["--template", "''"]),
    ("--label-words", "0=bad,1=great story", ["--label-words", "great story", "2 tokens"]),
    ("--label-words", "0=bad,1=grandiose", ["--label-words", "grandiose", "unknown"]),
    ("--label-words", "0=bad,1=bad", ["--label-words", "bad, bad"]),
    ("--label-words", "0=bad", ["--label-words", "0=bad"]),
    ("--label-words", "bad,great", ["--label-words", "bad,great"]),
    ("--label-words", "0=bad,2=great", ["--label-words", "'1'"]),
    ("--config", "FILES/none.yaml", ["--config", "none.yaml"]),
    ("--config", "FILES/broken.yaml", ["--config", "broken.yaml"]),
    ("--config", "FILES/typo.yaml", ["--config", "typo.yaml", "budgt", "'budget'"]),
    ("--config", "FILES/wrong.yaml", ["--visit", "many"]),
    ("--output", "FILES", ["--output", "files"]),
    ("--output", "FILES/train.csv/run", ["--output", "train.csv"]),
]


@pytest.mark.parametrize(("name", "value", "said"), ONE_FLAG, ids=[f"{n}={v}" for n, v, _ in ONE_FLAG])
def test_one_wrong_flag(command: Command, tmp_path: Path, name: str, value: str, said: list[str]) -> None:
    files = tmp_path / "files"
    files.mkdir()
    flags = ["--model", model("masked"), *csv_files(files), *SMALL, "--output", str(tmp_path / "run")]
    (files / "broken.yaml").write_text("budget: [1,\n  2", encoding="utf-8")
    (files / "typo.yaml").write_text("budgt: 8\n", encoding="utf-8")
    (files / "wrong.yaml").write_text("visit: many\n", encoding="utf-8")
    value = value.replace("FILES", str(files))
    line = refused(command, "tune", *flags, f"{name}={value}", "--json")
    says(line, *said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["train.csv"]),
        ("text,label\n", ["train.csv", "no examples"]),
        ("text,label\na,1\nb,1\n", ["train.csv", "'1'"]),
        ("text,label\na,1\nb,maybe\n", ["train.csv", "maybe", "--label-words"]),
        ("text,label\na,1\nb\n", ["train.csv"]),
    ],
)
def test_training_files_that_teach_nothing(command: Command, tmp_path: Path, content: str, said: list[str]) -> None:
    flags = csv_files(tmp_path)
    (tmp_path / "train.csv").write_text(content, encoding="utf-8")
    line = refused(command, "tune", "--model", model("masked"), *flags, *SMALL, "--output", tmp_path / "run")
    says(line, *said)


def test_no_dev_set_to_be_had(command: Command, tmp_path: Path) -> None:
    flags = csv_files(tmp_path)
    flags = [*flags[:6], *flags[8:]]
    assert "--dev-file" not in flags
    line = refused(command, "tune", "--model", model("masked"), *flags, *SMALL, "--output", tmp_path / "run")
    says(line, "--dev-file")
    assert "train.csv" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune", "--task", "superglue/bolq"], ["--task", "superglue/bolq", "'superglue/boolq'"]),
        (["tune", "--model", "m"], ["--task"]),
        (["tune", "--task", "superglue/cb"], ["--model"]),
        (["tune", "--task", "superglue/cb", "--model", "m", "--data", "/no/data"], ["--data", "/no/data"]),
        (["tune", "--test-file", "x.csv", "--model", "m"], ["--train-file", "x.csv"]),
        (["tune", "--dev-file", "x.csv", "--model", "m"], ["--train-file", "x.csv"]),
        (["tune", "--task", "superglue/cb", "--dev-file", "x.csv", "--model", "m"], ["--task", "superglue/cb"]),
        (["tune", "extra"], ["extra"]),
        (["tune", "--budget"], ["--budget"]),
        (["tune", "--resume", "nothing-here"], ["--resume", "nothing-here"]),
        (["tnue"], ["tnue", "tune"]),
        (["--jsn"], ["--jsn"]),
        (["evaluate", "--split", "dve"], ["--split", "dve", "'dev'"]),
        (["evaluate", "--optimizer", "cma"], ["--optimizer"]),
        (["evaluate", "--adapter", "nothing-here"], ["--adapter", "nothing-here"]),
        (["evaluate", "--adapter", "nothing-here", "--task", "superglue/cb"], ["--adapter", "nothing-here"]),
    ],
)
def test_calls_that_name_nothing_that_is_there(command: Command, arguments: list[str], said: list[str]) -> None:
    line = refused(command, *arguments)
    says(line, *said)


def _cb(folder: Path, *, test: bool = False) -> Path:
    home = folder / "data" / "CB"
    home.mkdir(parents=True)
    labels = ("entailment", "contradiction", "neutral")
    records = [
        {"premise": "it is " + text, "hypothesis": text, "label": labels[i % 3]} for i, (text, _) in enumerate(rows())
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    for name in ("train", "dev32", *(["val"] if test else [])):
        (home / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder / "data"


REGISTERED = [
    ("--template", "{premse} {mask}", ["--template", "premse", "'premise'"]),
    ("--template", "{} {mask}", ["--template", "{} {mask}"]),
    ("--template", "{premise {mask}", ["--template", "{premise {mask}"]),
    ("--template", "{premise}", ["--template", "{premise}"]),
    ("--shorten", "premse", ["--shorten", "premse", "'premise'"]),
    ("--label-words", "Yes,No", ["--label-words", "Yes,No"]),
    ("--label-words", "entailment=Yes,No,Maybe", ["--label-words", "entailment=Yes"]),
    ("--task", "superglue/rte", ["--data", "superglue/rte"]),
    ("--task", "demo/sentimnt", ["--task", "'demo/sentiment'"]),
]


@pytest.mark.parametrize(("name", "value", "said"), REGISTERED, ids=[f"{n}={v}" for n, v, _ in REGISTERED])
@pytest.mark.parametrize("verb", ["tune", "evaluate"])
def test_one_wrong_flag_with_a_task(
    command: Command, tmp_path: Path, verb: str, name: str, value: str, said: list[str]
) -> None:
    flags = ["--task", "superglue/cb", "--data", _cb(tmp_path, test=True), "--model", model("masked")]
    flags += [*SMALL, "--output", tmp_path / "run"] if verb == "tune" else []
    line = refused(command, verb, *flags, name, value)
    says(line, *said)


def test_without_a_test_set_it_says_what_to_do(command: Command, tmp_path: Path) -> None:
    flags = ["--task", "superglue/cb", "--data", _cb(tmp_path), "--model", model("masked")]
    line = refused(command, "tune", *flags, *SMALL, "--output", tmp_path / "run")
    says(line, "--test-split dev")
    says(refused(command, "evaluate", *flags), "--split dev")
    files = csv_files(tmp_path)[:-2]
    says(refused(command, "tune", "--model", model("masked"), *files, *SMALL), "--test-split")


def test_adapters_that_do_not_fit(command: Command, tmp_path: Path) -> None:
    files = csv_files(tmp_path)
    scores = command.json("tune", "--model", model("causal"), *files, *SMALL, "--output", tmp_path / "run")
    again = refused(command, "tune", "--model", model("causal"), *files, *SMALL, "--output", tmp_path / "run")
    says(again, "--output")
    assert "already holds a run" in again
    for other in (model("masked"), model("causal", hidden=48)):
        line = refused(command, "evaluate", "--model", other, *files, "--adapter", scores["adapter"])
        says(line, "--adapter")
        assert model("causal") in line
    line = refused(command, "evaluate", "--model", model("causal"), *files, "--adapter", tmp_path / "other")
    assert str(tmp_path / "other") in line
    only_test = [*files[:4], "--test-file", tmp_path / "test.csv", "--split", "dev"]
    says(refused(command, "evaluate", "--model", model("causal"), *only_test), "--split")
    (Path(scores["adapter"]) / "adapter_config.json").write_text("[]", encoding="utf-8")
    says(refused(command, "evaluate", *files, "--adapter", scores["adapter"]), "--adapter")
    (Path(scores["adapter"]) / "adapter_config.json").write_text("{", encoding="utf-8")
    says(refused(command, "evaluate", *files, "--adapter", scores["adapter"]), "--adapter")
