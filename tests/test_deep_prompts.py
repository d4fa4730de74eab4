"""Deep prompts, many at once, are what PEFT's prefix tuning makes of one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models_zoo import READINGS, ZOO, language_model
from peft import PeftModel
from soft_rows import COUNT, prompted, readings_of, softly
from test_prompts import assert_close

from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.models.deep_prompted import DeepPrompted, load
from dfolora.models.prefix_folder import read_prefix
from dfolora.models.soft_tokens import SoftTokens
from dfolora.subspaces.prefixes import PrefixSpace

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
NAMES = ("roberta", "bert", "gpt2", "opt", "llama", "qwen3", "phi3", "gemma3", "bert-encoder")


def deep(name: str, seed: int = 3) -> DeepPrompted:
    """A model with a deep prompt that started from random words."""
    opened = language_model(name)
    model = DeepPrompted(opened, SoftTokens(opened.vocabulary, COUNT))
    table = opened.model.get_input_embeddings().weight
    words = table[torch.randint(len(table), (COUNT,), generator=torch.Generator().manual_seed(seed))]
    for layer, state in enumerate(model.of_words(words)):
        model.write(layer, state)
    return model


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_population_is_scored_as_peft_scores_one_prefix_after_the_other(name: str, tmp_path: Path) -> None:
    model, kind = deep(name), ZOO[name][0]
    plain = READINGS["words" if kind != "encoder" else "label sentences"](kind)
    rows = softly(plain, kind, model.tokens, None)
    engine = Engine(model, rows)
    layer = 1
    space = PrefixSpace(model, layer, model.tuned[layer], "random", 30, 0, 1.0)
    z = torch.randn(3, 30, generator=torch.Generator().manual_seed(0))
    engine.verify(space.factors(z))
    assert not any(names for key, names in model.learned.items() if key[-1] == "refused")  # type: ignore[index]
    scores = engine.scores(space.factors(z))
    again = engine.token_layers
    assert torch.equal(engine.scores(space.factors(z)), scores)
    assert engine.token_layers - again < 3 * sum(engine.block_tokens(rows.inputs))  # the block below ran once for all
    for p in (2,):
        model.write(layer, {part: each[p] for part, each in space.state(z).items()})
        folder = tmp_path / str(p)
        model.save(folder, {})
        found = PeftModel.from_pretrained(language_model(name).model, str(folder))
        output = found(**plain.inputs)
        assert_close(readings_of(language_model(name), plain, output, plain.inputs["attention_mask"], 0), scores[p])
        loaded = load(language_model(name), str(folder), model.tokens, read_prefix(str(folder)))
        assert_close(Engine(loaded, rows).incumbent_scores(), scores[p])
    with pytest.raises(AssertionError):
        assert_close(scores[0], scores[1])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.inference_mode()
def test_a_causal_model_starts_from_the_same_as_with_a_plain_prompt(name: str) -> None:
    _, _, rows, model = prompted(name, "words", False)
    expected = Engine(model, rows).incumbent_scores()
    other = DeepPrompted(language_model(name), model.tokens)
    for layer, state in enumerate(other.of_words(model.tuned["prompt"])):
        other.write(layer, state)
    assert_close(Engine(other, rows).incumbent_scores(), expected)


def test_a_model_of_two_halves_is_told_what_works() -> None:
    with pytest.raises(UserError, match="tune: deep-prompt is for .*; choose prompt for 't5'"):
        deep("t5")
