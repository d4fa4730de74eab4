"""What is spoiled, by kind: each writes its files into a folder and gives the command line that reads them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfolora.tasks.demo import MODEL_DIR
from scripts.forked import Process
from scripts.fuzz import spoil
from scripts.fuzz.published import QUESTIONS, RECORDS

MODEL = ["--model", str(MODEL_DIR)]
_SMALL = ["--shots", "4", "--test-limit", "6", "--population", "4", "--budget", "16", "--subspace-dim", "8"]
_ROWS = [(f"{text} on day {day}", day % 2) for day in range(24) for text in ("the soup was tasty",)]


@dataclass(frozen=True)
class Good:
    """Finished runs that are spoiled: of a search, of a method with a state file, of questions.

    Attributes:
        runs: folders.
        asked: folder of the run that answered questions.
    """

    runs: list[Path]
    asked: Path


def prepare(work: Path, nothing: bool = False) -> Good:
    """Make the runs; none where ``nothing`` needs them."""
    if nothing:
        return Good([], work)
    asked = ["--method", "search", *_SMALL]
    first = ["--method", "first-order", "--budget", "4", "--shots", "4", "--test-limit", "6", "--dev-every", "2"]
    prompt = [*asked, "--tune", "prompt", "--prompt-tokens", "4"]
    folders = [work / "search", work / "first-order", work / "prompt"]
    for folder, flags in zip(folders, (asked, first, prompt), strict=True):
        ended = Process(["tune", *flags, "--output", str(folder)]).wait()
        if ended.code != 0:
            raise RuntimeError(f"the run to spoil ended with {ended.said}")
    questions = work / "gsm8k.jsonl"
    questions.write_text(_lines(QUESTIONS["gsm8k"]), encoding="utf-8")
    answers = work / "answers"
    from scripts.fuzz.inside import scripted  # the model that answers is none

    flags = ["prompt", *MODEL, "--task", "gsm8k", "--data", str(questions), "--output", str(answers)]
    ended = Process(flags, scripted).wait()
    if ended.code != 0:
        raise RuntimeError(f"the answers to spoil ended with {ended.said}")
    return Good(folders, answers)


def tables(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Files of one's own: csv, tsv, jsonl."""
    ending = draw.choice(("csv", "tsv", "jsonl"))
    mark = {"csv": ",", "tsv": "\t"}.get(ending, "")
    rows = _ROWS[: draw.choice((4, 24))]
    if mark:
        text = f"text{mark}label\n" + "".join(f"{text}{mark}{label}\n" for text, label in rows)
        content = spoil.data(text.encode(), draw)
    else:
        text = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        content = spoil.json_lines(text, draw)
    file, whole = work / f"rows.{ending}", work / "whole.jsonl"
    whole.write_text(_lines([{"text": text, "label": label} for text, label in _ROWS]), encoding="utf-8")
    file.write_bytes(content)
    role = draw.choice(("train", "dev", "test"))
    files = {name: file if name == role else whole for name in ("train", "dev", "test")}
    named = [word for name, path in files.items() for word in (f"--{name}-file", str(path))]
    return [
        "tune",
        *MODEL,
        *named,
        "--template",
        "{text} It was {mask}.",
        "--label-words",
        "0=terrible,1=great",
        *_SMALL,
    ]


def published(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Files of benchmarks as they are published."""
    name = draw.choice(sorted(RECORDS))
    place, records = RECORDS[name]
    for file in place:
        path = work / file
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = file.endswith(".json")
        text = json.dumps(records[0]) if whole else _lines(records * 8)
        path.write_bytes(spoil.json_text(text, draw) if whole else spoil.json_lines(text, draw))
    return ["evaluate", *MODEL, "--task", name, "--data", str(work), "--split", draw.choice(("train", "test"))]


def prompts(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Templates, label words, columns and the field to shorten."""
    flags = {"template": "{text} It was {mask}.", "label_words": "0=terrible,1=great", "shorten": "text"}
    flags |= {"text_columns": "text", "label_column": "label"}
    for name in draw.sample(sorted(flags), draw.choice((1, 1, 2))):
        flags[name] = spoil.words(flags[name], draw)
    if draw.random() < 0.5:
        named = ["--task", "demo/sentiment"]
        flags = {name: flags[name] for name in ("template", "label_words", "shorten")}
    else:
        file = work / "rows.jsonl"
        file.write_text(_lines([{"text": text, "label": label} for text, label in _ROWS]), encoding="utf-8")
        named = ["--train-file", str(file), "--test-file", str(file)]
    return ["tune", *MODEL, *named, *_SMALL, *_joined(flags)]


def options(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Flags with values that are none, and flags that are none."""
    names = [
        "budget", "population", "sigma", "seed", "optimizer", "subspace", "subspace-dim", "rank", "target", "mode",
        "batch", "objective", "dtype", "device", "kind", "max-length", "shots", "data-seed", "test-limit", "stop-at",
        "patience", "visit", "bound", "scale", "tune", "prompt-tokens", "prompt-text", "chunk-tokens", "engine",
        "method", "preset", "lr", "workers", "test-split", "selection", "demonstrations", "track", "task", "model",
        "quantize", "new-tokens", "chat", "system", "stop", "temperature", "samples", "top-p", "dev-every",
    ]  # fmt: skip
    values = ["8", "0.5", "cma", "search", "tangent", "lora", "demo/sentiment", "prompt", "float32", "q,k", "loss=0.1"]
    flags: list[str] = []
    for name in draw.sample(names, draw.choice((1, 1, 2, 3))):
        name = spoil.words(name, draw) if draw.random() < 0.1 else name
        value = spoil.words(draw.choice(values), draw) if draw.random() < 0.7 else draw.choice(values)
        flags += [f"--{name}={value}"] if draw.random() < 0.7 else [f"--{name}", value]
    return ["tune", *flags]


def configurations(good: Good, work: Path, draw: random.Random) -> list[str]:
    """YAML files of settings."""
    text = (draw.choice(good.runs) / "config.yaml").read_text(encoding="utf-8")
    text = "".join(line + "\n" for line in text.splitlines() if not line.startswith("output:"))
    content = spoil.data(text.encode(), draw)
    if draw.random() < 0.4:
        name, _, value = draw.choice(text.splitlines()).partition(":")
        content = (text + f"{name}: {spoil.words(value, draw)}\n").encode("utf-8", "surrogatepass")
        content = content.replace(f"{name}:{value}\n".encode(), b"", 1)
    file = work / "run.yaml"
    file.write_bytes(content)
    return ["tune", "--config", str(file)]


def adapters(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Saved adapters: PEFT's configuration, ours, and the tensors."""
    folder = work / "adapter"
    shutil.copytree(draw.choice(good.runs) / "adapter", folder)
    name = draw.choice(("adapter_config.json", "adapter_model.safetensors", "dfolora.json"))
    file = folder / name
    if name.endswith("json"):
        file.write_bytes(spoil.json_text(file.read_text(encoding="utf-8"), draw))
    else:
        file.write_bytes(spoil.tensors(file.read_bytes(), draw))
    return ["evaluate", str(folder), "--split", "dev"]


def run_folders(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Run folders: log, settings, measurements, state."""
    folder, whole = work / "run", draw.choice(good.runs)
    shutil.copytree(whole, folder)
    (folder / "scores.json").unlink()
    names = ["log.jsonl", "log.jsonl", "config.yaml", "environment.json", "measured.safetensors", "state.safetensors"]
    file = folder / draw.choice([name for name in names if (folder / name).is_file()])
    content = file.read_bytes()
    if file.suffix == ".safetensors":
        file.write_bytes(spoil.tensors(content, draw))
    elif file.suffix == ".jsonl":
        file.write_bytes(spoil.json_lines(content.decode(), draw))
    elif file.suffix == ".json":
        file.write_bytes(spoil.json_text(content.decode(), draw))
    else:
        file.write_bytes(spoil.data(content, draw))
    return ["tune", "--resume", str(folder)]


def rewards(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Sums of rewards, and files with a function."""
    if draw.random() < 0.2:
        file = work / "mine.py"
        text = "def score(texts, examples):\n    return [len(text) for text in texts]\n"
        file.write_bytes(spoil.data(text.encode(), draw))
        reward = f"{file}:score"
    else:
        sums = (
            "numeric - 0.01*length",
            "json('name', 'age') + f1",
            "2*exact - regex('^(yes|no)$')",
            "-length('words')",
        )
        reward = spoil.words(draw.choice(sums), draw)
    return ["tune", *MODEL, "--task", "demo/sentiment", f"--reward={reward}"]


def questions(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Files of questions that take reasoning."""
    name = draw.choice(sorted(QUESTIONS))
    rows = QUESTIONS[name] * 3
    if draw.random() < 0.5:
        content = spoil.json_lines(_lines(rows), draw)
    else:
        content = spoil.json_text(json.dumps(draw.choice((rows, {"examples": rows}))), draw)
    file = work / f"questions.{draw.choice(('json', 'jsonl'))}"
    file.write_bytes(content)
    return ["prompt", *MODEL, "--task", name, "--data", str(file), "--limit", "4"]


def answers(good: Good, work: Path, draw: random.Random) -> list[str]:
    """Folders of answered questions: trace, settings, replies, scores."""
    folder = work / "answers"
    shutil.copytree(good.asked, folder)
    name = draw.choice(("trace.jsonl", "trace.jsonl", "config.yaml", "replies.sqlite", "scores.json"))
    if name != "scores.json" or draw.random() < 0.5:
        (folder / "scores.json").unlink()
    file = folder / name
    content = file.read_bytes() if file.exists() else b"{}"
    file.write_bytes(spoil.json_lines(content.decode(), draw) if name == "trace.jsonl" else spoil.data(content, draw))
    return ["prompt", "--resume", str(folder)]


KINDS: dict[str, Callable[[Good, Path, random.Random], list[str]]] = {
    "tables of one's own": tables, "published data sets": published, "templates and label words": prompts,
    "options": options, "YAML files": configurations, "adapters": adapters, "run folders": run_folders,
    "rewards": rewards, "questions": questions, "answered questions": answers,
}  # fmt: skip


NEED_RUNS = {"YAML files", "adapters", "run folders", "answered questions"}


def _joined(flags: dict[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]


def _lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
