"""MeZO's forms of the tasks: what a causal model reads, letter by letter, and what is scored behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models_zoo import ZOO, build
from tiny_models import Command, model
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as token_models
from toy_scorers import scorer, text
from toy_tokenizers import gpt2_like, roberta_like
from transformers import PreTrainedTokenizerFast

from dfolora.engine import Engine, SequentialEngine
from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Task
from dfolora.tasks import get_task
from dfolora.tasks.common import Source
from dfolora.tasks.metrics import accuracy

STORY = "Ann met Bob in Rome.\n@highlight\nThey ate\n@highlight\nIt rained"
SPANS = [{"start": STORY.index(name), "end": STORY.index(name) + len(name) - 1} for name in ("Ann", "Bob", "Rome")]
ANSWERS = [{"text": "Bob", "label": 1, "idx": 0}, {"text": "Eve", "label": 0, "idx": 1}]
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "sst2": ("SST-2", {"sentence": "a fine film", "label": 1}),
    "rte": ("RTE", {"premise": "It rained.", "hypothesis": "It was wet.", "label": "not_entailment"}),
    "cb": ("CB", {"premise": "He said it rained.", "hypothesis": "it rained", "label": "neutral"}),
    "boolq": ("BoolQ", {"passage": "Rain is wet.", "question": "is rain wet", "label": True}),
    "wsc": (
        "WSC",
        {"text": "Bob saw it. He ran.", "label": True, "target": {"span1_text": "Bob", "span2_text": "He"}},
    ),
    "wic": ("WiC", {"word": "run", "sentence1": "They ran.", "sentence2": "A run.", "label": False}),
    "multirc": (
        "MultiRC",
        {"idx": 0, "passage": {"text": STORY[:20], "questions": [{"question": "Who?", "idx": 0, "answers": ANSWERS}]}},
    ),
    "copa": (
        "COPA",
        {"premise": "It rained.", "choice1": "I stayed.", "choice2": "The TV broke.", "question": "effect", "label": 1},
    ),
    "record": (
        "ReCoRD",
        {
            "passage": {"text": STORY, "entities": SPANS},
            "qas": [{"query": "Then @placeholder left.", "idx": 0, "answers": [{"text": "Bob"}]}],
        },
    ),
}
# What the model reads, the options that are scored behind it, and the right one.
READ: dict[str, tuple[str, list[str], int]] = {
    "sst2": ("a fine film It was", [" terrible", " great"], 1),
    "rte": ('It rained.\nDoes this mean that "It was wet." is true? Yes or No?\n', ["Yes", "No"], 1),
    "cb": (
        'Suppose He said it rained. Can we infer that "it rained"? Yes, No, or Maybe?\n',
        ["Yes", "No", "Maybe"],
        2,
    ),
    "boolq": ("Rain is wet. Is rain wet?\n", ["No", "Yes"], 1),
    "wsc": (
        'Bob saw it. He ran.\nIn the previous sentence, does the pronoun "he" refer to Bob? Yes or No?\n',
        ["No", "Yes"],
        1,
    ),
    "wic": (
        'Does the word "run" have the same meaning in these two sentences? Yes, No?\nThey ran.\nA run.\n',
        ["No", "Yes"],
        0,
    ),
    "multirc": (
        'Ann met Bob in Rome.\nQuestion: Who?\nI found this answer "Bob". Is that correct? Yes or No?\n',
        ["No", "Yes"],
        1,
    ),
    "copa": ("It rained so", [" I stayed.", " the TV broke."], 1),
    "record": (
        "Ann met Bob in Rome.\n- They ate\n- It rained\n-",
        [" Then Ann left.", " Then Bob left.", " Then Rome left."],
        1,
    ),
}


@pytest.fixture
def long_gpt2(monkeypatch: pytest.MonkeyPatch) -> models.LanguageModel:
    """Byte-level pieces, in which nothing is lost, and room for whole prompts."""
    monkeypatch.setitem(ZOO, "gpt2", (*ZOO["gpt2"][:3], {**ZOO["gpt2"][3], "n_positions": 400}))
    tokenizer = gpt2_like(400)
    # Label words are to be one token each.
    tokenizer.add_tokens(["Yes", "No", "Maybe", " terrible", " great"])
    return models.wrap(build("gpt2", vocabulary=len(tokenizer)), tokenizer, "causal", "toy")


def data(folder: Path, name: str) -> Path:
    home, row = ROWS[name]
    (folder / home).mkdir()
    if name == "sst2":
        (folder / home / "test.tsv").write_text(
            "sentence\tlabel\n{sentence}\t{label}\n".format(**row), encoding="utf-8"
        )
    else:
        (folder / home / "val.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / home / "train.jsonl").touch()
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_what_is_read(name: str, tmp_path: Path, long_gpt2: models.LanguageModel) -> None:
    task = get_task(f"mezo/{name}")
    example = task.load("test", Source(data(tmp_path, name)))[0]
    prompt, options, label = READ[name]
    it = PromptEncoder(long_gpt2, task)
    decode = it.tokenizer.decode
    rows = it.encode([example])
    assert example.label == label
    ids, length = rows.inputs["input_ids"][0], int(rows.positions[0, 0]) + 1
    assert decode(ids[:length].tolist()) == prompt
    if rows.columns is not None:
        assert [decode([token]) for token in rows.columns.tolist()] == options
        assert length == int(rows.lengths[0])
    else:
        assert rows.targets is not None
        assert [decode([t for t in row if t >= 0]) for row in rows.targets.tolist()] == options
        assert [pair[1] for pair in rows.owner.tolist()] == list(range(len(options)))


def test_metrics_and_classes() -> None:
    for name in ROWS:
        task = get_task(f"mezo/{name}")
        other = get_task("glue/sst2" if name == "sst2" else f"superglue/{name}")
        assert task.classes == other.classes
        assert task.measure is (other.measure if name == "record" else accuracy)


def test_record_trains_on_ten_choices(tmp_path: Path) -> None:
    names = [f"N{chr(65 + i)}" for i in range(15)]
    body = ", ".join(names) + " met.\n@highlight\nThey met"
    spans = [{"start": body.index(name), "end": body.index(name) + 1} for name in names]
    row = {
        "passage": {"text": body, "entities": spans},
        "qas": [{"query": "@placeholder left.", "idx": 0, "answers": [{"text": "NB"}]}],
    }
    (tmp_path / "ReCoRD").mkdir()
    (tmp_path / "ReCoRD" / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (mine,), (theirs,) = (get_task(f"{room}/record").load("train", Source(tmp_path)) for room in ("mezo", "superglue"))
    assert mine.choices == theirs.choices
    assert len(mine.choices or ()) == 10
    assert mine.fields["passage"] == body.replace("@highlight\n", "- ")


# -- a line's end before the answer ----------------------------------------------------------------------------------


def test_a_line_end_survives() -> None:
    """For a causal model; nothing changes where a template has none, and a text's own are stripped as ever."""
    for template, words, prompt, label in (
        ("{text}?\n{mask}", ("yes", "no"), "the film?\n", "yes"),
        ("{text}?\n\n{mask}", ("yes", "no"), "the film?\n\n", "yes"),
        ("{text}?\n {mask}", ("yes", "no"), "the film?\n", "Ġyes"),
        ("{text}? {mask}", ("yes", "no"), "the film?", "Ġyes"),
        ("{text} {mask}", ("yes", "no"), "the film", "Ġyes"),
    ):
        it = scorer(gpt2_like, template, words)
        rows = it.encode([text("the film\n" if template == "{text} {mask}" else "the film")])
        assert it.tokenizer.decode(rows.inputs["input_ids"][0].tolist()) == prompt
        assert it.tokenizer.convert_ids_to_tokens(rows.columns.tolist())[0] == label  # type: ignore[union-attr]


def test_sentencepiece_puts_no_space_behind_a_line_end() -> None:
    """Llama's tokenizer begins every text with a space piece; in the prompt the answer has none."""
    pieces = ["<unk>", "</s>", "▁", "▁Yes", "Yes", "▁No", "No", "\n", "▁the", "▁film", "?"]
    tokenizer = Tokenizer(token_models.Unigram([(piece, -float(len(pieces) - len(piece))) for piece in pieces], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=60, unk_token="<unk>", pad_token="</s>"
    )
    language_model = models.wrap(build("llama"), wrapped, "causal", "toy")
    for template, expected in (("{text}?\n{mask}", ["Yes", "No"]), ("{text}? {mask}", ["▁Yes", "▁No"])):
        prompt = get_task("mezo/rte").prompts["causal"]
        task = Task("toy", (), {"causal": type(prompt)(template, ("Yes", "No"))}, load=list, measure=lambda *_: {})
        it = PromptEncoder(language_model, task)
        assert wrapped.convert_ids_to_tokens(it.label_tokens) == expected
        ids = it.encode([text("the film")]).inputs["input_ids"][0].tolist()
        whole = wrapped("the film?\nYes" if "\n" in template else "the film? Yes")["input_ids"]
        assert [*ids, it.label_tokens[0]] == whole  # type: ignore[index]


# -- scoring and tuning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["record", "copa"])
def test_the_prompt_is_shared(name: str, tmp_path: Path, long_gpt2: models.LanguageModel) -> None:
    task = get_task(f"mezo/{name}")
    it = PromptEncoder(long_gpt2, task)
    rows = it.encode(task.load("test", Source(data(tmp_path, name))))
    adapter = adapters.attach(it.language_model)
    engine, single = Engine(adapter, rows), SequentialEngine(adapter, rows)
    assert (engine.rows.count, single.rows.count) == (1, len(READ[name][1]))
    assert torch.allclose(engine.incumbent_scores(), single.incumbent_scores(), rtol=1e-4)


@pytest.mark.parametrize("name", ["copa", "record"])
def test_tuned_by_likelihood(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The engine and one candidate at a time log the same losses; first-order steps bring it down."""
    folder = data(tmp_path, name)
    home = folder / ROWS[name][0]
    for split in ("train", "dev32"):
        (home / f"{split}.jsonl").write_text(json.dumps(ROWS[name][1]) + "\n", encoding="utf-8")
    command = Command(capsys)
    flags = ["--task", f"mezo/{name}", "--model", model("causal"), "--data", folder, "--objective", "likelihood"]
    small = ["--budget", "8", "--population", "4", "--subspace-dim", "16", "--rank", "2"]
    losses = {}
    for engine in ("batched", "sequential"):
        output = tmp_path / engine
        command.json("tune", *flags, *small, "--engine", engine, "--output", output)
        log = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        losses[engine] = [loss for line in log[1:] for loss in line["losses"]]
        assert len(set(losses[engine])) == 8
    assert losses["batched"] == pytest.approx(losses["sequential"], rel=1e-5)
    output = tmp_path / "first"
    command.json("tune", *flags, "--method", "first-order", "--budget", "6", "--rank", "2", "--output", output)
    log = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert log[-1]["losses"][0] < log[1]["losses"][0]


def test_likelihood_needs_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data(tmp_path, "rte")
    other = {**ROWS["rte"][1], "label": "entailment"}
    for split in ("train", "dev32"):
        lines = "".join(json.dumps(row) + "\n" for row in (ROWS["rte"][1], other))
        (folder / "RTE" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    command = Command(capsys)
    flags = ["--task", "mezo/rte", "--model", model("causal"), "--data", folder, "--objective", "likelihood"]
    assert command("tune", *flags, "--budget", "8", "--population", "4", "--output", tmp_path / "run") != 0
    assert "--objective: likelihood is for answers" in command.err


def test_other_kinds_are_refused() -> None:
    masked = scorer(roberta_like).language_model
    with pytest.raises(UserError, match="'mezo/rte' has no prompt for a masked model, only causal"):
        PromptEncoder(masked, get_task("mezo/rte"))
