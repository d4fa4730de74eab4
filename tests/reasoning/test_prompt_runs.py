"""`dfolora prompt` from files to scores: what lies in the folder, killed and capped runs, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from counted_chat import CountedChat
from tiny_models import Command

from dfolora.chat import CallLimit, Request, ScriptedChat
from dfolora.errors import UserError
from dfolora.reasoning.opening import prompt
from dfolora.reasoning.scores import score, wilson

COINS = [("heads up. Ann flips it.", "no"), ("tails up. Bob flips it.", "yes"), ("heads up. Cy waits.", "yes")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    asked = enumerate(COINS * 2)
    rows = [
        {"question": f"Coin {number} is {text} Is it heads up?", "answer": right} for number, (text, right) in asked
    ]
    (tmp_path / "coin_flip.json").write_text(json.dumps({"examples": rows}), encoding="utf-8")
    return tmp_path


class Paid(CountedChat):
    """Answers by rote; counts what it is asked, and is interrupted at one of its calls."""

    def reply(self, request: Request) -> str:
        said = request.messages[-1].content
        if said.startswith("Which of these"):
            return "2"
        if said.startswith(("Two prompts", "A prompt")):
            return f"<prompt>Watch the coin, {len(said)}.</prompt>"
        if said.startswith("State the"):
            return said.split("Question: ")[1].split("\n")[0]
        asked = request.messages[0].content
        return "The answer is no." if "Ann" in asked else "I cannot say." if "Cy" in asked else "The answer is yes."


def run(chat: ScriptedChat, data: Path, output: Path, **options: Any) -> dict[str, Any]:
    given = {"method": "eot", "batch": 2, **options}
    return prompt(chat, "coin-flip", data=str(data), output=str(output), **given)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "trace.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_folder_of_a_run(data: Path, tmp_path: Path) -> None:
    chat = Paid()
    scores = run(chat, data, tmp_path / "run")
    assert (scores["questions"], scores["correct"], scores["wrong"], scores["no_answer"]) == (6, 4, 0, 2)
    assert scores["accuracy"] == pytest.approx(100 * 4 / 6)
    # 2 shared calls; selection, rewriting and solving of six; a second call for the two that say nothing.
    assert (scores["calls"], scores["shared_calls"], chat.paid) == (22, 2, 22)
    assert scores["calls_per_question"] == pytest.approx(22 / 6)
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == scores
    assert [line["index"] for line in lines(tmp_path / "run")] == [-1, 0, 1, 2, 3, 4, 5]
    assert lines(tmp_path / "run")[1]["where"] == f"{data / 'coin_flip.json'}: row 1"
    assert run(Paid(stop_at=1), data, tmp_path / "run") == scores  # it is finished: nothing is asked again


@pytest.mark.parametrize("stop_at", [1, 2, 3, 6, 8, 9])
def test_a_run_that_is_stopped_anywhere_pays_for_nothing_twice(stop_at: int, data: Path, tmp_path: Path) -> None:
    whole = Paid()
    scores = run(whole, data, tmp_path / "whole")
    stopped, again = Paid(stop_at), Paid()
    with pytest.raises(KeyboardInterrupt):
        run(stopped, data, tmp_path / "run")
    if stop_at == 8:  # killed while it wrote a line
        with open(tmp_path / "run" / "trace.jsonl", "a") as file:
            file.write('{"index": 5, "ans')
    same = run(again, data, tmp_path / "run")
    assert stopped.paid - 1 + again.paid == whole.paid
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    assert {**same, "seconds": 0, "run": ""} == {**scores, "seconds": 0, "run": ""}


def test_a_cap_on_calls_stops_cleanly_and_a_larger_one_goes_on(data: Path, tmp_path: Path) -> None:
    whole, first, second = Paid(), Paid(), Paid()
    scores = run(whole, data, tmp_path / "whole")
    with pytest.raises(CallLimit, match=r"max_calls: 9 calls are used up after 2 of 6 questions; .* --resume"):
        run(first, data, tmp_path / "run", max_calls=9)
    assert first.paid == 9
    assert not (tmp_path / "run" / "scores.json").exists()
    same = prompt(second, resume=tmp_path / "run", max_calls=100)
    assert first.paid + second.paid == whole.paid
    assert same["calls"] == scores["calls"]


def test_equal_calls(data: Path, tmp_path: Path) -> None:
    scores = run(Paid(), data, tmp_path / "eot")
    votes = run(Paid(), data, tmp_path / "vote", method="self-consistency", equal_calls=str(tmp_path / "eot"))
    assert votes["calls"] == scores["calls"] == 22
    assert [line["calls"] for line in lines(tmp_path / "vote")] == [3, 3, 5, 3, 3, 5]


def test_a_limit_draws_the_same_questions_for_everyone(data: Path, tmp_path: Path) -> None:
    few = run(Paid(), data, tmp_path / "two", method="zero-shot-cot", limit=2)
    run(Paid(), data, tmp_path / "four", method="plan-and-solve", limit=4, seed=3)
    assert few["questions"] == 2
    assert {line["index"] for line in lines(tmp_path / "two")} < {line["index"] for line in lines(tmp_path / "four")}


def test_another_run_does_not_go_on_in_the_folder(data: Path, tmp_path: Path) -> None:
    run(Paid(), data, tmp_path / "run", method="zero-shot-cot")
    with pytest.raises(UserError, match="is of a run with method 'zero-shot-cot', not 'plan-and-solve'"):
        run(Paid(), data, tmp_path / "run", method="plan-and-solve")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        run(Paid(), data, tmp_path / "other")
    with pytest.raises(UserError, match="resume: everything comes from"):
        prompt(Paid(), resume=tmp_path / "run", temperature=1.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "eott"], "--method: unknown 'eott'; did you mean 'eot'?"),
        (["--max-calls", "0"], "--max-calls: 0 cannot work; the least is 1"),
        (["--population", "1"], "--population: 1 is too few"),
        (["--samples", "3"], "unknown '--samples'"),
        (["--task", "gsm9k"], "--task: unknown 'gsm9k'; did you mean 'gsm8k'?"),
        (["--base-url", "http://localhost:1/v1"], "exclude each other"),
        (["--task", "gsm8k"], "no file of gsm8k"),
        (["--data", "nowhere"], "--data: 'nowhere': there is no such folder or file"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], says: str, data: Path, tmp_path: Path, command: Command
) -> None:
    output = tmp_path / "run"
    usual = ["--model", str(tmp_path), "--task", "coin-flip", "--data", str(data), "--output", str(output)]
    assert command("prompt", *usual, *words) == 2
    (line,) = [line for line in command.said if not line.startswith("opening")]
    assert says in line
    assert not list(tmp_path.glob("run*"))


def test_a_row_without_an_answer_is_said_before_anything_is_asked(data: Path, tmp_path: Path) -> None:
    rows = [{"question": "Heads?", "answer": "yes"}, {"question": "Tails?"}]
    (data / "coin_flip.json").write_text(json.dumps({"examples": rows}), encoding="utf-8")
    chat = Paid()
    with pytest.raises(UserError, match=r"coin_flip.json: row 2: no field 'answer'"):
        run(chat, data, tmp_path / "run")
    assert chat.paid == 0
    assert not (tmp_path / "run").exists()


def test_wilson_intervals() -> None:
    assert wilson(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)
    assert wilson(10, 20) == pytest.approx((29.93, 70.07), abs=0.01)
    assert wilson(20, 20) == pytest.approx((83.89, 100.0), abs=0.01)
    assert wilson(0, 0) == (0, 100)


def test_tokens_that_are_not_counted_stay_unknown() -> None:
    line = {"index": 0, "correct": True, "answer": 1.0, "how": "marker", "cut": False, "calls": 1}
    counted = {"prompt_tokens": 10, "completion_tokens": 4}
    unknown = {"prompt_tokens": None, "completion_tokens": 4}
    assert score([{**line, **counted}])["prompt_tokens_per_question"] == 10
    assert score([{**line, **counted}, {**line, **unknown}])["prompt_tokens_per_question"] is None
    assert score([{**line, **counted}, {**line, **unknown}])["completion_tokens_per_question"] == 4
