"""WSC: the pronoun is found in spite of wrong indices, and there always is another noun phrase to choose."""

import json
from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.tasks import get_task, wsc
from dfolora.tasks.common import Source


def row(sentence: str, phrase: str, pronoun: str, index: int, label: object = True) -> dict:
    target = {"span1_text": phrase, "span1_index": 0, "span2_text": pronoun, "span2_index": index}
    return {"text": sentence, "target": target, "label": label}


@pytest.mark.parametrize(
    ("sentence", "pronoun", "index", "before"),
    [
        ("Ann saw Sue. He saw her.", "her", 5, "Ann saw Sue. He saw "),
        ("Ann saw it and used it today.", "it", 6, "Ann saw it and used "),  # one too far
        ("Ann saw it and used it today.", "it", 1, "Ann saw "),  # one too near
        ("Ann gave it to him.", "him.", 4, "Ann gave it to "),
        ("Ann left. She won.", "she", 2, "Ann left. "),
        ('"Good for him," Ann said.', "him", 2, '"Good for '),
        ("Ann likes it's colour.", "it", 2, "Ann likes "),
        ("Ann has it.", "it", 50, "Ann has "),
        ("This is how it is.", "it", 9, "This is how "),
    ],
)
def test_pronoun(sentence: str, pronoun: str, index: int, before: str) -> None:
    start, end = wsc.find_pronoun(sentence, pronoun, index)
    assert sentence[:start] == before
    assert sentence[start:end].lower() == wsc.bare(pronoun)


def test_pronoun_that_is_not_there() -> None:
    with pytest.raises(UserError, match="the pronoun 'she' is not in the text"):
        wsc.examples(row("Ann left.", "Ann", "she", 1))


def test_choices_and_what_they_speak_for() -> None:
    sentence = "The old baker gave the boy a cake because he was hungry."
    (example,) = wsc.examples(row(sentence, "The boy", "he", 8))
    assert example.choices == ("the boy", "a cake", "the old baker")
    assert example.choice_class == (1, 0, 0)
    assert example.label == 1
    assert example.fields["text"] == sentence.replace(" he ", " *he* ")
    assert example.fields["before"] + "he" + example.fields["after"] == sentence
    (false,) = wsc.examples(row(sentence, "The old baker", "he", 8, False))
    assert (false.label, false.choices) == (0, ("the old baker", "a cake", "the boy"))


@pytest.mark.parametrize(
    ("sentence", "phrase", "pronoun", "others"),
    [
        ("Mr. Grey told Pete that he won.", "Pete", "he", {"Mr. Grey"}),
        ("Mr. Grey told Pete that he won.", "Mr. Grey", "he", {"Pete"}),
        ("Pam's parents found Paul. They left.", "Paul", "they", {"Pam", "Pam's parents"}),
        ("Joe's uncle beat Joe when he was ill.", "Joe", "he", {"Joe's uncle"}),
        ("The dog chased the cat. The cat hid. It was fast.", "the cat", "it", {"the dog"}),
        ("Her friend Jade saw the shop, so she left.", "Jade", "she", {"her friend", "the shop"}),
        ("The drain is clogged with hair. It stinks.", "the drain", "it", {"hair", "stinks"}),
        ("He is him.", "him", "he", {"someone else"}),
    ],
)
def test_other_phrases(sentence: str, phrase: str, pronoun: str, others: set[str]) -> None:
    span = wsc.find_pronoun(sentence, pronoun, sentence.lower().split().index(pronoun))
    found = wsc.other_phrases(sentence, phrase, span)
    assert set(found) == others


def test_all_true_training_set(write, tmp_path: Path) -> None:
    write("WSC/train.jsonl", row("Ann told Sue that she won.", "Ann", "she", 4))
    task = get_task("superglue/wsc")
    assert [example.label for example in task.load("train", Source(tmp_path))] == [1]
    assert task.one_class_train


def test_every_real_text_has_choices(shared: Path) -> None:
    by_rule = total = 0
    for file in sorted((shared / "superglue_fewshot/WSC").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            (example,) = wsc.examples(record)
            assert example.choices is not None
            assert len({choice.lower() for choice in example.choices}) == len(example.choices) >= 2
            assert example.choices[0].lower() == record["target"]["span1_text"].lower()
            assert example.fields["pronoun"].lower() == wsc.bare(record["target"]["span2_text"])
            spans = [record["text"][start:end].lower() for start, end in wsc.noun_phrases(record["text"])]
            by_rule += any(choice.lower() in spans for choice in example.choices[1:])
            total += 1
    assert by_rule / total > 0.98
