"""Tasks written for lm-evaluation-harness: their prompts, choices and results are ours; and the harness agrees."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import jinja2
import pytest
import tiny_questions
import torch
import yaml
from test_merge import adapted
from tiny_models import Command, csv_files, model
from tiny_questions import squad_folder

import dfolora
from dfolora import Example, Task
from dfolora.models.load import open_model
from dfolora.problems.encode import PromptEncoder
from dfolora.tasks.metrics import squad
from dfolora.tools.lm_eval import export, jinja, task_files

FUNCTIONS = runpy.run_path(str(Path(dfolora.__file__).parent / "tools" / "lm_eval_results.py"))


class Reader(yaml.SafeLoader):
    pass


Reader.add_constructor("!function", lambda reader, node: node.value)


def read(folder: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a task file says, and its lines."""
    lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    return yaml.load((folder / f"{name}.yaml").read_text("utf-8"), Reader), [json.loads(line) for line in lines]


def rendered(template: str, line: dict[str, Any]) -> str:
    """As the harness fills a template."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(**line)


def own(template: str, examples: list[Example], words: Any = ("bad", "great")) -> tuple[PromptEncoder, Any]:
    task = Task.from_examples(examples, template=template, words=words, name="own")
    return PromptEncoder(open_model(model("causal")), task), examples


@pytest.mark.parametrize(
    "template",
    [
        "{text} It was {mask}",
        "{{ {text} }} {{% x %}} it was {mask}",
        "{a b}{text}\nAnswer:\n{mask}",
        "{label} and {text}: {mask}",
        "{text}{mask}",
    ],
)
def test_the_prompt_is_ours_to_the_letter(template: str) -> None:
    texts = ["  a film, warm  ", "{{ 7 * 7 }}", "{% raw %} \n two lines ", "é ☃ 😀"]
    examples = [Example({"text": text, "a b": "why?", "label": "x"}, i % 2) for i, text in enumerate(texts)]
    encoder, examples = own(template, examples)
    files = task_files(encoder, examples)
    says = yaml.load(files["dfolora_own.yaml"], Reader)
    lines = [json.loads(line) for line in files["dfolora_own.jsonl"].splitlines()]
    assert [rendered(says["doc_to_text"], line) for line in lines] == encoder.texts(examples)
    assert [line["label"] for line in lines] == [0, 1, 0, 1]
    spaced = template.endswith((" {mask}", "{text}{mask}"))
    assert says["target_delimiter"] == (" " if spaced else "")
    assert says["doc_to_choice"] == ["bad", "great"]


def test_a_long_prompt_is_cut_as_here() -> None:
    examples = [Example({"text": "film " * 400, "end": "now"}, 0), Example({"text": "good", "end": "now"}, 1)]
    encoder, _ = own("{text} {end} It was {mask}", examples)
    line = json.loads(task_files(encoder, examples)["dfolora_own.jsonl"].splitlines()[0])
    text = rendered(jinja("{text} {end} It was", {"text": "text", "end": "end"}), line)
    assert encoder.words.ids(text, special=True) == encoder.prompts(examples)[0]
    assert 200 < len(line["text"].split()) < 300


def test_choices_carry_their_space_tokens_and_class() -> None:
    examples = [
        Example({"text": "it is"}, 1, choices=("a dog", "cat", "the sea"), choice_class=(0, 1, 0)),
        Example({"text": 'she said "'}, 0, choices=("yes", "no way"), gold=("no way", "nothing")),
    ]
    encoder, _ = own("{text} {mask}", examples, None)
    first, second = (json.loads(line) for line in task_files(encoder, examples)["dfolora_own.jsonl"].splitlines())
    assert first["choices"] == [" a dog", " cat", " the sea"]
    assert (first["tokens"], first["classes"], first["right"], first["label"]) == ([2, 1, 2], [0, 1, 0], [1], 1)
    assert (second["right"], second["label"]) == ([1], 1)
    choice = FUNCTIONS["choice"]
    assert choice(first, [(-2.0, False), (-1.5, False), (-4.0, False)]) == {"acc": 0.0}  # -1 a token beats -1.5
    assert choice(first, [(-4.0, False), (-1.5, False), (-4.0, False)]) == {"acc": 1.0}


def test_generated_answers_are_measured_as_here() -> None:
    gold = ("The Sea", "a red boat")
    for text in ("the sea.", " red boat\nand more", "a big red boat", "nothing", ""):
        ours = squad([Example({}, 0, gold=gold)], [text.split("\n")[0]])
        found = FUNCTIONS["text"]({"gold": gold}, [text])
        assert {name: 100 * value for name, value in found.items()} == pytest.approx(ours), text


def test_export_by_command(command: Command, tmp_path: Path) -> None:
    data, reader = squad_folder(tmp_path / "data"), tiny_questions.model("llama")
    named = ["export", "--model", reader, "--data", data]
    facts = command.json(*named, "--tasks", "squad", "--lm-eval", tmp_path / "out")
    assert list(facts["tasks"]) == ["dfolora_squad"]
    assert f"--include_path {tmp_path / 'out'}" in facts["command"]
    says, lines = read(tmp_path / "out", "dfolora_squad")
    assert says["generation_kwargs"] == {"until": ["\n"], "do_sample": False, "max_gen_toks": 50}
    assert len(lines) == facts["tasks"]["dfolora_squad"]
    assert all(line["gold"] for line in lines)
    assert rendered(says["doc_to_text"], lines[0]).endswith("\nAnswer:")

    every = command.json(*named, "--tasks", "all", "--lm-eval", tmp_path / "every")
    assert list(every["tasks"]) == ["dfolora_squad"]
    assert "no data" in every["left_out"]["superglue/rte"]
    assert "causal" in every["left_out"]["demo/pair"]

    for more, message in (
        (["--tasks", "squad", "--lm-eval", tmp_path / "out"], "--lm-eval: .* is not empty"),
        (["--tasks", "squda", "--lm-eval", tmp_path / "new"], "did you mean 'squad'"),
        (["--tasks", "demo/pair", "--lm-eval", tmp_path / "new"], "no prompt for a causal model"),
        (["--tasks", "squad"], "--lm-eval: where to"),
    ):
        assert command(*named, *more) == 2
        assert re.search(message, command.err), command.err
    assert command("export", "--model", model("masked"), "--tasks", "squad", "--lm-eval", tmp_path / "new") == 2
    assert "is a masked model" in command.err
    assert not (tmp_path / "new").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_harness_says_what_we_say(tmp_path: Path) -> None:
    """Predictions and margins of an adapter on a tiny model, in lm-evaluation-harness itself."""
    pytest.importorskip("lm_eval", reason="pip install 'lm_eval[hf]'")
    from scripts import agree_lm_eval

    adapter = adapted("causal", tmp_path / "adapter", 1.0)
    flags = csv_files(tmp_path)
    options = {"model": model("causal"), "template": flags[1], "label_words": flags[3], "test_file": flags[-1]}
    made = export(lm_eval=tmp_path / "out", **options)
    (name,) = made["tasks"]
    mine = agree_lm_eval.ours("", {**options, "adapter": adapter, "dtype": "float32"}, tmp_path)
    logged = agree_lm_eval.theirs(model("causal"), adapter, made["folder"], [name])[name]
    found = agree_lm_eval.compare(mine, logged)
    assert found["examples"] == found["equal"] == 12
    assert found["difference"] < 1e-4 < 0.1 < found["spread"]
    torch.set_num_threads(1)
