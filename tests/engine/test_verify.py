"""What is believed of a model is held to one candidate at a time, on the batch that is to be scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from models_zoo import VOCABULARY, NoTokenizer, attached, candidates, choice_rows, word_rows
from plain_reading import farthest, one_by_one, spread
from test_packing import story_rows

from dfolora.engine import Engine, Rows, Savings, SequentialEngine
from dfolora.engine.abilities import Abilities
from dfolora.engine.trials import agree, attempt, poison
from dfolora.engine.verify import telling_examples
from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter
from dfolora.models.load import LanguageModel

TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 1,
}  # fmt: skip
OLD = {"emb_dim": 32, "n_layers": 4, "n_heads": 4, "n_langs": 1, "max_position_embeddings": 64, "pad_index": 1}

# State that travels outside of what a block gives: kind, class, configuration, settings, modules to adapt.
OUTSIDE: dict[str, tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = {
    "a residual sum that the model keeps": ("masked", "FlaubertWithLMHeadModel", "FlaubertConfig", OLD, ()),
    "the same, with other norms": ("masked", "XLMWithLMHeadModel", "XLMConfig", OLD, ()),
    "embeddings scaled in place": (
        "causal", "CTRLLMHeadModel", "CTRLConfig",
        {"n_embd": 32, "dff": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}, ("Wq", "Wk"),
    ),
    "states of four dimensions": (
        "causal", "Gemma3nForCausalLM", "Gemma3nTextConfig",
        {**TEXT, "head_dim": 8, "intermediate_size": [64] * 4, "vocab_size_per_layer_input": VOCABULARY,
         "hidden_size_per_layer_input": 8, "layer_types": ["sliding_attention", "full_attention"] * 2,
         "num_kv_shared_layers": 0, "sliding_window": 64, "altup_num_inputs": 4, "laurel_rank": 8,
         "activation_sparsity_pattern": [0.0] * 4}, (),
    ),
    "keys and values of an earlier layer": (
        "causal", "Gemma3nForCausalLM", "Gemma3nTextConfig",
        {**TEXT, "head_dim": 8, "intermediate_size": [64] * 4, "vocab_size_per_layer_input": VOCABULARY,
         "hidden_size_per_layer_input": 8, "layer_types": ["full_attention"] * 4, "num_kv_shared_layers": 2,
         "altup_num_inputs": 2, "laurel_rank": 8, "activation_sparsity_pattern": [0.0] * 4}, (),
    ),
    "a head joined with another matrix": (
        "masked", "MobileBertForMaskedLM", "MobileBertConfig",
        {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
         "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32, "max_position_embeddings": 64,
         "pad_token_id": 1}, (),
    ),
}  # fmt: skip
LFM2 = (
    "causal", "Lfm2ForCausalLM", "Lfm2Config",
    {**TEXT, "layer_types": ["conv", "full_attention"] * 2, "block_ff_dim": 64, "block_multiple_of": 8}, (),
)  # fmt: skip


def built(
    kind: str, model_class: str, config_class: str, settings: dict[str, Any], targets: tuple[str, ...]
) -> Adapter:
    """A tiny random model with an adapter of its own in every layer; weights three times the usual."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, config_class)(vocab_size=VOCABULARY, **settings)
        model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3 if "MobileBert" not in model_class else 8)
    adapter = adapters.attach(LanguageModel(model, NoTokenizer(), kind, model_class), 4, targets)  # type: ignore[arg-type]
    for layer in range(len(adapter.layers)):
        adapter.write(layer, candidates(adapter, layer, 1, seed=100 + layer))
    return adapter


def difference(adapter: Adapter, rows: Rows, engine: Engine, layer: int | None) -> float:
    """From one candidate at a time, in units of the scores' scale; candidates must differ by much more."""
    factors = candidates(adapter, layer, 3, size=0.6)
    expected = one_by_one(adapter, rows, factors)
    error = farthest(engine.scores(factors), expected)
    assert spread(expected) > 30 * error
    return error / float(expected[expected.isfinite()].abs().max())


@pytest.mark.parametrize("name", OUTSIDE)
def test_state_outside_a_block(name: str) -> None:
    adapter, rows = built(*OUTSIDE[name]), word_rows(OUTSIDE[name][0])
    engine = Engine(adapter, rows)
    for layer in (*range(len(adapter.layers)), None):
        assert difference(adapter, rows, engine, layer) < 1e-4, layer


def test_states_of_four_dimensions_are_resumed() -> None:
    adapter = built(*OUTSIDE["states of four dimensions"])
    engine = Engine(adapter, word_rows("causal"))
    assert engine.order.resumable
    assert all(engine.abilities.resumes_at(block) for block in (1, 2, 3))


def test_a_block_without_the_residual_is_not_resumed() -> None:
    engine = Engine(built(*OUTSIDE["a residual sum that the model keeps"]), word_rows("masked"))
    assert not any(engine.abilities.resumes_at(block) for block in (2, 3))


@pytest.mark.parametrize("first", [((2, 3), (4, 2)), ((1, 1), (1, 1))])
def test_a_recurrent_layer_shares_no_prompt(first: tuple[tuple[int, ...], ...]) -> None:
    """Behind one prompt the second choice would read the first one. Choices of one token would not show it."""
    adapter = built(*LFM2)
    rows = story_rows((8, 6), first, ((0, 1), (0, 1)))
    assert Engine(adapter, rows).rows.count == rows.count
    rows = story_rows()
    engine = Engine(adapter, rows)
    assert engine.rows.count == rows.count
    assert difference(adapter, rows, engine, 0) < 1e-4


def test_numbers_that_are_none_end_no_run() -> None:
    """A model that overflows: its scores are NaN, for whoever asks to see; nothing is thrown on the way."""
    adapter, rows = attached("t5", incumbents=False), word_rows("seq2seq")
    with torch.no_grad():
        adapter.model.get_output_embeddings().weight.fill_(torch.inf)
    engine = Engine(adapter, rows)
    assert not engine.scores(candidates(adapter, 1, 2)).isfinite().any()
    engine.verify(candidates(adapter, 1, 2))  # nothing to compare


# -- verify ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["roberta", "llama", "t5"])
def test_an_engine_that_is_right_gives_up_nothing(name: str) -> None:
    kind = {"roberta": "masked", "llama": "causal", "t5": "seq2seq"}[name]
    for rows in (word_rows(kind), choice_rows(kind)):
        adapter = attached(name)
        engine = Engine(adapter, rows)
        engine.verify(candidates(adapter, 1, 4))
        assert engine.savings == Savings()
        assert (engine.token_layers, engine.forwards) == (0, 0)
        assert engine.scores(candidates(adapter, 1, 4)).shape[0] == 4


def test_what_is_wrong_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beliefs that no trial has corrected: the prompt of a recurrent model, the residual sum that a model keeps."""
    monkeypatch.setattr(Abilities, "shares_prompts", lambda self, length: self._savings.shared_prompt)
    adapter, rows = built(*LFM2), story_rows()
    engine, other = Engine(adapter, rows), Engine(adapter, rows)
    assert engine.rows.count == 3
    engine.verify(candidates(adapter, 1, 3))
    assert difference(adapter, rows, engine, 1) < 1e-4
    assert engine.savings == Savings(shared_prompt=False)
    other.scores(candidates(adapter, 0, 2))  # another engine on the model knows it, too
    assert other.savings == Engine(adapter, choice_rows("causal")).savings == Savings(shared_prompt=False)
    assert Engine(adapter, word_rows("causal")).savings == Savings()  # label words are another way of reading

    monkeypatch.setattr(Abilities, "resumes_at", lambda self, block: bool(block) and self._savings.prefix)
    adapter, rows = built(*OUTSIDE["a residual sum that the model keeps"]), word_rows("masked")
    engine = Engine(adapter, rows)
    with pytest.raises(AssertionError):
        difference(adapter, rows, engine, 3)
    engine.verify(candidates(adapter, 3, 2))
    assert engine.savings == Savings(prefix=False)
    assert difference(adapter, rows, engine, 3) < 1e-4


def test_two_faults_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Abilities, "shares_prompts", lambda self, length: self._savings.shared_prompt)
    right = Abilities.shared_maps
    wrong = lambda self, layer: right(self, layer) | {self._layers[layer].name + ".feed_forward.w1"}  # noqa: E731
    monkeypatch.setattr(
        Abilities, "shared_maps", lambda self, layer: wrong(self, layer) if self._savings.shared else frozenset()
    )
    adapter, rows = built(*LFM2), story_rows()
    engine = Engine(adapter, rows)
    engine.verify(candidates(adapter, 0, 2, size=0.6))
    assert not engine.savings.shared_prompt
    assert not engine.savings.shared
    assert difference(adapter, rows, engine, 0) < 1e-4


def test_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, rows = attached("roberta"), word_rows("masked")
    engine, scores = Engine(adapter, rows), Engine.scores
    monkeypatch.setattr(Engine, "scores", lambda self, edits: 1.01 * scores(self, edits))
    with pytest.raises(UserError, match=r"engine: .*one candidate at a time"):
        engine.verify(candidates(adapter, 1, 2))
    SequentialEngine(adapter, rows).verify(candidates(adapter, 1, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_no_fault(dtype: torch.dtype) -> None:
    adapter = attached("llama", incumbents=False)
    adapter.model.to(dtype)
    engine = Engine(adapter, story_rows())
    engine.verify(candidates(adapter, 1, 2))
    assert engine.savings == Savings()


def test_the_examples_that_tell_most() -> None:
    assert telling_examples(word_rows("masked", (9, 12, 3, 8))).tolist() == sorted(
        word_rows("masked", (9, 12, 3, 8)).owner[[1, 2], 0].tolist()
    )
    assert 2 in telling_examples(story_rows()).tolist()  # the answer of four tokens


# -- trials ------------------------------------------------------------------------------------------------------------


def test_agreement() -> None:
    expected = torch.tensor([[1.0, -10.0, -torch.inf]])
    for tried, same in (
        ([[1.0009, -10.0, -torch.inf]], True),
        ([[1.002, -10.0, -torch.inf]], False),
        ([[1.0, -10.0, 0.0]], False),
        ([[torch.nan, -10.0, -torch.inf]], False),
        ([[-torch.inf, -10.0, -torch.inf]], False),
    ):
        assert agree(torch.tensor(tried), expected, torch.float32) is same
    assert agree(torch.tensor([[1.3, -10.0, -torch.inf]]), expected, torch.bfloat16)
    assert not agree(torch.full((1, 3), torch.nan), torch.full((1, 3), torch.nan), torch.float32)
    assert not agree(None, expected, torch.float32)
    assert not agree(torch.zeros(2, 3), expected, torch.float32)  # another shape is no error


def test_a_trial_that_throws_means_no() -> None:
    for error in (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError):

        def throw(error: type[Exception] = error) -> None:
            raise error("no")

        assert attempt(throw) is None
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: (_ for _ in ()).throw(KeyboardInterrupt()))


def test_poison_spares() -> None:
    y = torch.ones(2, 3, 4)
    spared = torch.tensor([[True, False, False], [False, True, False]])
    assert torch.equal(poison(y, spared).isnan().any(-1), ~spared)
    assert poison(y).isnan().all()
