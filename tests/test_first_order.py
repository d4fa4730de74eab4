"""AdamW on LoRA: the steps are those of a plain loop, and the run around them is that of the search."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny_models import FIRST_ORDER, SHOTS, SMALL, Command, StopAt, Tune, given, log, model, rows
from transformers import AutoModelForMaskedLM, AutoTokenizer

import dfolora
from dfolora.methods import gradient
from dfolora.methods.first_order import FirstOrder
from dfolora.runs.folder import Run
from dfolora.settings.build import tune_settings

# peft 0.21 reads a name that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# Generations of three evaluations: the gradient's, and in turn a pool of two and the pair that it guides.
HYBRID = ["--method", "hybrid", "--rho", "0.6", "--optimizer", "guided", "--population", "2", "--dev-every", "12"]


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tune:
    return Tune(Command(capsys), tmp_path, FIRST_ORDER)


def plain_loop(folder: str, start: dict[str, torch.Tensor], steps: int, lr: float, decay: float) -> tuple[Any, Any]:
    """Losses and weights of AdamW on PEFT's LoRA of the tiny masked model, without a line of this library."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForMaskedLM.from_pretrained(folder)
    lora = get_peft_model(base, LoraConfig(r=2, lora_alpha=2, target_modules=["query", "key"])).eval()
    weights = {name: p for name, p in lora.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, weight in weights.items():
            if "lora_A" in name:
                weight.copy_(start[name.split(".lora_A")[0].removeprefix("base_model.model.")])
            else:
                assert not weight.any()  # PEFT's own start of B
    words = tokenizer.convert_tokens_to_ids(["bad", "great"])
    optimizer = torch.optim.AdamW(weights.values(), lr=lr, weight_decay=decay)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        total: Any = 0
        for text, label in list(rows())[:SHOTS]:
            batch = tokenizer(f"{text} It was {tokenizer.mask_token}.", return_tensors="pt")
            place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
            scores = lora(input_ids=batch["input_ids"]).logits[0, place, words]
            total = total - scores.log_softmax(-1)[int(label)] / SHOTS
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    return losses, weights


@pytest.mark.parametrize("chunk_tokens", [0, 25])
def test_steps_are_those_of_a_plain_loop(tune: Tune, monkeypatch: pytest.MonkeyPatch, chunk_tokens: int) -> None:
    start: dict[str, torch.Tensor] = {}
    made = FirstOrder.__init__

    def seen(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        start.update({name: module.factors()[0].detach().clone() for name, module in self.modules.items()})

    monkeypatch.setattr(FirstOrder, "__init__", seen)
    changes = ["--budget", 5, "--dev-every", 5, "--weight-decay", 0.3]
    changes += ["--chunk-tokens", chunk_tokens] if chunk_tokens else []
    scores, lines = tune(*changes)
    # As PEFT starts it: uniform in +-1/sqrt(in), every module by itself.
    drawn = torch.stack(list(start.values()))
    assert float(drawn.abs().max()) == pytest.approx(32**-0.5, rel=0.05)
    assert float(drawn.std()) == pytest.approx((3 * 32) ** -0.5, rel=0.1)
    assert len(drawn.flatten().unique()) > 0.99 * drawn.numel()
    losses, weights = plain_loop(model("masked"), start, 5, 0.01, 0.3)
    assert [line["losses"][0] for line in lines[1:]] == pytest.approx(losses, rel=1e-4)
    state = load_file(Path(scores["run"]) / "state.safetensors")
    for name, weight in weights.items():
        module, side = name.removeprefix("base_model.model.").split(".lora_")
        # AdamW divides by the gradient's size: where that is next to nothing, rounding decides
        torch.testing.assert_close(state[f"now/{module}/{side[0].lower()}"], weight.detach(), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("objective", ["cross-entropy", "hinge"])
@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq", "encoder"])
def test_the_loss_falls(tune: Tune, kind: str, objective: str) -> None:
    scores, lines = tune("--objective", objective, kind=kind)
    losses = [line["losses"][0] for line in lines[1:]]
    assert losses[-1] < 0.3 * losses[0]
    assert scores["selected_at"] > 0
    on_dev = tune.command.json("evaluate", *tune.files, "--adapter", scores["adapter"], "--split", "dev")
    assert on_dev["metrics"] == scores["dev_tuned"]
    best = max((line for line in lines if line["dev"]), key=lambda x: (x["dev"]["main"], -x["dev"]["loss"]))
    assert (scores["selected_at"], scores["dev_tuned"]["accuracy"]) == (best["evaluations"], best["dev"]["main"])


def test_what_is_logged_and_counted(tune: Tune) -> None:
    scores, lines = tune("--budget", 10)
    assert [line["evaluations"] for line in lines] == list(range(11))
    assert [line["forwards"] for line in lines] == [line["backwards"] for line in lines] == list(range(11))
    assert [line["generation"] for line in lines if line["dev"]] == [0, 4, 8]
    assert [line["layer"] for line in lines] == [None] * 11
    assert len({line["checksum"] for line in lines}) == 11
    tokens = 6 * 10  # six prompts of at most ten tokens, in one forward
    assert [line["token_layers"] for line in lines] == [3 * 2 * tokens * step for step in range(11)]
    assert (scores["method"], scores["optimizer"], scores["subspace"]) == ("first-order", "adamw", "")
    assert (scores["evaluations"], scores["forwards"], scores["backwards"]) == (10, 10, 10)
    assert scores["token_layers"] == lines[-1]["token_layers"]
    card = (Path(scores["adapter"]) / "README.md").read_text(encoding="utf-8")
    assert "first-order LoRA, adamw" in card
    assert "without gradients" not in card
    position = tune.base.index("--dev-every")
    tune.base = [*tune.base[:position], *tune.base[position + 2 :]]  # 20 looks in all
    _, lines = tune("--budget", 60)
    assert [line["generation"] for line in lines if line["dev"]] == list(range(0, 61, 3))


def test_the_base_model_is_where_it_starts_and_a_candidate(tune: Tune) -> None:
    scores, lines = tune("--lr", 1e-12)  # nothing moves
    losses = {round(line["losses"][0], 4) for line in lines[1:]}
    assert len(losses) == 1
    assert scores["dev_tuned"] == scores["dev_zero_shot"]
    assert scores["tuned"] == scores["zero_shot"]
    tune.base = SMALL
    _, (_, searched, *_) = tune("--sigma", 1e-6)
    assert searched["losses"][0] == pytest.approx(losses.pop(), abs=1e-3)


def test_a_loss_that_is_no_number_ends_the_run(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    call, calls = gradient.Gradient.__call__, iter(range(100))

    def spoilt(self: Any, objective: Any) -> torch.Tensor:
        return call(self, objective) * (math.nan if next(calls) == 9 else 1)

    monkeypatch.setattr(gradient.Gradient, "__call__", spoilt)
    scores, lines = tune()
    assert [line["losses"][0] is None for line in lines[1:]] == [False] * 9 + [True]
    assert "lower lr?" in tune.command.err
    assert scores["evaluations"] == 10
    assert scores["dev_tuned"]["accuracy"] >= scores["dev_zero_shot"]["accuracy"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--objective", "metric"], "--objective: metric has no gradient"),
        (["--optimizer", "spsa"], "--optimizer: the method first-order does not take it; it is for search, hybrid"),
        (["--preset", "mezo-lora"], "--preset: mezo-lora is for the method search, not for first-order"),
        (["--subspace", "lora"], "--subspace: the method first-order does not take it; it is for search"),
        (["--population", "4"], "--population: the method first-order does not take it"),
        (["--sigma", "0.5"], "--sigma: the method first-order does not take it"),
        (["--mode", "joint"], "--mode: the method first-order does not take it"),
        (["--selection", "sample"], "--selection: the method first-order does not take it"),
        (["--engine", "sequential"], "--engine: the method first-order does not take it"),
        (["--update", "sgd"], "--update: the method first-order does not take it"),
        (["--rho", "0.5"], "--rho: the method first-order does not take it; it is for hybrid"),
        (["--batch", "4"], "--batch: the method first-order does not take it; it is for search, full-parameter"),
        (["--antithetic"], "--antithetic"),
        (["--lr", "inf"], "--lr: inf"),
        (["--lr", "0"], "--lr: 0.0 cannot work"),
        (["--weight-decay", "-1"], "--weight-decay: -1"),
        (["--method", "second-order"], "--method: unknown 'second-order'"),
        (["--method", "search"], "--lr: cma does not take it"),
    ],
)
def test_what_it_does_not_take(tune: Tune, tmp_path: Path, changes: list[str], said: str) -> None:
    output = tmp_path / "run"
    assert tune.command("tune", *tune.flags(*changes), "--output", output) == 2
    assert said in tune.command.err
    assert len(tune.command.said) == 1
    assert not output.exists()


# -- interruption ---------------------------------------------------------------------------------------------------


def assert_same(first: object, second: object) -> None:
    """Two runs with the same log, adapter and scores, but for the clock."""
    assert log(first) == log(second)
    found = []
    for run in (Path(str(first)), Path(str(second))):
        scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
        weights = (run / "adapter" / "adapter_model.safetensors").read_bytes()
        found.append((weights, {k: v for k, v in scores.items() if k not in ("seconds", "run", "adapter")}))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "kind"), [([], "masked"), ([], "causal"), (HYBRID, "masked"), ([*HYBRID, "--budget", "90"], "seq2seq")]
)
@pytest.mark.parametrize("stop", [0, 3, 4, 10, 30])
def test_goes_on_from_anywhere(tune: Tune, tmp_path: Path, stop: int, changes: list[str], kind: str) -> None:
    """Before the first look, at a look, after some, and when nothing is left to do but the scores."""
    scores, lines = tune(*changes, kind=kind)
    stop = min(stop, len(lines) - 1)
    options = given(tune.flags(*changes, kind=kind)) | {"output": str(tmp_path / "cut")}
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**options, listener=StopAt(stop))
    assert log(tmp_path / "cut") == lines[: stop + 1]
    assert (tmp_path / "cut" / "state.safetensors").exists() == any(line["dev"] for line in lines[1 : stop + 1])
    run = Run.open(tmp_path / "cut")
    assert run.settings == tune_settings(**options)
    run.close()
    dfolora.tune(resume=tmp_path / "cut")
    assert_same(scores["run"], tmp_path / "cut")


def test_a_killed_process_goes_on(tune: Tune, tmp_path: Path) -> None:
    flags = [*tune.flags("--budget", 300, "--dev-every", 7, kind="causal"), "--json"]
    command = [sys.executable, "-m", "dfolora", "tune", *map(str, flags), "--output", str(tmp_path / "cut")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: the number of threads shows in the last digits
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    file = tmp_path / "cut" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_bytes().count(b"\n") > 20) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    tune.command.json("tune", "--resume", tmp_path / "cut")
    scores, _ = tune("--budget", 300, "--dev-every", 7, kind="causal")
    assert_same(scores["run"], tmp_path / "cut")


def interrupted(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    call, calls = gradient.Gradient.__call__, iter(range(100))

    def stopped(self: Any, objective: Any) -> torch.Tensor:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return call(self, objective)

    with monkeypatch.context() as patch:
        patch.setattr(gradient.Gradient, "__call__", stopped)
        assert tune.command("tune", *tune.flags(), "--output", tmp_path / "cut") == 130
    assert "go on with" in tune.command.err
    return tmp_path / "cut"


def test_damaged_states_are_refused(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupted(tune, tmp_path, monkeypatch)
    file, lines = run / "state.safetensors", (run / "log.jsonl").read_text(encoding="utf-8")
    whole = file.read_bytes()
    other = whole[:-1] + bytes([whole[-1] ^ 128])  # the sign of a weight
    for content, said in ((b"nonsense", "damaged"), (whole[:-9], "damaged"), (other, "not the one")):
        file.write_bytes(content)
        assert tune.command("tune", "--resume", run) == 2
        assert "dfolora: --resume: " in tune.command.err
        assert said in tune.command.err
        assert (run / "log.jsonl").read_text(encoding="utf-8") == lines
    file.write_bytes(whole)
    (run / "log.jsonl").write_text("".join(lines.splitlines(keepends=True)[:6]), encoding="utf-8")
    assert tune.command("tune", "--resume", run) == 2
    assert "of generation '8', which the log does not have" in tune.command.err
    (run / "log.jsonl").write_text(lines, encoding="utf-8")
    again = tune.command.json("tune", "--resume", run)
    assert f"resuming {run} after " in tune.command.err
    assert_same(tune()[0]["run"], again["run"])
