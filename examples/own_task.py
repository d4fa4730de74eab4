"""A task of your own, from a file or from examples made in Python, with a metric of its own if you like."""

from pathlib import Path
from tempfile import mkdtemp

import dfolora
from dfolora import Example, Task
from dfolora.tasks.demo import MODEL_DIR

good = ["the room was very quiet", "the staff was kind", "the food was tasty", "the view was lovely"]
bad = ["the room was very noisy", "the staff was rude", "the food was stale", "the view was dull"]
file = Path(mkdtemp()) / "reviews.csv"
file.write_text("text,label\n" + "".join(f"{text} ,1\n" for text in good) + "".join(f"{text} ,0\n" for text in bad))

task = Task.from_files(file, test=file, template="{text} it was {mask} .", words={"0": "terrible", "1": "great"})
print(dfolora.tune(str(MODEL_DIR), task, shots=2, budget=400).scores["tuned"])


def recall(examples, predicted):
    """Percent of the bad ones that were seen."""
    seen = [guess == 0 for example, guess in zip(examples, predicted, strict=True) if example.label == 0]
    return {"recall": 100 * sum(seen) / len(seen)}


examples = [Example({"text": text}, label) for label, texts in enumerate((bad, good)) for text in texts]
task = Task.from_examples(
    examples, examples, examples, template="{text} it was {mask} .", words=["terrible", "great"], measure=recall
)
dfolora.register("task", "complaints", task)  # from here on known by name
print(dfolora.tune(str(MODEL_DIR), "complaints", budget=400).scores["tuned"])
