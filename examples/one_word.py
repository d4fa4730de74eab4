"""Questions with short answers, as training, dev and held-out files: data for a reward that asks for exactly one word.

    python examples/one_word.py FOLDER

docs/rewards.md tunes SmolLM2-135M-Instruct on them. Nothing but the question is in a line; there is no right answer.
"""

import json
import random
import sys
from pathlib import Path

ASKED = {
    "What is the capital of {}?": "France Italy Spain Japan Egypt Peru Norway Greece Kenya Cuba Poland Chile",
    "What color is {}?": "grass|snow|coal|the sky|blood|a lemon|the sea|a carrot|milk|an orange|mud|a rose",
    "What is the opposite of {}?": "hot big fast old light happy open early rich loud strong clean",
    "Name {}.": "a fruit|a bird|a city|a tool|a metal|a fish|a tree|a river|a sport|a planet|a game|a drink",
    "What do you use to {}?": "cut bread|write|see far|tell time|dig|paint|open a lock|sweep|sew|row a boat|cook|swim",
}
UNSEEN = {"Which animal {}?": "barks|gives milk|lays eggs|spins webs|has a trunk|is the fastest|hops|lives in a shell"}


def questions(asked):
    """Every question of some templates."""
    return [text.format(word) for text, words in asked.items() for word in words.split("|" if "|" in words else None)]


def write(folder):
    """Write train, dev and test; the test set has the rest, and a kind of question that the others do not have."""
    lines = questions(ASKED)
    random.Random(0).shuffle(lines)
    parts = {"train": lines[:12], "dev": lines[12:24], "test": lines[24:] + questions(UNSEEN)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        text = "".join(json.dumps({"text": line}) + "\n" for line in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {name: len(part) for name, part in parts.items()}


if __name__ == "__main__":
    print(write(sys.argv[1]))
