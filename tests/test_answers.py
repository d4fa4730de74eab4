"""What a generation task is taught, what its answers are, and that a broken adapter is never kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from models_zoo import build
from plain_reading import farthest, one_by_one
from tiny_questions import model, record
from toy_tokenizers import gpt2_like, toy

from dfolora import load_model
from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.log import Line
from dfolora.methods.full_parameter import rows_loss
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models.adapter import Adapter
from dfolora.models.load import LanguageModel
from dfolora.problems.answers import Answers, stop_tokens
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import likelihood, make_objective
from dfolora.problems.selection import Selection
from dfolora.task import Example
from dfolora.tasks.squad import TASK, examples

EXAMPLES = [example for i in range(4) for example in examples(record(i))]


@pytest.fixture
def reader() -> tuple[LanguageModel, Adapter, PromptEncoder]:
    language_model = load_model(model("gpt2"))
    return language_model, adapters.attach(language_model, 2), PromptEncoder(language_model, TASK)


def test_the_loss_is_that_of_the_answers_tokens(reader: tuple[LanguageModel, Adapter, PromptEncoder]) -> None:
    """Mean over examples of the mean negative log-probability of " first gold text" and the line's end."""
    language_model, adapter, scorer = reader
    losses = []
    for example in EXAMPLES:
        prompt = TASK.prompts["causal"].template.format(mask="", **example.fields).strip()
        ids = language_model.tokenizer(f"{prompt} {example.gold[0]}\n", return_tensors="pt")["input_ids"]
        start = len(language_model.tokenizer(prompt)["input_ids"])
        with torch.no_grad():
            chances = language_model.model(ids).logits[0].double().log_softmax(-1)
        losses.append(-sum(chances[i - 1, ids[0, i]] for i in range(start, ids.shape[1])) / (ids.shape[1] - start))
    expected = float(sum(losses)) / len(losses)
    rows, labels = scorer.encode(EXAMPLES), scorer.labels(EXAMPLES)
    scores = Engine(adapter, rows).incumbent_scores()
    assert scores.shape == (4, 1)
    assert float(likelihood(scores[None], labels).mean()) == pytest.approx(expected, rel=1e-5)
    assert float(rows_loss(load_model(model("gpt2")), rows, labels)()) == pytest.approx(expected, rel=1e-5)


def test_a_population_reads_as_one_by_one(reader: tuple[LanguageModel, Adapter, PromptEncoder]) -> None:
    _, adapter, scorer = reader
    rows = scorer.encode(EXAMPLES)
    factors = {
        name: (torch.randn(3, *module.factors()[0].shape), torch.randn(3, *module.factors()[1].shape))
        for name, module in adapter.layers[1].modules.items()
    }
    scores = Engine(adapter, rows).scores(factors)
    assert farthest(scores, one_by_one(adapter, rows, factors)) < 1e-3
    assert likelihood(scores, scorer.labels(EXAMPLES)).mean(1).tolist() == pytest.approx(
        (-scores).mean((1, 2)).tolist()
    )


def test_objectives() -> None:
    scores = torch.tensor([[[-1.0], [-2.0]], [[-0.5], [torch.nan]]])
    objective = make_objective("cross-entropy", TASK)(EXAMPLES[:2])
    assert str(objective(scores, torch.zeros(2, dtype=torch.long)).mean(1).tolist()) == "[1.5, nan]"
    with pytest.raises(UserError, match=r"^objective: hinge compares classes"):
        make_objective("hinge", TASK)
    with pytest.raises(UserError, match="unknown 'hing'"):
        make_objective("hing", TASK)


def test_an_example_without_gold(reader: tuple[LanguageModel, Adapter, PromptEncoder]) -> None:
    with pytest.raises(UserError, match="no gold text"):
        reader[2].encode([replace(EXAMPLES[0], gold=())])


def test_taught_and_generated_answers_follow_the_same_prompt() -> None:
    """Cut at the passage, so that the question and fifty new tokens fit."""
    language_model = models.wrap(build("gpt2", vocabulary=700), gpt2_like(), "causal", "toy")
    scorer = PromptEncoder(language_model, replace(TASK, new_tokens=8), max_length=60)
    fields = {"title": "film", "passage": "the film was great " * 9, "question": "was it good"}
    example = Example(fields, 0, gold=("yes",))
    (prompt,) = scorer.prompts([example])
    rows = scorer.encode([example])
    taught = rows.inputs["input_ids"][0].tolist()
    answer = rows.targets[0].tolist() if rows.targets is not None else []
    assert len(prompt) <= 52
    assert taught == prompt + answer[:-1]
    text = language_model.tokenizer.decode(prompt)
    assert text.startswith("Title: film\nContext: the film was great the")
    assert text.endswith("\nQuestion: was it good\nAnswer:")
    assert language_model.tokenizer.decode(answer) == " yes\n"


def test_every_token_with_a_lines_end_stops() -> None:
    language_model = models.wrap(build("gpt2", vocabulary=700), toy(gpt2_like), "causal", "toy")
    tokenizer = language_model.tokenizer
    expected = {i for i in range(len(tokenizer)) if "\n" in tokenizer.decode([i])} | {tokenizer.eos_token_id}
    assert stop_tokens(language_model) == expected
    assert len(expected) > 1
    language_model.model.generation_config.eos_token_id = [3, 9]
    assert stop_tokens(language_model) == expected | {3, 9}


class Says:
    """Stands where a generator would: says these texts, whatever the adapter."""

    def __init__(self, tokenizer: Any, *texts: str) -> None:
        self.ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    def __call__(self, factors: Any, examples: Any = None) -> Any:
        from dfolora.engine import Generated

        return Generated([self.ids], torch.zeros(1, len(self.ids), dtype=torch.bool))


def test_an_answer_is_the_first_line(reader: tuple[LanguageModel, Adapter, PromptEncoder]) -> None:
    _, adapter, scorer = reader
    answers = Answers(Engine(adapter, scorer.encode(EXAMPLES[:3])), scorer, EXAMPLES[:3])
    answers.generator = Says(scorer.tokenizer, " the hall \n the river", "the river", "\nthe town")  # type: ignore[assignment]
    assert answers.incumbent().texts == ["the hall", "the river", ""]
    # Gold: the hall, the river, town; right, right, nothing.
    assert answers.losses({}).tolist() == pytest.approx([-200 / 3])


def test_a_broken_adapter_is_not_kept(reader: tuple[LanguageModel, Adapter, PromptEncoder]) -> None:
    """However good its answers are: all of them are luck."""
    _, adapter, scorer = reader
    selection = Selection(adapter, scorer, EXAMPLES)
    lines = [Line(generation=i, sweep=i, evaluations=i) for i in range(3)]
    selection.begin(lines[0])
    assert selection.best is lines[0]
    assert lines[0].dev is not None
    assert lines[0].dev["loss"] > 0
    name = next(iter(adapter.layers[0].modules))
    a, b = adapter.layers[0].modules[name].factors()
    adapter.write(0, {name: (a[None], torch.full_like(b, torch.nan)[None])})
    selection.look(lines[1])
    assert lines[1].dev is not None
    assert lines[1].dev["loss"] is None
    assert lines[1].dev["main"] == 0.0
    assert selection.best is lines[0]
    adapter.clear()
    good = Says(scorer.tokenizer, *(example.gold[1] for example in EXAMPLES))
    assert selection.answers is not None
    selection.answers.generator = good  # type: ignore[assignment]
    selection.look(lines[2])
    assert selection.best is lines[2]
    assert lines[2].dev is not None
    assert lines[2].dev["metrics"] == {"f1": 100.0, "em": 100.0}  # any gold text is right, not the first alone
