"""Score a model on a test set of any size: predictions, metrics, a file of predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dfolora.engine import Engine
from dfolora.models.tuned import TunedModel
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.runs.files import write_text
from dfolora.runs.listener import Listener
from dfolora.task import Example, Metrics

BATCH = 512  # examples encoded at a time; the engine cuts them further


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for N examples.

    Attributes:
        predicted: class indices, or texts where answers are generated; None where a class score is not a number.
        scores: class scores of each example, (C,) float32; empty where answers are generated.
        token_layers: tokens x blocks that were computed for them.
        forwards: how many forwards that took.
    """

    predicted: list[Any]
    scores: list[Tensor]
    token_layers: int = 0
    forwards: int = 0


def predict(
    adapter: TunedModel,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    chunk_tokens: int | None = None,
    listener: Listener | None = None,
    what: str = "scoring",
) -> Predictions:
    """Predict the class or the text of every example with the current adapter.

    Args:
        adapter: LoRA on a model, or the bare model.
        encoder: of the task.
        examples: N of them.
        chunk_tokens: most tokens in one forward; None: what is fastest and fits.
        listener: told how far it has come.
        what: what that is called.
    """
    predicted: list[Any] = []
    scores: list[Tensor] = []
    token_layers = forwards = 0
    for start in range(0, len(examples), BATCH):
        if listener is not None:
            listener.stage(f"{what}: {start} of {len(examples)} examples")
        part = examples[start : start + BATCH]
        engine = Engine(adapter, encoder.encode(part), chunk_tokens or 0)
        if start == 0:
            engine.verify({})
        if encoder.task.new_tokens:
            predicted += Answers(engine, encoder, part, samples=1).incumbent().texts
        else:
            found = engine.incumbent_scores().cpu()
            broken = found.isnan().any(-1).tolist()
            predicted += [None if bad else best for bad, best in zip(broken, found.argmax(-1).tolist(), strict=True)]
            scores += list(found)
        token_layers += engine.token_layers
        forwards += engine.forwards
    return Predictions(predicted, scores, token_layers, forwards)


def metrics(encoder: PromptEncoder, examples: Sequence[Example], predictions: Predictions) -> Metrics:
    """The task's metrics, in percent; an example whose scores are not numbers counts as wrong."""
    pairs = zip(examples, predictions.predicted, strict=True)
    return encoder.task.measure(examples, [_wrong(example) if guess is None else guess for example, guess in pairs])


def _wrong(example: Example) -> int:
    """A class or choice of an example that is not the right one; the right one where there is no other."""
    classes = example.choice_class or range(len(example.choices or (0, 1)))
    return next((c for c in classes if c != example.label), example.label)


def save_predictions(
    path: Path,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    predictions: Predictions,
    scored: bool = True,
) -> None:
    """Write one JSON line per example: ``index, prediction, gold``, and how good that is.

    Of classes ``correct``, ``scores`` (C numbers) and ``margin``, the right one's score minus the best of the others
    (None where there is no finite one); of generated texts ``score``, the task's main metric of that example alone,
    between 0 and 1.

    Args:
        path: the file.
        encoder, examples, predictions: N of the latter two.
        scored: give texts their ``score``; not where a user's reward, which may be dear, is the metric.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for index, (example, predicted) in enumerate(zip(examples, predictions.predicted, strict=True)):
        names = encoder.task.classes or example.choices or ()
        line: dict[str, Any] = {"index": index}
        if encoder.task.new_tokens:
            line |= {"prediction": predicted, "gold": list(example.gold)}
            if scored:
                line["score"] = encoder.task.main(encoder.task.measure([example], [predicted])) / 100
        else:
            line |= {
                "prediction": names[predicted] if predicted is not None and predicted < len(names) else predicted,
                "gold": names[example.label] if example.label < len(names) else example.label,
                "correct": predicted == example.label,
                "margin": _margin(predictions.scores[index].tolist(), example.label),
                "scores": [value if math.isfinite(value) else None for value in predictions.scores[index].tolist()],
            }
        lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(path, "".join(lines))


def _margin(scores: list[float], label: int) -> float | None:
    """The right class's score minus the best of the others; None where that is no finite number."""
    others = [score for c, score in enumerate(scores) if c != label]
    margin = scores[label] - max(others) if others and label < len(scores) else math.nan
    return margin if math.isfinite(margin) else None
