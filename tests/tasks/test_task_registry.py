"""Every registered task keeps the contract of ``dfolora.task``."""

import json
from pathlib import Path

import pytest

from dfolora import template
from dfolora.errors import UserError
from dfolora.task import KINDS, Example, Task
from dfolora.tasks import REGISTRY, about, describe, get_task, task_names
from dfolora.tasks.common import Source

# Train, dev and test examples of the real data under seed 13, as its documentation counts them. DBPedia's 5,000 test
# texts are less those that are in its few-shot files.
COUNTS = {
    "superglue/boolq": (32, 32, 3270),
    "superglue/cb": (32, 32, 56),
    "superglue/copa": (32, 32, 100),
    "superglue/multirc": (154, 167, 4848),
    "superglue/record": (32, 32, None),
    "superglue/rte": (32, 32, 277),
    "superglue/wic": (32, 32, 638),
    "superglue/wsc": (32, 32, 104),
    "glue/sst2": (32, 32, 872),
    "glue/mrpc": (32, 32, 408),
    "agnews": (64, 64, 7600),
    "yelp": (32, 32, 1000),
    "dbpedia": (224, 224, 4992),
    "snli": (48, 48, 9842),
}
COUNTS |= {
    name: COUNTS[name.replace("mezo/sst2", "glue/sst2").replace("mezo", "superglue")]
    for name in task_names()
    if name.startswith("mezo/")
}


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UserError, match=r"task: unknown 'superglue/bolq'; did you mean 'superglue/boolq'\?"):
        get_task("superglue/bolq")
    with pytest.raises(UserError, match="did you mean 'mezo/rte' or 'superglue/rte'"):
        about("rte")


def test_a_task_of_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_added", {})
    words = Task.from_examples([Example({"text": "a"}, 0)], words=["a", "b"], name="x")
    REGISTRY.add("mine/x", words, "mine, in one line")
    REGISTRY.add("mine/no-task", object(), "no task at all")
    assert "mine/x" in task_names()
    assert (get_task("mine/x").name, get_task("mine/x").about, about("mine/x")) == (
        "mine/x",
        *["mine, in one line"] * 2,
    )
    with pytest.raises(UserError, match="task: 'mine/no-task' is a object, not a"):
        get_task("mine/no-task")
    with pytest.raises(UserError, match="built in"):
        REGISTRY.add("agnews", words)


def test_facts_of_a_task() -> None:
    facts = describe("superglue/cb")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["models"] == ["masked", "causal", "seq2seq", "encoder"]
    assert facts["classes"] == ["entailment", "contradiction", "neutral"]
    assert facts["prompts"]["masked"]["words"] == ["Yes", "No", "Maybe"]
    assert (facts["answer"], facts["sizes"], facts["shorten"]) == ("a class", {"test": 56}, "premise")
    assert (describe("mezo/copa")["models"], describe("mezo/copa")["answer"]) == (["causal"], "a choice")
    assert describe("squad")["answer"] == "generated text"
    assert describe("demo/pair")["sizes"] == {"test": 500}
    with pytest.raises(UserError, match="task: unknown"):
        describe("nothing")


@pytest.mark.parametrize("name", task_names())
def test_prompts(name: str) -> None:
    task = get_task(name)
    assert task.name == name
    assert task.about == about(name)
    # The demo is for the masked model that comes with it, and its texts are short.
    if not name.startswith("demo/"):
        only_causal = name.startswith("mezo/") or task.new_tokens
        assert set(task.prompts) == ({"causal"} if only_causal else set(KINDS))
        assert task.shorten
    for kind, prompt in task.prompts.items():
        fields = template.names(prompt.template)
        assert fields.count("mask") == (0 if kind == "encoder" else 1)
        assert not task.shorten or task.shorten in fields
        if prompt.words is None:
            assert "choice" in template.names(prompt.answer)
        else:
            assert len(prompt.words) == len(set(prompt.words)) == len(task.classes)
        if kind == "causal":
            assert not template.names(prompt.template.split("{mask}")[1])
        if kind == "masked":
            # It is filled with as many mask tokens as the choice has.
            assert prompt.answer == "{choice}"


def check_examples(task: Task, examples: list[Example]) -> None:
    for example in examples:
        for prompt in task.prompts.values():
            assert template.fill(prompt.template, {**example.fields, "mask": ""})
            assert (prompt.words is None) == (example.choices is not None)
            for choice in example.choices or ():
                assert choice in template.fill(prompt.answer, {**example.fields, "choice": choice})
        if example.choices is None:
            assert 0 <= example.label < len(task.classes)
            continue
        assert len(set(example.choices)) == len(example.choices) >= 2
        if example.choice_class is None:
            assert 0 <= example.label < len(example.choices)
        else:
            assert len(example.choice_class) == len(example.choices)
            assert set(example.choice_class) == set(range(len(task.classes)))


@pytest.mark.parametrize("name", COUNTS)
def test_real_data(name: str, shared: Path) -> None:
    task = get_task(name)
    source = Source(shared, seed=13)
    for split, count in zip(("train", "dev", "test"), COUNTS[name], strict=True):
        if count is None:
            with pytest.raises(UserError, match="test_split dev"):
                task.load(split, source)
            continue
        examples = task.load(split, source)
        assert len(examples) == count
        assert all(example.where for example in examples)
        if split == "test" and task.sizes:
            assert task.sizes == {"test": count}
        check_examples(task, examples)
        perfect = task.measure(examples, [example.label for example in examples])
        assert perfect
        assert set(perfect.values()) == {100.0}
        assert task.main(perfect) == 100.0


def test_every_dataset_is_counted() -> None:
    generated = {name for name in task_names() if get_task(name).new_tokens}  # see test_task_generated.py
    assert set(COUNTS) | generated == {name for name in task_names() if not name.startswith("demo/")}
