"""Every registered task keeps the contract of ``dfolora.task``."""

import string
from importlib.util import find_spec
from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.task import KINDS, Example, Task
from dfolora.tasks import TASKS, about, get_task, task_names
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


def load_task(name: str) -> Task:
    module = TASKS[name][0].split(":")[0]
    if find_spec(f"dfolora.tasks.{module}") is None:
        pytest.skip(f"{module}.py is not there yet")
    return get_task(name)


def fields_of(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UserError, match=r"--task: unknown 'superglue/bolq'; did you mean 'superglue/boolq'"):
        get_task("superglue/bolq")


@pytest.mark.parametrize("name", task_names())
def test_prompts(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.about == about(name)
    # The demo is for the masked model that comes with it, and its texts are short.
    if not name.startswith("demo/"):
        only_causal = name.startswith("mezo/") or task.new_tokens
        assert set(task.prompts) == ({"causal"} if only_causal else set(KINDS))
        assert task.shorten
    for kind, prompt in task.prompts.items():
        fields = fields_of(prompt.template)
        assert fields.count("mask") == (0 if kind == "encoder" else 1)
        assert not task.shorten or task.shorten in fields
        if prompt.words is None:
            assert "choice" in fields_of(prompt.answer)
        else:
            assert len(prompt.words) == len(set(prompt.words)) == len(task.classes)
        if kind == "causal":
            assert not fields_of(prompt.template.split("{mask}")[1])
        if kind == "masked":
            # It is filled with as many mask tokens as the choice has.
            assert prompt.answer == "{choice}"


def check_examples(task: Task, examples: list[Example]) -> None:
    for example in examples:
        for prompt in task.prompts.values():
            assert prompt.template.format(mask="", **example.fields)
            assert (prompt.words is None) == (example.choices is not None)
            for choice in example.choices or ():
                assert choice in prompt.answer.format(choice=choice, **example.fields)
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
    task = load_task(name)
    source = Source(shared, seed=13)
    for split, count in zip(("train", "dev", "test"), COUNTS[name], strict=True):
        if count is None:
            with pytest.raises(UserError, match="--test-split dev"):
                task.load(split, source)
            continue
        examples = task.load(split, source)
        assert len(examples) == count
        check_examples(task, examples)
        perfect = task.measure(examples, [example.label for example in examples])
        assert perfect
        assert set(perfect.values()) == {100.0}
        assert task.main(perfect) == 100.0


def test_every_dataset_is_counted() -> None:
    generated = {name for name in task_names() if load_task(name).new_tokens}  # see test_task_generated.py
    assert set(COUNTS) | generated == {name for name in task_names() if not name.startswith("demo/")}
