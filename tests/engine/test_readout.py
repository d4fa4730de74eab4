"""Only answer positions reach the head, only label tokens leave it, and the numbers are those of the full logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_zoo import VOCABULARY, ZOO, attached, candidates, choice_rows, sentence_rows, word_rows
from plain_reading import one_by_one

from dfolora.engine import Engine
from dfolora.engine.readout import Readout

LANGUAGE_MODELS = [name for name, (kind, *_) in ZOO.items() if kind != "encoder"]


class HeadWatch:
    """Counts what enters and leaves the output embedding, by replacing nothing: a hook."""

    def __init__(self, model: Any) -> None:
        self.inputs: list[torch.Size] = []
        self.outputs: list[torch.Size] = []
        self.handle = model.get_output_embeddings().register_forward_hook(self.look)

    def look(self, module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.inputs.append(args[0].shape)
        self.outputs.append(output.shape)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_label_words(name: str) -> None:
    adapter, rows = attached(name), word_rows(ZOO[name][0])
    engine = Engine(adapter, rows, chunk_tokens=100)
    watch = HeadWatch(adapter.model)
    population = 5
    factors = candidates(adapter, 0, population)
    scores = engine.scores(factors)
    watch.handle.remove()
    assert sum(shape[0] * shape[1] for shape in watch.inputs) == population * rows.count  # one position per row
    assert all(len(shape) == 3 for shape in watch.inputs)
    # BART adds a bias of vocabulary size after its head, so there the positions are cut and the columns are not.
    width = VOCABULARY if name == "bart" else 3
    assert {shape[-1] for shape in watch.outputs} == {width}
    assert torch.allclose(scores.double(), one_by_one(adapter, rows, factors), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_choices_keep_the_vocabulary_at_answer_positions(name: str) -> None:
    adapter, rows = attached(name), choice_rows(ZOO[name][0])
    engine = Engine(adapter, rows, chunk_tokens=100)
    watch = HeadWatch(adapter.model)
    engine.scores(candidates(adapter, None, 2))
    watch.handle.remove()
    answer_positions = rows.positions.shape[1]
    assert sum(shape[0] * shape[1] for shape in watch.inputs) == 2 * rows.count * answer_positions
    assert {shape[-1] for shape in watch.outputs} == {VOCABULARY}
    longest = rows.inputs["decoder_input_ids" if "decoder_input_ids" in rows.inputs else "input_ids"].shape[1]
    assert answer_positions < longest  # so that the count above could have been larger


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("opt", "model.decoder"),
        ("bart", "model.decoder"),
        ("t5", "decoder"),
        ("gpt2", "transformer"),
        ("roberta", "roberta"),
    ],
)
def test_where_the_head_reads(name: str, backbone: str) -> None:
    adapter = attached(name)
    readout = Engine(adapter, word_rows(ZOO[name][0])).readout
    assert readout.backbone is adapter.model.get_submodule(backbone)
    assert readout.cut_head == (name != "bart")


def test_sentences_have_no_head() -> None:
    readout = Engine(attached("mpnet"), sentence_rows(True)).readout
    assert readout.backbone is None
    assert readout.head is None
    assert not readout.cut_head


def test_a_way_that_gives_other_numbers_is_not_taken() -> None:
    """A head that looks at neighbouring positions: cutting to the answer would change it, so all positions go in."""
    adapter = attached("gpt2")

    class Blur(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + x.mean(1, keepdim=True))

    head = adapter.model.lm_head
    blur = Blur(head.in_features, head.out_features, bias=False)
    blur.weight = head.weight
    adapter.model.lm_head = blur
    rows = word_rows("causal", lengths=(8, 8, 8))
    engine = Engine(adapter, rows)
    assert (engine.readout.backbone, engine.readout.cut_head) == (None, False)
    factors = candidates(adapter, 1, 3)
    assert torch.allclose(engine.scores(factors).double(), one_by_one(adapter, rows, factors), rtol=1e-4, atol=1e-5)


def test_reading_by_hand() -> None:
    """Mean log-probability over the answer tokens of each row, computed by hand for two rows."""
    adapter = attached("gpt2")
    rows = choice_rows("causal")
    readout = Readout(adapter.model, lambda inputs: adapter.model(**inputs, use_cache=False))
    readout.backbone, readout.cut_head = None, False
    logits = torch.randn(rows.count, rows.inputs["input_ids"].shape[1], 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[2, -100, -100], [0, 6, 1]])
    two = type(rows)(rows.inputs, rows.positions[:2], rows.owner[:2], rows.classes, targets=targets)
    values = readout.read(two, type("Output", (), {"logits": logits[:2]}), 1)
    first = logits[0, rows.positions[0, 0]].log_softmax(-1)[2]
    second = [logits[1, rows.positions[1, k]].log_softmax(-1)[t] for k, t in enumerate((0, 6, 1))]
    assert torch.allclose(values, torch.stack([first, sum(second) / 3])[None], atol=1e-6)
