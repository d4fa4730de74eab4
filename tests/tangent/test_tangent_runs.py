"""Runs of the method tangent: what it finds, what it logs and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Runs
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from test_superglue_end_to_end import copa
from tiny_models import Tune, given, log, model
from tiny_questions import model as question_model
from tiny_questions import squad_folder
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import dfolora
from dfolora.engine.shifts import Look, ShiftEngine
from dfolora.methods.tangent import part as parts
from dfolora.problems.objectives import cross_entropy, hinge

# peft 0.21 reads a name that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

TANGENT = ["--method", "tangent", "--budget", "200", "--rounds", "2", "--directions", "2"]
ONE = ["--no-halves"]
ROUND = 2 + 4  # two directions of the one module of the upper layer, and four lengths


def flag(on: bool) -> str:
    return "--halves" if on else "--no-halves"


def rounds_of(lines: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The notes of a part's rounds."""
    return [line["note"] for line in lines if (line["note"] or {}).get("part") == number]


def adapter_of(scores: dict[str, Any]) -> dict[str, Tensor]:
    return load_file(Path(scores["adapter"]) / "adapter_model.safetensors")


def state_of(run: object) -> dict[str, Tensor]:
    return load_file(Path(str(run)) / "state.safetensors")


def plain_scores(adapter: dict[str, Tensor] | None, file: Path) -> tuple[Tensor, Tensor]:
    """Scores (N, 2) of the causal model on a csv file, and labels; by peft, without a line of this library."""
    folder = model("causal")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = tokenizer.convert_tokens_to_ids(["bad", "great"])
    if adapter is not None:
        rank = len(adapter[next(name for name in adapter if "lora_A" in name)])
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=r"model\.layers\.1\.self_attn\.o_proj")
        plain = get_peft_model(plain, config)
        set_peft_model_state_dict(plain, adapter)
    scores, labels = [], []
    for row in file.read_text(encoding="utf-8").splitlines()[1:]:
        text, label = row.rsplit(",", 1)
        batch = tokenizer(f"{text[1:-1]} It was", return_tensors="pt")
        with torch.no_grad():
            scores.append(plain.eval()(input_ids=batch["input_ids"]).logits[0, -1, words])
        labels.append(int(label))
    return torch.stack(scores), torch.tensor(labels)


# -- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq", "encoder"])
def test_the_loss_falls_below_half(tune: Tune, kind: str) -> None:
    changes = ["--rounds", 6, "--directions", 8, "--depth", 1, "--target", "o,down", "--step-size", 0.05]
    scores, lines = tune(*ONE, *changes, "--budget", 900, kind=kind)
    notes = rounds_of(lines, 0)
    assert notes[-1]["reached"] < 0.5 * notes[0]["from"]
    for line, note in zip(lines[1:], notes, strict=False):
        assert note["reached"] <= note["from"]
        assert note["promised"] < note["from"]
        assert line["losses"][-1] == pytest.approx(note["reached"]) or note["length"] == 0
    assert [note["from"] for note in notes[1:]] == [note["reached"] for note in notes[:-1]]
    found = tune.command.json("evaluate", *tune.files, "--adapter", scores["adapter"], "--split", "dev")
    assert found["metrics"] == scores["dev_tuned"]


@pytest.mark.parametrize(("kind", "halves"), [("masked", False), ("causal", True), ("encoder", True)])
def test_choices_of_their_own(tune: Tune, tmp_path: Path, kind: str, halves: bool) -> None:
    home = tmp_path / "COPA"
    home.mkdir()
    lines = "".join(json.dumps(copa(i)) + "\n" for i in range(6))
    for name in ("train", "dev32", "val"):
        (home / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    flags = ["--task", "superglue/copa", "--model", model(kind), "--data", tmp_path, *TANGENT, "--rounds", 1]
    scores = tune.command.json("tune", *flags, flag(halves), "--output", tmp_path / "run")
    *rounds, last = log(tmp_path / "run")[1:]
    assert [line["note"]["part"] for line in rounds] == [0, 1][: 1 + halves]
    least = (2 if kind == "encoder" else 1) * 2
    assert all(least < len(line["losses"]) <= least + 4 for line in rounds)  # an encoder's labels are probed, too
    assert isinstance(last["note"]["kept"], bool)
    assert scores["evaluations"] == sum(len(line["losses"]) for line in (*rounds, last))


# -- what is logged --------------------------------------------------------------------------------------------------


def test_what_is_logged_and_counted(tune: Tune, runs: Runs) -> None:
    scores, lines = runs.whole()
    *rounds, last = lines[1:]
    assert [line["note"]["part"] for line in rounds] == [0, 0, 1, 1]
    assert [line["sweep"] for line in rounds] == [1, 2, 1, 2]
    assert [line["layer"] for line in lines] == [None] * 6
    assert [line["dev"] is not None for line in lines] == [True, True, True, False, False, True]
    assert len({line["checksum"] for line in rounds}) == 4
    assert all(3 <= len(line["losses"]) <= ROUND for line in rounds)
    assert len(last["losses"]) == 1
    totals = [sum(len(line["losses"]) for line in lines[: index + 1]) for index in range(6)]
    assert [line["evaluations"] for line in lines] == totals
    look = 2 * 6 * 7  # blocks, examples and tokens
    probes = 2 * 6  # of two directions: a token of each example, in the upper block
    tokens = [line["token_layers"] for line in lines]
    costs = [after - before for before, after in itertools.pairwise(tokens)]
    moves = [len(line["losses"]) - 2 for line in rounds]
    assert costs[1] == probes + moves[1] * look
    assert costs[0] == costs[1] + (2 + moves[0] - moves[1]) * look  # before it the model as it was, on both halves
    dev = [line["dev_token_layers"] for line in lines]
    assert dev[2] == dev[-1]
    assert dev[2] - dev[1] == dev[1] - dev[0] == look
    assert lines[-1]["dev"] == lines[2]["dev"]  # of the training set's own fit: dev examples are not its judges
    assert (scores["method"], scores["subspace"], scores["backwards"]) == ("tangent", "", 0)
    card = (Path(scores["adapter"]) / "README.md").read_text(encoding="utf-8")
    assert "tangent LoRA" in card
    assert "It is the mean of two fits, to these and to the 6 dev examples" in card
    assert "Chosen on" not in card
    _, single = tune(*ONE, kind="causal")
    spared = {name: single[1][name] for name in ("checksum", "token_layers", "forwards")}
    assert single[1] == {**lines[1], **spared}  # the same directions, beside no others
    assert lines[1]["token_layers"] - single[1]["token_layers"] == look


def test_the_dev_loss_is_cross_entropy_whatever_is_minimised(tune: Tune, tmp_path: Path) -> None:
    """Also where the dev set is judged by hinge, and that at another temperature."""
    scores, lines = tune(*ONE, "--objective", "hinge", "--rounds", 1, kind="causal")
    note, last = lines[1]["note"], lines[-1]["note"]
    assert note["reached"] < note["from"]
    dev, labels = plain_scores(adapter_of(scores), tmp_path / "dev.csv")
    assert lines[1]["dev"]["loss"] == pytest.approx(float(cross_entropy(dev[None], labels).mean()), rel=1e-4)
    at = [float(hinge(dev[None] / 2 ** (half / 2), labels).mean()) for half in range(-2, 13)]
    assert last["unseen"] == pytest.approx(min(at), rel=1e-4)
    assert abs(last["unseen"] - lines[1]["dev"]["loss"]) > 0.05


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_the_least_budget_is_a_round_of_each_half_and_the_mean(tune: Tune, tmp_path: Path) -> None:
    for halves, least in ((True, 2 * ROUND + 1), (False, ROUND + 1)):
        flags = tune.flags(flag(halves), "--budget", least - 1, kind="causal")
        assert tune.command("tune", *flags, "--output", tmp_path / "never") == 2
        (line,) = tune.command.said
        assert line.startswith(f"dfolora: --budget: {least - 1} is less than one round of each half; {least} is")
        assert not (tmp_path / "never").exists()
        scores, lines = tune(flag(halves), "--budget", least, kind="causal")
        numbers = [line["note"].get("part") for line in lines[1:]]  # a round costs less where a long move is taken
        assert numbers in ([[0, 1, None], [0, 1, 1, None]] if halves else [[0, None]])
        assert scores["evaluations"] <= least


@pytest.mark.parametrize("budget", [14, 31])
def test_a_budget_is_never_exceeded_and_both_halves_get_their_share(tune: Tune, budget: int) -> None:
    scores, lines = tune("--budget", budget, "--rounds", 9, kind="causal")
    counts = [len(rounds_of(lines, number)) for number in (0, 1)]
    assert min(counts) >= max(1, (budget - 1) // 2 // ROUND)
    assert scores["evaluations"] <= budget
    assert isinstance(lines[-1]["note"]["kept"], bool)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--objective", "metric"], "--objective: the method tangent needs the class scores of every example"),
        (["--objective", "likelihood"], "--objective: likelihood is for answers of several tokens"),
        (["--directions", 17], "--directions: 17 cannot work; the adapted modules allow 1 to 16"),
        (["--no-halves", "--directions", 33], "--directions: 33 cannot work; the adapted modules allow 1 to 32"),
        (["--directions", 0], "--directions: 0 cannot work"),
        (["--target", "nothing"], "--target: the model has no linear module 'nothing'"),
        (["--promise", 1.0], "--promise: 1.0 cannot work"),
        (["--depth", 0], "--depth: 0.0 cannot work"),
        (["--rank", 4], "--rank: the method tangent does not take it"),
        (["--population", 4], "--population: the method tangent does not take it"),
        (["--batch", 4], "--batch: the method tangent does not take it"),
        (["--dev-every", 20], "--dev-every: 20 has no use in the method tangent, which scores the dev set after every"),
        (["--extend", 900], "--budget: a run of the method tangent deals it out when it begins"),
    ],
)
def test_what_it_does_not_take(tune: Tune, tmp_path: Path, changes: list[object], said: str) -> None:
    assert tune.command("tune", *tune.flags(*changes, kind="causal"), "--output", tmp_path / "never") == 2
    (line,) = tune.command.said
    assert said in line
    assert not (tmp_path / "never").exists()


def test_an_objective_of_one_s_own_needs_a_slope(tune: Tune, tmp_path: Path) -> None:
    def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
        return -(scores.argmax(-1) == labels).float()

    with pytest.raises(dfolora.UserError, match="^objective: its loss has no slope in the scores"):
        dfolora.tune(**given(tune.flags(kind="causal")), objective=accuracy, output=str(tmp_path / "run"))


def test_answers_that_are_generated_are_refused(tune: Tune, tmp_path: Path) -> None:
    data = squad_folder(tmp_path / "data")
    flags = ["--task", "squad", "--model", question_model("llama"), "--data", data, *TANGENT]
    assert tune.command("tune", *flags, "--output", tmp_path / "never") == 2
    (line,) = tune.command.said
    assert "--method: tangent needs class scores, and answers of 'squad' are generated" in line
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_probe_that_breaks_the_model_counts_for_nothing(
    tune: Tune, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    """Its direction stays where it was, and the others are fitted."""
    shifted = ShiftEngine.shifted

    def broken(self: ShiftEngine, name: str, shifts: Tensor, chosen: Tensor | None = None) -> Tensor:
        scores = shifted(self, name, shifts, chosen).clone()
        scores[0, 2] = bad
        return scores

    monkeypatch.setattr(ShiftEngine, "shifted", broken)
    scores, lines = tune(*ONE, "--rounds", 1, kind="causal")
    assert lines[1]["losses"][0] is None
    assert None not in lines[1]["losses"][1:]
    assert lines[1]["note"]["reached"] < lines[1]["note"]["from"]
    (name,) = [each for each in state_of(scores["run"]) if each.startswith("0/")]
    a = state_of(scores["run"])[name]
    assert not a[0].any()
    assert a[1].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_move_that_breaks_the_model_is_not_taken(tune: Tune, monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    """The first two lengths give scores that are no numbers: the third is taken. All four do: none is."""
    look = ShiftEngine.look
    spoilt: list[bool] = []

    def broken(self: ShiftEngine, names: list[str]) -> Look:
        found = look(self, names)
        scores = found.scores.clone()
        if spoilt and spoilt.pop(0):
            scores[1, 0] = bad
        return dataclasses.replace(found, scores=scores)

    monkeypatch.setattr(ShiftEngine, "look", broken)
    spoilt += [False, False, True, True]  # before the run, before the round, and two lengths
    _, lines = tune(*ONE, "--rounds", 1, kind="causal")
    assert lines[1]["losses"][2:4] == [None, None]
    assert lines[1]["note"]["length"] == 0.25
    spoilt += [False, False, True, True, True, True]
    scores, lines = tune(*ONE, "--rounds", 1, kind="causal")
    assert lines[1]["losses"][2:] == [None] * 4
    assert lines[1]["note"]["length"] == 0.0
    assert lines[1]["note"]["reached"] == lines[1]["note"]["from"]
    assert not any(each.any() for name, each in adapter_of(scores).items() if "lora_A" in name)
    assert scores["dev_tuned"] == scores["dev_zero_shot"]
    assert lines[-1]["note"]["unseen"] == pytest.approx(lines[-1]["note"]["before"])


def test_lengths_are_tried_until_one_is_better(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LENGTHS", (0.0, 0.0, 1.0, 0.5))
    _, lines = tune(*ONE, "--rounds", 1, kind="causal")
    note, losses = lines[1]["note"], lines[1]["losses"]
    assert losses[2:4] == pytest.approx([note["from"]] * 2)  # no better than none
    assert losses[4:] == pytest.approx([note["reached"]])
    assert note["reached"] < note["from"]
    assert note["length"] == 1.0


# -- what the user reads ---------------------------------------------------------------------------------------------


def test_what_the_user_reads(tune: Tune, tmp_path: Path) -> None:
    assert tune.command("tune", *tune.flags(kind="causal"), "--output", tmp_path / "run") == 0
    assert "tangent LoRA" in tune.command.err
    assert "sweep " in tune.command.err
    with pytest.raises(SystemExit):
        tune.command("tune", "--method", "tangent", "--help")
    tune.command.out = tune.command.capsys.readouterr().out
    for name in ("directions", "promise", "enough", "step-size", "rounds", "halves", "depth", "target"):
        assert f"--{name} " in tune.command.out.replace(",", " ")
    for name in ("population", "rank", "sigma", "optimizer", "subspace"):
        assert f"--{name} " not in tune.command.out
