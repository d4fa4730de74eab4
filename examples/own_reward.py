"""A reward of your own on generated text: any function of texts, with or without a gradient; higher is better."""

from tiny import tiny_model

import dfolora
from dfolora import Example, Task


def warmth(texts, examples):
    """A number for each text: the share of its words that are warm. ``examples`` are what was asked, in that order."""
    return [sum(word in ("sun", "warm", "bright") for word in text.split()) / 8 for text in texts]


if __name__ == "__main__":
    prompts = [Example({"text": text}, label=0) for text in ("the sea", "the moon", "today the sun", "here and now")]
    task = Task.from_examples(prompts, dev=prompts, template="{text} {mask}", new_tokens=8, name="warmth")
    run = dfolora.tune(tiny_model(), task, reward=warmth, test_split="none", sigma=0.5, budget=600)
    print(run.scores["dev_zero_shot"], "->", run.scores["dev_tuned"])
