"""Runs of `dfolora prompt --evolve`: what scores an instruction, the log, stopped runs, the command."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from counted_chat import CountedChat
from tiny_models import Command, model

from dfolora.chat import CallLimit, Request, ScriptedChat
from dfolora.errors import UserError
from dfolora.evolution.fitness import ChoiceFitness
from dfolora.evolution.run import evolve
from dfolora.models.adapter import attach
from dfolora.models.load import load
from dfolora.settings.model import ModelSettings
from dfolora.task import Example, Task

TEXTS = [("a funny story", 1), ("a dull story", 0), ("very warm music", 1), ("very cold music", 0)] * 3
EXAMPLES = [Example({"text": text}, label) for text, label in TEXTS]
STORIES = Task.from_examples(EXAMPLES, dev=EXAMPLES, test=EXAMPLES, words="0=bad,1=great")
SMALL = {"population": 4, "scored": 14, "shots": 6, "limit": 8, "seed": 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"question": f"Is coin {number} heads up?", "answer": "yes"} for number in range(30)]
    (tmp_path / "coin_flip.json").write_text(json.dumps({"examples": rows}), encoding="utf-8")
    return tmp_path


class Paid(CountedChat):
    """Answers right more often the more an instruction says "slowly"; a variation says it once more."""

    def reply(self, request: Request) -> str:
        said = request.messages[-1].content
        if "Now yours" in said:
            mine = re.findall(r"^Prompt(?: \d)?: (.*)$", said.split("Now yours")[1], re.MULTILINE)
            return f"<prompt>{max(mine, key=lambda text: text.count('slowly'))} slowly {request.seed}</prompt>"
        number = int(re.findall(r"coin (\d+)", said)[0])
        return "The answer is yes." if number % 3 < said.count("slowly") else "The answer is no."


def run(chat: ScriptedChat, data: Path, output: Path, **options: Any) -> dict[str, Any]:
    given = {name: value for name, value in {**SMALL, "evolve": "evoprompt-ga", **options}.items() if value is not None}
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
    with pytest.raises(UserError, match="method: plan-and-solve has no instruction to evolve"):
        run(Paid(), data, tmp_path / "other", method="plan-and-solve")
    assert not (tmp_path / "other").exists()


def steps(request: Request) -> str:
    """EoT's steps, each of which hands on how often it is told to be slow; more of it solves more questions."""
    said = request.messages[-1].content
    told, slow = said.splitlines()[0], " slowly"
    if told.startswith("Say the following prompt"):
        return f"<prompt>{said.split('Prompt: ')[-1].splitlines()[0]} slowly slowly slowly</prompt>"
    if "Now yours" in said:
        return f"<prompt>take care{slow * told.count('slowly')}</prompt>"
    if "the number of the prompt only" in said:
        listed = [line for line in said.splitlines() if line[:1].isdigit()]
        best = max(range(len(listed)), key=lambda k: listed[k].count("slowly"))
        return str(best + 1 if "slowly" in told or "care" in said else 1)
    if "Clearer question:" in said:
        return said.split("Question: ")[1].splitlines()[0] + slow * told.count("slowly")
    return (
        "The answer is yes."
        if int(said.split("coin ")[1].split()[0]) % 3 < said.count("slowly")
        else "The answer is no."
    )


@pytest.mark.parametrize("slot", ["solve", "crossover", "mutation", "selection", "rewrite"])
def test_each_instruction_of_eot_can_be_what_evolves(slot: str, data: Path, tmp_path: Path) -> None:
    neither = {"crossover": False, "mutation": False}
    own: dict[str, Any] = {
        "crossover": {"mutation": False}, "mutation": {"crossover": False}, "rewrite": neither,
        "selection": {**neither, "seed_prompts": "think | think slowly slowly slowly"},
    }.get(slot, {})  # fmt: skip
    own["rewrite"] = slot == "rewrite"
    scores = run(ScriptedChat(steps), data, tmp_path / "run", slot=slot, evolve="random", method="eot", scored=4, **own)
    assert scores["slot"] == slot
    assert scores["plain"]["accuracy"] < 60 < 90 < scores["evolved"]["accuracy"]
    assert scores["best"].endswith("slowly slowly slowly")


def test_a_step_that_is_not_taken_cannot_evolve(data: Path, tmp_path: Path) -> None:
    for options, says in (
        ({"slot": "mutation", "mutation": False}, "mutation_prompt: .* would not be said: that step is left out"),
        ({"slot": "rewrite", "mode": "single"}, "rewrite_prompt: .* a single call has its own words"),
        ({"slot": "rewriting"}, "slot: unknown 'rewriting'; did you mean 'rewrite'"),
        ({"slot": "rewrite", "method": "zero-shot-cot"}, "slot: unknown 'rewrite'"),
    ):
        with pytest.raises(UserError, match=says):
            run(ScriptedChat(steps), data, tmp_path / "run", **{"method": "eot", **options})
        assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="slot: 'rewrite' is a step of eot"):
        evolve(model("causal"), STORIES, slot="rewrite", output=str(tmp_path / "run"))


def choices(kind: str, shots: int = 4) -> ChoiceFitness:
    return ChoiceFitness(ModelSettings(model=model(kind), task=STORIES, shots=shots, test_limit=10))


def test_the_loss_of_choices_is_that_of_the_prompt_with_the_instruction_in_front() -> None:
    fitness = choices("causal")
    text = "Is {it} good or bad?"
    assert fitness.template(text) == "Is {{it}} good or bad?\n" + fitness.plain.prompt.template
    rows = fitness.language_model
    example = fitness.train[0]
    prompt = f"{text}\n" + fitness.plain.prompt.template.split("{mask}")[0].rstrip()
    for name, value in example.fields.items():
        prompt = prompt.replace("{" + name + "}", value)
    tokens = torch.tensor([rows.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        logits = rows.model(tokens).logits[0, -1].float()
    words = [
        rows.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0]
        for word in fitness.plain.prompt.words or ()
    ]
    expected = -logits[words].log_softmax(-1)[example.label]
    fitness.train = [example]
    assert fitness.losses([text]) == [pytest.approx(float(expected), abs=1e-4)]
    assert fitness.report(None)["questions"] == 10


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_generation_is_scored_at_once_with_the_losses_of_one_text_after_the_other(kind: str) -> None:
    fitness = choices(kind)
    texts = ["Is {it} good?", "Say what the story was like, good or bad", "one <mask> word", "it was", "all is well {"]
    single = [fitness.losses([text])[0] for text in texts]
    one_by_one, fitness.forwards = fitness.forwards, 0
    assert fitness.losses(texts) == pytest.approx(single, abs=1e-5)
    assert len({round(loss, 4) for loss in single}) == len(texts)
    assert 1 <= fitness.forwards <= 2 < len(texts) <= one_by_one


def test_an_instruction_that_leaves_no_room_is_the_worst() -> None:
    fitness = choices("masked")
    fitness._behind.max_length = 24
    losses = fitness.losses(["it was", "very " * 40, "it is"])
    assert losses[1] == math.inf
    assert [losses[0], losses[2]] == pytest.approx(fitness.losses(["it was", "it is"]), abs=1e-5)


def test_one_loaded_model_varies_and_scores_and_an_adapter_only_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    plain = transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **b: loaded.append(1) or plain(*a, **b)
    )
    adapter = attach(load(model("causal")), 2)
    for layer in range(len(adapter.layers)):
        adapter.write(
            layer, {name: (torch.ones_like(a), torch.ones_like(b)) for name, (a, b) in adapter.read(layer).items()}
        )
    adapter.save(tmp_path / "adapter", {})
    loaded.clear()
    found = {}
    for name, folder in (("with", str(tmp_path / "adapter")), ("without", "")):
        few = {"population": 3, "scored": 5, "limit": 4, "shots": 4, "adapter": folder}
        scores = evolve(model("causal"), STORIES, output=str(tmp_path / name), **few)
        assert scores["scored"] >= 3
        found[name] = lines(tmp_path / name)[0]
    assert len(loaded) == 2  # one a run
    assert found["with"]["texts"] == found["without"]["texts"]
    assert max(abs(a - b) for a, b in zip(found["with"]["losses"], found["without"]["losses"], strict=True)) > 1e-3


def test_a_chat_of_ones_own_varies_what_a_masked_model_is_told(tmp_path: Path) -> None:
    said = ScriptedChat(lambda request: f"<prompt>good story number {request.seed}</prompt>")
    few = {"population": 3, "scored": 5, "limit": 4, "shots": 4}
    scores = evolve(model("masked"), STORIES, chat=said, output=str(tmp_path / "run"), **few)
    assert scores["calls"] > 0
    assert any("number" in text for line in lines(tmp_path / "run") for text in line["texts"])


def optimize(*, seed_candidate: Any, adapter: Any, reflection_lm: Any, valset: Any, trainset: Any, **more: Any) -> Any:
    """Stands for the package: it looks at examples, asks for a rewriting until the budget is spent, keeps all."""
    candidates, scores, spent = [seed_candidate], [], 0
    while True:
        scores.append(sum(adapter.evaluate(valset, candidates[-1]).scores) / len(valset))
        spent += len(valset) + more["reflection_minibatch_size"]
        if spent >= more["max_metric_calls"]:
            return SimpleNamespace(candidates=candidates, val_aggregate_scores=scores)
        seen = adapter.evaluate(trainset[: more["reflection_minibatch_size"]], candidates[-1], capture_traces=True)
        (name,) = seed_candidate
        shown = adapter.make_reflective_dataset(candidates[-1], seen, [name])[name]
        assert len(shown) == len(seen.scores) == more["reflection_minibatch_size"]
        assert shown[0].keys() == {"Inputs", "Generated Outputs", "Feedback"}
        candidates.append({name: reflection_lm(f"Now yours\nPrompt: {candidates[-1][name]}")[8:-9]})


@pytest.fixture
def gepa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa", SimpleNamespace(optimize=optimize))
    monkeypatch.setitem(sys.modules, "gepa.core.adapter", SimpleNamespace(EvaluationBatch=SimpleNamespace))


@pytest.mark.usefixtures("gepa")
def test_gepa_is_handed_our_scores_and_pays_for_nothing_twice(data: Path, tmp_path: Path) -> None:
    whole, stopped, again = Paid(), Paid(30), Paid()
    scores = run(whole, data, tmp_path / "whole", evolve="gepa", population=None, scored=6)
    assert scores["plain"]["accuracy"] == 0
    assert scores["evolved"]["accuracy"] > 30
    assert scores["loss"] == min(lines(tmp_path / "whole")[0]["losses"])
    with pytest.raises(KeyboardInterrupt):
        run(stopped, data, tmp_path / "run", evolve="gepa", population=None, scored=6)
    same = evolve(again, resume=tmp_path / "run")
    assert stopped.paid - 1 + again.paid == whole.paid
    assert same["best"] == scores["best"]


def test_how_an_instruction_does_on_each_example_adds_up_to_its_loss() -> None:
    fitness = choices("masked")
    judged = fitness.judge("it was", "train", range(len(fitness.train)))
    losses = [-math.log(each.score) for each in judged]
    assert fitness.losses(["it was"]) == [pytest.approx(sum(losses) / len(losses), abs=1e-5)]
    assert judged[0].asked == fitness.plain.texts(fitness.train)[0]
    right = ("bad", "great")[fitness.train[0].label]
    assert judged[0].feedback.startswith(f"The right one is '{right}'; it was given the probability 0.")


def test_without_the_package_gepa_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    with pytest.raises(UserError, match=r"evolve: gepa needs the package of that name; pip install 'dfolora\[gepa\]'"):
        run(Paid(), data, tmp_path / "run", evolve="gepa", population=None)
    assert not (tmp_path / "run").exists()


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
