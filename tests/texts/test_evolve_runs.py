"""Runs of `dfolora prompt --evolve`: what scores an instruction, the log, stopped runs, the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Command, model

from dfolora.chat import CallLimit, Request, ScriptedChat
from dfolora.errors import UserError
from dfolora.evolution.fitness import ChoiceFitness
from dfolora.evolution.run import evolve, evolve_settings
from dfolora.task import Example, Task

SMALL = {"population": 4, "scored": 14, "shots": 6, "limit": 8, "seed": 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"question": f"Is coin {number} heads up?", "answer": "yes"} for number in range(30)]
    (tmp_path / "coin_flip.json").write_text(json.dumps({"examples": rows}), encoding="utf-8")
    return tmp_path


class Paid(ScriptedChat):
    """Answers right more often the more an instruction says "slowly"; a variation says it once more."""

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__(self.reply)
        self.paid, self.stop_at = 0, stop_at

    def reply(self, request: Request) -> str:
        self.paid += 1
        if self.paid == self.stop_at:
            raise KeyboardInterrupt
        said = request.messages[-1].content
        if "Now yours" in said:
            mine = re.findall(r"^Prompt(?: \d)?: (.*)$", said.split("Now yours")[1], re.MULTILINE)
            return f"<prompt>{max(mine, key=lambda text: text.count('slowly'))} slowly {request.seed}</prompt>"
        number = int(re.findall(r"coin (\d+)", said)[0])
        return "The answer is yes." if number % 3 < said.count("slowly") else "The answer is no."


def run(chat: ScriptedChat, data: Path, output: Path, **options: Any) -> dict[str, Any]:
    given = {**SMALL, "evolve": "evoprompt-ga", **options}
    return evolve(chat, "coin-flip", data=str(data), output=str(output), **given)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "trace.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_instruction_for_questions_gets_better(data: Path, tmp_path: Path) -> None:
    chat = Paid()
    scores = run(chat, data, tmp_path / "run")
    assert scores["plain"]["accuracy"] == 0
    assert scores["evolved"]["accuracy"] > 30
    assert scores["best"].count("slowly") >= 1
    assert scores["calls"] == chat.paid
    assert 14 <= scores["scored"] < 18
    assert (scores["plain"]["questions"], scores["loss"]) == (
        8,
        min(x for line in lines(tmp_path / "run") for x in line["losses"]),
    )


@pytest.mark.parametrize("stop_at", [1, 4, 20, 40, 75])
def test_a_search_that_is_stopped_anywhere_pays_for_nothing_twice(stop_at: int, data: Path, tmp_path: Path) -> None:
    whole, stopped, again = Paid(), Paid(stop_at), Paid()
    scores = run(whole, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, data, tmp_path / "run")
    same = evolve(again, resume=tmp_path / "run")
    assert stopped.paid - 1 + again.paid == whole.paid
    assert {**same, "seconds": 0, "run": ""} == {**scores, "seconds": 0, "run": ""}


def test_a_cap_stops_and_a_larger_one_goes_on(data: Path, tmp_path: Path) -> None:
    whole, first, second = Paid(), Paid(), Paid()
    run(whole, data, tmp_path / "whole")
    with pytest.raises(CallLimit, match="max_calls: 50 calls are used up after 4 of 14 instructions"):
        run(first, data, tmp_path / "run", max_calls=50)
    evolve(second, resume=tmp_path / "run", max_calls=1000)
    assert first.paid == 50
    assert first.paid + second.paid == whole.paid


def test_eot_lets_its_second_seed_evolve_and_plan_and_solve_has_none(data: Path, tmp_path: Path) -> None:
    scores = run(Paid(), data, tmp_path / "run", method="eot", mode="single", scored=4)
    assert scores["evolved"]["accuracy"] > 0
    with pytest.raises(UserError, match="method: it has no instruction to evolve"):
        run(Paid(), data, tmp_path / "other", method="plan-and-solve")
    assert not (tmp_path / "other").exists()


def test_the_loss_of_choices_is_that_of_the_prompt_with_the_instruction_in_front() -> None:
    texts = [("a funny story", 1), ("a dull story", 0), ("very warm music", 1), ("very cold music", 0)] * 3
    examples = [Example({"text": text}, label) for text, label in texts]
    task = Task.from_examples(examples, dev=examples, test=examples, words="0=bad,1=great")
    fitness = ChoiceFitness(evolve_settings({"model": model("causal"), "task": task, "shots": 4, "limit": 10}))
    text = "Is {it} good or bad?"
    encoder = fitness.encoder(text)
    assert encoder.prompt.template == "Is {{it}} good or bad?\n" + fitness.plain.prompt.template
    rows = fitness.bare.language_model
    example = fitness.train[0]
    prompt = f"{text}\n" + fitness.plain.prompt.template.split("{mask}")[0].rstrip()
    for name, value in example.fields.items():
        prompt = prompt.replace("{" + name + "}", value)
    tokens = torch.tensor([rows.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        logits = rows.model(tokens).logits[0, -1].float()
    words = [
        rows.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in encoder.prompt.words or ()
    ]
    expected = -logits[words].log_softmax(-1)[example.label]
    fitness.train = [example]
    assert fitness.loss(text) == pytest.approx(float(expected), abs=1e-4)
    assert fitness.report(None)["questions"] == 10


def test_what_cannot_work_is_one_line(data: Path, tmp_path: Path, command: Command) -> None:
    usual = ["--model", tmp_path, "--data", data, "--output", tmp_path / "run"]
    for words, says in (
        (["--task", "coin-flip", "--evolve", "evoprompt-gs"], "--evolve: unknown 'evoprompt-gs'; did you mean"),
        (["--task", "coin-flop", "--evolve", "random"], "--task: unknown 'coin-flop'; did you mean 'coin-flip'"),
        (["--task", "coin-flip", "--evolve", "random", "--scored", "0"], "--scored: 0 cannot work"),
        (["--task", "coin-flip", "--evolve", "random", "--sigma", "1"], "unknown '--sigma'"),
    ):
        assert command("prompt", *usual, *words) == 2
        assert says in command.said[-1]
        assert not (tmp_path / "run").exists()
