"""Too little memory, damaged folders of answers, and the scripts that kill runs and spoil inputs, in small sizes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models_zoo import attached, candidates, word_rows
from safetensors.torch import save_file

from dfolora.chat.scripted import ScriptedChat
from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.models.prompt_folder import read_prompt
from dfolora.runs.files import read_tensors
from dfolora.tasks.demo import MODEL_DIR

ROOT = Path(__file__).parents[1]
NO_ROOM = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"


def short_of_memory(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """Let forwards of more than ``room`` tokens fail; the sizes of those that were tried."""
    run, tried = Engine._run, []

    def limited(self: Engine, bucket: Any, layout: Any, states: Any, edits: Any, copies: int) -> Any:
        tried.append(copies * layout.inputs["input_ids"].numel())
        if tried[-1] > room:
            raise RuntimeError(NO_ROOM)
        return run(self, bucket, layout, states, edits, copies)

    monkeypatch.setattr(Engine, "_run", limited)
    return tried


def test_chunks_are_halved_where_memory_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, rows = attached("llama"), word_rows("causal")
    changes = candidates(adapter, 1, 8)
    expected = Engine(adapter, rows).scores(changes)
    engine = Engine(adapter, rows, chunk_tokens=4096)
    tried = short_of_memory(monkeypatch, 60)
    found = engine.scores(changes)
    assert max(tried) > 60
    assert (found - expected).abs().max() < 1e-5
    assert 30 <= engine.chunk_tokens <= 256
    tried.clear()
    engine.scores(changes)
    assert max(tried) <= 60, "it has not learnt what fits"


def test_memory_for_not_even_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(attached("llama"), word_rows("causal"))
    short_of_memory(monkeypatch, 0)
    with pytest.raises(UserError, match="^chunk_tokens: memory is not enough for one row of"):
        engine.incumbent_scores()


def test_other_errors_are_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(attached("llama"), word_rows("causal"))

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(Engine, "_run", broken)
    with pytest.raises(RuntimeError, match="something else"):
        engine.incumbent_scores()


@pytest.mark.parametrize("name", ["a", "a" * 7, "a" * 50])
def test_tensors_lie_where_torch_would_put_them(name: str, tmp_path: Path) -> None:
    """The last bit of a product depends on that, and a resumed run is the same to the last bit."""
    save_file({name: torch.arange(5.0), "z": torch.ones(3, 7)}, tmp_path / "x.safetensors")
    tensors, _ = read_tensors(tmp_path / "x.safetensors")
    assert tensors[name].tolist() == [0, 1, 2, 3, 4]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors.values())


@pytest.fixture
def answered(tmp_path: Path) -> dict[str, Any]:
    """Arguments of a finished `dfolora prompt`."""
    file = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"What is {n}\u2028and 2?", "answer": f"#### {n + 2}"} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "model": ScriptedChat(lambda request: "It is\u2028so. The answer is 3."),
        "task": "gsm8k", "data": str(file), "output": str(tmp_path / "run"),
    }  # fmt: skip


def test_a_trace_with_line_separators_in_its_texts_is_read(answered: dict[str, Any]) -> None:
    import dfolora

    scores = dfolora.prompt(**answered)
    assert (scores["questions"], scores["correct"]) == (3, 1)
    (Path(answered["output"]) / "scores.json").unlink()
    again = dfolora.prompt(**answered)
    assert {**again, "seconds": 0} == {**scores, "seconds": 0}


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("scores.json", "{", "", "scores.json' is damaged"),
        ("scores.json", "{", "[1, {", "scores.json' is damaged"),
        ("trace.jsonl", '"how"', '"why"', "line 2 is not as it was written"),
        ("trace.jsonl", '"correct": false', '"correct": "no"', "line 2 is not as it was written"),
        ("trace.jsonl", '"index": 1', '"index": 0', "two lines for one question"),
        ("trace.jsonl", '"calls": ', '"calls": -', "line 1 is not as it was written"),
        ("config.yaml", "task:", "task", "config.yaml' is not YAML"),
    ],
)
def test_damaged_answers(answered: dict[str, Any], name: str, old: str, new: str, said: str) -> None:
    import dfolora

    dfolora.prompt(**answered)
    file = Path(answered["output"]) / name
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    if name != "scores.json":
        file.with_name("scores.json").unlink()
    with pytest.raises(UserError) as caught:
        dfolora.prompt(resume=answered["output"], model=answered["model"])
    assert said in str(caught.value)


def test_a_spoiled_run_of_answers_is_told_in_one_line(answered: dict[str, Any], capsys: Any) -> None:
    from dfolora import cli, prompt

    prompt(**answered)
    (Path(answered["output"]) / "config.yaml").write_text("a: b: c\n")
    assert cli.main(["prompt", "--resume", answered["output"]]) == 2
    assert capsys.readouterr().err.startswith("dfolora: --resume: ")


@pytest.mark.parametrize("scores", ["{}x", '{"accuracy": 5}', "[]", '{"interval": 7}'])
def test_spoiled_scores_of_answers_are_told_in_one_line(answered: dict[str, Any], scores: str, capsys: Any) -> None:
    from dfolora import cli, prompt

    prompt(**answered)
    folder = Path(answered["output"])
    (folder / "scores.json").write_text(scores)
    config = (folder / "config.yaml").read_text(encoding="utf-8").replace("model: scripted", f"model: {MODEL_DIR}")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    assert cli.main(["prompt", "--resume", answered["output"]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dfolora: --resume: ")
    assert "scores.json" in line


def test_replies_that_are_damaged(answered: dict[str, Any], tmp_path: Path) -> None:
    import sqlite3

    from dfolora.chat import Message, Request
    from dfolora.chat.cache import CachedChat

    request = Request((Message("user", "a"),))
    chat = CachedChat(answered["model"], tmp_path / "replies")
    chat([request])
    for spoiled in ("{", "null", '{"texts": 5}'):
        with sqlite3.connect(tmp_path / "replies") as table:
            table.execute("update replies set reply = ?", (spoiled,))
        with pytest.raises(UserError, match="^cache: .* is damaged"):
            chat([request])


@pytest.mark.parametrize("shape", [(4,), (4, 8, 1), (), (0, 8)])
def test_soft_prompts_of_other_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    save_file({"prompt_embeddings": torch.ones(shape)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="are no soft prompt's"):
        read_prompt(str(tmp_path))


@pytest.mark.parametrize("size", [0, 300, 3000])
def test_no_room_for_the_adapter(size: int, tmp_path: Path) -> None:
    """A file of a folder is larger than the disk has room for: one line, and nothing half written."""
    adapter = attached("llama")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(UserError, match="^output: cannot write .*adapter' "):
            adapter.save(tmp_path / "adapter", {"README.md": "x" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def script(*arguments: str) -> str:
    """What a script prints, in a process of its own: forks need one with a single thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_killed_runs() -> None:
    said = script("scripts.torture", "--kills", "1", "--others", "0")
    assert "| SIGKILL | 1 | 1 | 0 |" in said


def test_spoiled_inputs() -> None:
    said = script("scripts.fuzz", "--count", "30", "--only", "templates and label words")
    assert "| all | 30 |" in said
