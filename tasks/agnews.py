"""AG News: the topic of a news item. Accuracy.

The published text has lost the ampersands of many HTML entities (`` #39;`` for an apostrophe) and writes line breaks as
backslashes; both are undone here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, pick, text

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
ENTITY = re.compile(r"&?(#\d{2,5}|#x[0-9a-f]{2,4}|\b(?:quot|amp|lt|gt|nbsp|apos));", re.IGNORECASE)


def clean(news: str) -> str:
    """The news item with HTML entities resolved: ``Kalou #39;s`` becomes ``Kalou's``."""
    # The lost ampersand left a space, which belongs there only before an opening quotation mark.
    news = re.sub(r" (?=#39;(?:s|t|re|ve|ll|d|m)\b)| (?=(?:#39|quot);(?!\w))", "", news)
    news = ENTITY.sub(lambda match: html.unescape(f"&{match[1].lower()};"), news)
    return " ".join(news.replace("\\", " ").split())


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``text`` (in some files ``sentence``) and ``label``."""
    return [Example({"text": clean(text(record, "text", "sentence"))}, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "agnews",
    folders=("agnews", "ag_news"),
    classes=CLASSES,
    examples=examples,
    hub=Hub("fancyzhx/ag_news"),
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754), without the fifty arbitrary words
# which that code puts in front for T5.
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{mask} News: {text}", ("World", "Sports", "Business", "Tech")),
        "causal": Prompt("{text} News: {mask}", ("world", "sports", "business", "tech")),
        "seq2seq": Prompt("{mask} News: {text}", ("World", "Sports", "Business", "Tech")),
        "encoder": Prompt(
            "{text}",
            (
                "This news is about world politics.",
                "This news is about sports.",
                "This news is about business and the economy.",
                "This news is about science and technology.",
            ),
        ),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="text",
    sizes={"test": 7600},
)
