"""Rewards: where they come from, what ships, what a failing one costs; from the command line and from Python."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Command, log
from tiny_questions import SMALL, model

import dfolora
from dfolora.errors import UserError
from dfolora.problems.reward_source import REGISTRY, open_reward
from dfolora.problems.rewards import RewardError, rewarded
from dfolora.task import Example, Task

GOLD = [Example({}, 0, gold=("the red boat", "a boat"), where="f:1"), Example({}, 0, gold=("so 3 + 4\n#### 1,007",))]


@pytest.mark.parametrize(
    ("reward", "texts", "expected"),
    [
        ("exact", ["Boat.", "red boat"], [1, 0]),
        ("f1", ["the boat was red", "1,007"], [0.8, 0.4]),
        ("regex('^(yes|no)$')", ["yes", "no."], [1, 0]),
        ("regex(pattern='o')", ["yes", "no."], [0, 1]),
        ("json", ['{"a": 1}', "[1]"], [1, 0]),
        ("json('a', 'b')", ['{"a": 1}', '{"b": 0, "a": {}}'], [0, 1]),
        ("length", ["", "two words"], [0, 2]),
        ("length('characters')", ["", "two words"], [0, 9]),
        ("json - 0.5*length + 2*regex('w')", ["{}", "two words"], [0.5, 1]),
        ("-(json - length*0.5)", ["{}", "two words"], [-0.5, 1]),
    ],
)
def test_what_ships(reward: str, texts: list[str], expected: list[float]) -> None:
    assert open_reward(reward)(texts, GOLD) == pytest.approx(expected)


def test_numbers_as_gsm8k_compares_them() -> None:
    texts = ["It is 1007.", "1,007.0", "1007 or 8", "none", "$1,007"]
    assert open_reward("numeric")(texts, [GOLD[1]] * 5) == [1, 1, 0, 0, 1]
    with pytest.raises(UserError, match="numeric compares numbers, and the gold text 'the red boat' has none"):
        open_reward("numeric")(["1"], GOLD[:1])
    with pytest.raises(UserError, match="exact compares with a gold text, and f:7 has none; .* label_column"):
        open_reward("exact")(["1"], [Example({}, 0, where="f:7")])


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("lenght", "unknown 'lenght'; did you mean 'length'"),
        ("json('a'", "cannot be read; write file.py:function, or"),
        ("length * length", "'length \\* length' .* is no reward"),
        ("__import__('os').system('ls')", "is no reward"),
        ("json('a').keys", "is no reward"),
        ("3", "'3' .* is no reward"),
        ("regex", "'regex' cannot work \\(missing a required argument: 'pattern'\\); it takes \\(pattern"),
        ("regex('(')", "is no regular expression"),
        ("exact(1)", "it takes nothing in brackets"),
        ("length('lines')", "give 'words' or 'characters'"),
        ("json(open('x'))", "cannot work"),
        ("nowhere.py:f", "cannot read 'nowhere.py' \\(No such file"),
        (7, "7 is no function of texts and examples and no text"),
    ],
)
def test_what_cannot_be_read(reward: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^reward: .*{said}") as caught:
        open_reward(reward)
    assert "\n" not in str(caught.value)


def test_one_of_another_package() -> None:
    """It may take options, give one number for all, and have a dash in its name."""
    dfolora.register("reward", "short-ones", lambda texts, examples, most=3: sum(len(t) <= most for t in texts), "few")
    assert REGISTRY.describe()["short-ones"] == "few"
    assert open_reward("short_ones(most=1) - exact")(["a", "boat"], GOLD[:1] * 2) == [1, 0]
    assert open_reward("2*short_ones")(["a", "boat"], GOLD[:1] * 2) == [2, 2]


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("LONG = 2\n")
    (tmp_path / "mine.py").write_text(
        "import beside\ndef words(texts, examples):\n    return [len(t.split()) >= beside.LONG for t in texts]\n"
    )
    assert open_reward(f"{tmp_path}/mine.py:words")(["a", "a b"], []) == [False, True]
    with pytest.raises(UserError, match="mine.py: unknown 'word'; did you mean 'words'"):
        open_reward(f"{tmp_path}/mine.py:word")
    (tmp_path / "bad.py").write_text("1/0\n")
    with pytest.raises(UserError, match="bad.py' cannot be run; it raised ZeroDivisionError"):
        open_reward(f"{tmp_path}/bad.py:words")


def measured(reward: Any, timeout: float | None = None) -> float:
    task = rewarded(Task.from_examples(GOLD, template="{mask}", new_tokens=1, measure=lambda e, t: {}), reward, timeout)
    return task.main(task.measure(GOLD, ["a", "b"]))


def test_what_a_reward_may_give() -> None:
    for found in (3, [2, 4], torch.tensor([2.0, 4.0]), torch.tensor(3.0), (True, 5), (n for n in (1, 5))):
        assert measured(lambda t, e, found=found: found) == 3
    assert math.isnan(measured(lambda t, e: [1, math.inf]))
    assert measured(lambda t, e: 1.5, timeout=10) == 1.5


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda t, e: [1, 2, 3], "gave 3 numbers for 2 texts"),
        (lambda t, e: None, "raised TypeError"),
        (lambda t, e: "12", "raised TypeError: '12' is a text"),
        (lambda t, e: {}[t[0]], "raised KeyError: 'a' \\(on 2 texts\\)"),
        (lambda t, e: time.sleep(5), "took more than the 0.05 seconds"),
    ],
)
def test_what_it_may_not(reward: Any, said: str) -> None:
    with pytest.raises(RewardError, match=f"^reward: it .*{said}") as caught:
        measured(reward, 0.05)
    assert "\n" not in str(caught.value)


def test_without_a_gold_text_it_sees_none() -> None:
    examples = [Example({"text": "a"}, 0)]
    task = rewarded(
        Task.from_examples(examples, examples, template="{text} {mask}", new_tokens=1), lambda t, e: len(e[0].gold)
    )
    from dfolora.tasks.common import Source

    loaded = task.load("train", Source(None, 1, 0))
    assert loaded[0].gold  # for what is taught
    assert task.measure(loaded, ["x"]) == {"reward": 0}


# -- through the command ---------------------------------------------------------------------------------------------

PROMPTS = ["Tom saw the boat", "the river was red", "Mary read in town", "where was it"]
REWARD = """
def short(texts, examples):
    assert all(example.fields["text"] for example in examples)
    return [-len(text.split()) for text in texts]
"""


@pytest.fixture
def flags(tmp_path: Path) -> list[object]:
    for name in ("train", "dev"):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in PROMPTS)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "mine.py").write_text(REWARD)
    files = ["--train-file", tmp_path / "train.jsonl", "--dev-file", tmp_path / "dev.jsonl"]
    return ["--model", model("llama"), *files, "--new-tokens", 6, "--test-split", "dev", *SMALL]


def test_a_reward_alone(command: Command, tmp_path: Path, flags: list[object]) -> None:
    run = tmp_path / "run"
    scores = command.json("tune", *flags, "--reward", "regex('the') - 0.1*length", "--output", run)
    assert list(scores["tuned"]) == ["reward", "regex", "length"]
    tuned = scores["tuned"]
    assert tuned["reward"] == pytest.approx(tuned["regex"] - 0.1 * tuned["length"])
    found = command.json("evaluate", run, "--split", "dev")  # a registered one is written down
    assert found["metrics"] == scores["tuned"]
    assert command.json("evaluate", run, "--split", "dev", "--reward", "length")["metrics"] == {
        "reward": scores["tuned"]["length"]
    }


def test_a_file_that_fails_costs_no_evaluation(command: Command, tmp_path: Path, flags: list[object]) -> None:
    """The run is in the log; resumed, it is the one that never failed."""
    mine = tmp_path / "mine.py"
    flags += ["--reward", f"{mine}:short"]
    whole = command.json("tune", *flags, "--output", tmp_path / "whole")
    count = tmp_path / "count"
    mine.write_text(
        f"{REWARD}\nimport os\nright, count = short, {str(count)!r}\ndef short(texts, examples):\n"
        "    with open(count, 'a') as file:\n        file.write('.')\n"
        "    if os.path.getsize(count) == 7:\n        raise OSError('the judge is away')\n"
        "    return right(texts, examples)\n"
    )
    run = tmp_path / "run"
    assert command("tune", *flags, "--output", run) == 2
    assert len(command.said) == 1
    assert (
        "--reward: it raised OSError: the judge is away (on 4 texts); all evaluations so far are in the log"
        in command.err
    )
    assert f"go on with --resume {run}" in command.err
    assert len(log(run)) == 2  # the base model and a whole generation
    assert command("tune", "--resume", run) == 2
    assert f"--reward: that of the run is code, '{mine}:short', which you must name again" in command.err
    mine.write_text(REWARD)
    again = command.json("tune", "--resume", run, "--reward", f"{mine}:short")
    assert "the file of the reward" in command.err
    assert "has changed since the run began" in command.err
    assert log(run) == log(tmp_path / "whole")
    assert again["tuned"] == whole["tuned"]
    assert "reward" not in json.loads((run / "adapter" / "dfolora.json").read_text())["settings"]


def test_what_the_page_says_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "rewards.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {}
    exec(compile(code, "rewards.md", "exec"), space)
    assert open_reward(space["REWARD"])(["Yes it is", "no"], GOLD) == pytest.approx([0.7, -0.1])
    assert set(re.findall(r"^\| `([a-z0-9]+)", text, re.MULTILINE)) == set(REGISTRY.builtin())
