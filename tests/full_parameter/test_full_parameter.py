"""Steps on whole models: nothing but the step changes the weights, and the step is what was probed."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models_zoo as zoo
import pytest
import torch
import transformers
from plain_reading import read
from torch import Tensor, nn

from dfolora.bench.measure import peak_bytes
from dfolora.errors import UserError
from dfolora.full_parameter import FullParameter, Log, rows_loss
from dfolora.full_parameter.noise import Address, normal
from dfolora.models import LanguageModel
from dfolora.objectives import cross_entropy, hinge

METHODS = ["spsa", "guided", "greedy"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LABELS = torch.tensor([0, 1, 2, 0, 2, 1])


class Valley(nn.Module):
    """Six tensors, four of one shape, and a loss that is no quadratic; it needs no data."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = [(16, 16)] * 4 + [(16,), (3, 16)]
        self.parts = nn.ParameterList(
            nn.Parameter((0.2 * torch.randn(shape, generator=generator)).to(dtype)) for shape in shapes
        )
        self.x = torch.randn(8, 16, generator=generator).to(dtype)
        self.eval().requires_grad_(False)

    def forward(self) -> Tensor:
        x = self.x
        for part in self.parts[:4]:
            x = x + torch.tanh(x @ part)
        return nn.functional.cross_entropy(((x + self.parts[4]) @ self.parts[5].T).double(), torch.arange(8) % 3)

    def gradient(self) -> Tensor:
        self.requires_grad_(True)
        parts = torch.autograd.grad(self(), list(self.parts))
        self.requires_grad_(False)
        return torch.cat([part.flatten() for part in parts]).double()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def memory(model: nn.Module) -> list[Tensor]:
    """Copies of all bits, buffers included."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [t.detach().flatten().view(torch.uint8).clone() for t in tensors if t.numel()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def direction(model: nn.Module, seed: int, step: int, weights: dict[int, float]) -> Tensor:
    """(d,) v, drawn tensor by tensor and whole."""
    cpu = torch.device("cpu")
    parts = []
    for index, parameter in enumerate(model.parameters()):
        z = [w * normal(Address(seed, step, k, index), 0, parameter.numel(), cpu) for k, w in weights.items()]
        parts.append(torch.stack(z).sum(0))
    return torch.cat(parts)


def causal(dtype: torch.dtype = torch.float32) -> tuple[LanguageModel, Callable[[], Tensor]]:
    model = zoo.language_model("llama")
    model.model.to(dtype)
    return model, rows_loss(model, zoo.word_rows("causal"), LABELS)


# -- probes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", METHODS)
def test_weights_are_the_same_to_the_bit_after_probing(estimator: str, dtype: torch.dtype) -> None:
    language_model, loss = causal(dtype)
    before = memory(language_model.model)
    seen: list[bool] = []

    def watched() -> Tensor:
        seen.append(same(memory(language_model.model), before))
        return loss()

    tuner = FullParameter(language_model.model, watched, estimator, population=4, eps=1e-2)
    estimate = tuner.estimate()
    assert same(memory(language_model.model), before)
    assert estimate.weights
    # Every probe moved the model, and that it came back is not because nothing was lost on the way.
    assert not any(seen)
    assert len(seen) == tuner.evaluations == (4 if estimator == "spsa" else 6)
    assert tuner.point.residue_bytes > 0


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
@pytest.mark.parametrize("estimator", METHODS)
def test_the_model_is_probed_where_it_says_and_moved_along_what_it_probed(estimator: str, dtype: torch.dtype) -> None:
    """Across tensors of equal shape: a generator seeded anew for each would fail here, as in the released code."""
    model = Valley(dtype)
    start, eps, lr, seed = flat(model).double(), 1e-2, 0.05, 9
    probed: list[Tensor] = []

    def watched() -> Tensor:
        probed.append(flat(model))
        return model()

    tuner = FullParameter(model, watched, estimator, population=4, eps=eps, lr=lr, seed=seed, paper_scale=True)
    step = tuner.step()
    z = [direction(model, seed, 0, {k: 1.0}) for k in range(4)]
    if estimator == "spsa":
        expected = [z[0], -z[0], z[1], -z[1]]
    else:
        order = sorted(range(4), key=lambda k: step.losses[k] or 0.0)
        best = z[order[0]]
        v = best if estimator == "greedy" else (z[order[0]] + z[order[1]] - z[order[2]] - z[order[3]]) / 2
        expected = [*z, v, -v]
    assert len(probed) == len(expected)
    for weights, where in zip(probed, expected, strict=True):
        gap = torch.finfo(dtype).eps
        assert torch.allclose(weights.double(), (start + eps * where).to(dtype).double(), rtol=gap, atol=1e-15)
    moved = flat(model).double() - start
    if estimator == "spsa":
        wanted = -lr * (step.slopes[0] * z[0] + step.slopes[1] * z[1]) / 2
    else:
        wanted = -lr * step.slopes[0] * expected[-2]
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}.get(dtype, 0.05)  # 16 bits: rounded by chance
    assert (moved - wanted).norm() < tolerance * wanted.norm()
    same_shape = [part for part in moved[:1024].split(256)]
    for left, right in itertools.combinations(same_shape, 2):
        assert abs(nn.functional.cosine_similarity(left, right, 0)) < 4 / 16


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "t5", "bart", "mpnet", "albert"])
def test_models_of_every_kind_with_tied_weights_and_buffers(kind: str) -> None:
    """Tied weights are moved once, buffers never, and the loss is that of a plain forward read one by one."""
    language_model = zoo.language_model(kind)
    model: Any = language_model.model
    rows = zoo.sentence_rows(True) if language_model.kind == "encoder" else zoo.word_rows(language_model.kind)
    labels = torch.arange(len(rows.classes)) % 2
    loss = rows_loss(language_model, rows, labels, hinge, chunk_tokens=24)
    expected = hinge(read(rows, model(**rows.inputs))[None].float(), labels)
    assert torch.allclose(loss(), expected, rtol=1e-4)
    before, start = memory(model), flat(model).double()
    buffers = [buffer.clone() for buffer in model.buffers()]
    tuner = FullParameter(model, loss, eps=1e-3, lr=1e-3, seed=3)
    tuner.estimate()
    assert same(memory(model), before)
    step = tuner.step()
    wanted = direction(model, 3, 0, {k: -1e-3 * weight for k, weight in step.weights.items()})
    assert tuner.point.dim == len(start) == len(wanted)
    assert torch.allclose(flat(model).double() - start, wanted, rtol=1e-2, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))


@pytest.mark.parametrize("reading", ["choices", "label sentences"])
def test_the_loss_follows_the_weights(reading: str) -> None:
    language_model = zoo.language_model("bert-encoder" if "sentences" in reading else "llama")
    rows = zoo.READINGS[reading](language_model.kind)
    labels = torch.zeros(len(rows.classes), dtype=torch.long)
    loss = rows_loss(language_model, rows, labels)
    for _ in range(2):
        expected = cross_entropy(read(rows, language_model.model(**rows.inputs))[None].float(), labels)
        assert torch.allclose(loss(), expected, rtol=1e-4)
        with torch.no_grad():
            for parameter in language_model.model.parameters():
                parameter.mul_(1.1)


# -- estimates ------------------------------------------------------------------------------------------------------

# d times the squared cosine of the estimate with the gradient, to first order: for q-SPSA q, for MeZO-GV with a pool of
# M and half of them best (E[mean of best - mean of rest])^2 / (4 / M) + 1 - what sorting takes of the variance: by
# simulation 1.00, 2.11, 4.55 for M = 2, 4, 8; for MeZO-Greedy E[min^2]: 1.00, 1.55, 2.40.
ALIGNMENT = [
    ("spsa", 2, 1.0), ("spsa", 8, 4.0), ("guided", 2, 1.0), ("guided", 4, 2.11), ("guided", 8, 4.55),
    ("greedy", 2, 1.0), ("greedy", 8, 2.40),
]  # fmt: skip


@pytest.mark.parametrize(("estimator", "population", "expected"), ALIGNMENT)
def test_the_estimate_is_as_close_to_the_gradient_as_theory_says(
    estimator: str, population: int, expected: float
) -> None:
    model = Valley()
    gradient = model.gradient()
    squares = []
    for seed in range(100):
        estimate = FullParameter(model, model, estimator, population, eps=1e-5, seed=seed).estimate()
        v = direction(model, seed, 0, estimate.weights)
        squares.append(len(v) * float(nn.functional.cosine_similarity(v, gradient, 0)) ** 2)
        # What a rate means: the step has d times the gradient's part along v, whatever the method and its pool. The z
        # are of unit mean square and orthogonal up to 1 / sqrt(d) = 0.03.
        assert float(v @ gradient / (gradient @ gradient)) == pytest.approx(squares[-1], rel=0.3)
    mean = sum(squares) / len(squares)
    deviation = math.sqrt(sum((square - mean) ** 2 for square in squares) / len(squares))
    assert abs(mean - expected) < 3.5 * deviation / math.sqrt(len(squares))


@pytest.mark.parametrize(
    ("estimator", "population", "ratio"), [("spsa", 2, 1.0), ("spsa", 8, 1 / 4), ("guided", 2, 2.0), ("guided", 4, 1.0)]
)
def test_the_papers_scale_is_theirs(estimator: str, population: int, ratio: float) -> None:
    """MeZO takes the mean over its directions; the square of MeZO-GV's v is d (1 / best + 1 / rest)."""
    model = Valley()
    own, paper = (
        FullParameter(model, model, estimator, population, 1e-5, paper_scale=scale).estimate().weights
        for scale in (False, True)
    )
    assert paper == pytest.approx({k: ratio * weight for k, weight in own.items()}, rel=1e-4)


def test_a_pool_of_two_in_the_papers_scale_is_spsa_at_twice_the_rate() -> None:
    """Along (z_0 - z_1) / sqrt(2) with a probe sqrt(2) as long: sorting two decides the sign, which does not matter."""
    model, eps, root = Valley(), 1e-2, math.sqrt(2)
    guided = FullParameter(model, model, "guided", 2, eps, paper_scale=True)
    weights = guided.estimate().weights
    losses = []
    for sign in (1, -1):
        guided.point.displace(0, {0: sign / root, 1: -sign / root}, eps * root)
        losses.append(float(model()))
    guided.point.restore()
    slope = (losses[0] - losses[1]) / (2 * eps * root)
    assert weights == pytest.approx({0: 2 * slope / root, 1: -2 * slope / root}, rel=1e-9)


@pytest.mark.parametrize(
    ("estimator", "dtype"),
    [("spsa", torch.float32), ("guided", torch.float32), ("greedy", torch.float32), ("spsa", torch.bfloat16)],
)
def test_the_loss_of_a_causal_model_falls(estimator: str, dtype: torch.dtype) -> None:
    language_model, loss = causal(dtype)
    first = float(loss())
    tuner = FullParameter(language_model.model, loss, estimator, population=4, eps=1e-3, lr=5e-4, seed=1)
    for _ in range(12):
        tuner.step()
    assert float(loss()) < first - 0.1


def test_steps_far_below_the_gaps_of_bfloat16_add_up() -> None:
    """Weights of 1 are 0.004 to 0.008 apart. 400 steps of 1e-5 make 0.004; to nearest they would make nothing."""
    model = nn.Linear(100, 100, bias=False).to(torch.bfloat16).eval()
    nn.init.ones_(model.weight)
    tuner = FullParameter(model, lambda: 0.0, seed=2)
    total = torch.zeros(10_000, dtype=torch.float64)
    for step in range(400):
        tuner.point.move(step, {0: 1.0}, 1e-3)
        total += 1e-3 * direction(model, 2, step, {0: 1.0})
    moved = flat(model).double() - 1
    assert float(moved @ total / (total @ total)) == pytest.approx(1, abs=0.03)


# -- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", METHODS)
def test_a_run_is_replayed_from_its_log_to_the_bit_and_goes_on(
    estimator: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    def fresh(loss: Callable[[Valley], float] = lambda model: float(model())) -> tuple[Valley, FullParameter]:
        model = Valley(dtype)
        return model, FullParameter(model, lambda: loss(model), estimator, 4, lr=1e-2, seed=4)

    model, tuner = fresh()
    for number in range(6):
        tuner.lr = 1e-2 / (1 + number)
        tuner.step()
        if number == 3:
            tuner.log.save(tmp_path / "half.jsonl")
    tuner.log.save(tmp_path / "run.jsonl")

    def never(model: Valley) -> float:
        raise AssertionError("a replay needs no forward")

    again, replayed = fresh(never)
    assert not same(memory(again), memory(model))
    replayed.replay(Log.load(tmp_path / "run.jsonl"))
    assert same(memory(again), memory(model))
    assert replayed.log == tuner.log
    assert replayed.evaluations == tuner.evaluations

    on, resumed = fresh()
    resumed.replay(Log.load(tmp_path / "half.jsonl"))
    for number in (4, 5):
        resumed.lr = 1e-2 / (1 + number)
        resumed.step()
    assert same(memory(on), memory(model))
    assert resumed.log == tuner.log


def test_a_seed_makes_a_run_and_the_chunks_do_not(tmp_path: Path) -> None:
    def run(seed: int, chunk: int, dtype: torch.dtype) -> list[Tensor]:
        model = Valley(dtype)
        tuner = FullParameter(model, model, "guided", 4, lr=0.1, seed=seed, chunk=chunk)
        torch.manual_seed(chunk)  # no global generator is read, and none is touched
        state = torch.get_rng_state()
        for _ in range(3):
            tuner.step()
        assert torch.equal(torch.get_rng_state(), state)
        return memory(model)

    for dtype in (torch.float32, torch.bfloat16):
        first = run(1, 0, dtype)
        for chunk in (1000, 100, 7):
            assert same(run(1, chunk, dtype), first)
        assert not same(run(2, 0, dtype), first)


def test_a_log_is_not_replayed_onto_anything_else(tmp_path: Path) -> None:
    model = Valley()
    tuner = FullParameter(model, model, lr=0.1)
    tuner.step()
    with pytest.raises(UserError, match="base"):
        FullParameter(Valley(torch.float32), model).replay(tuner.log)
    with pytest.raises(UserError, match="base"):
        FullParameter(model, model).replay(tuner.log)  # it has moved on
    with pytest.raises(UserError, match="seed"):
        FullParameter(Valley(), model, seed=1).replay(tuner.log)
    with pytest.raises(UserError, match="steps so far"):
        tuner.replay(tuner.log)
    (tmp_path / "other.jsonl").write_text('{"generation": 1}\n', encoding="utf-8")
    for name in ("other.jsonl", "nothing.jsonl"):
        with pytest.raises(UserError, match=name):
            Log.load(tmp_path / name)


# -- what goes wrong ------------------------------------------------------------------------------------------------


def losing(model: Valley, bad: set[int], value: float = math.nan) -> Callable[[], float]:
    """The model's loss, but for some calls."""
    calls = itertools.count()
    return lambda: value if next(calls) in bad else float(model())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_probes_without_a_loss_are_dropped(value: float) -> None:
    model = Valley()
    spsa = FullParameter(model, losing(model, {0, 3}, value), population=6).step()
    alone = FullParameter(model, model, population=6).estimate()
    assert list(spsa.weights) == [2]
    assert spsa.losses.count(None) == 2
    assert len(alone.slopes) == 3
    guided = FullParameter(model, losing(model, {1}, value), "guided", 4).step()
    assert sorted(guided.weights) == [0, 2, 3]
    greedy = FullParameter(model, losing(model, {0, 1, 2}, value), "greedy", 4).step()
    assert list(greedy.weights) == [3]


@pytest.mark.parametrize(
    ("estimator", "bad"),
    [
        ("spsa", {0, 2}), ("spsa", {0, 1, 2, 3}), ("guided", {0, 1, 2}), ("guided", {4}), ("greedy", {0, 1, 2, 3}),
        ("greedy", {5}),
    ],
)  # fmt: skip
def test_a_step_with_too_few_losses_changes_nothing_and_the_next_one_is_another(estimator: str, bad: set[int]) -> None:
    model = Valley(torch.float32)
    before = memory(model)
    tuner = FullParameter(model, losing(model, bad), estimator, 4, lr=0.1)
    assert tuner.step().weights == {}
    assert same(memory(model), before)
    assert tuner.step().step == 1
    assert not same(memory(model), before)


def test_losses_too_large_for_a_slope_change_nothing() -> None:
    model = Valley()
    before = memory(model)
    huge = itertools.cycle([1e308, -1e308])
    assert FullParameter(model, lambda: next(huge)).step().weights == {}
    assert same(memory(model), before)


def test_a_loss_that_raises_leaves_the_weights_as_they_were() -> None:
    model = Valley(torch.float32)
    before = memory(model)
    calls = itertools.count()

    def loss() -> Tensor:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return model()

    tuner = FullParameter(model, loss, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        tuner.step()
    assert same(memory(model), before)
    assert tuner.log.steps == []
    tuner.step()
    other = Valley(torch.float32)
    FullParameter(other, other, lr=0.1).step()
    assert same(memory(model), memory(other))


class Sharing(nn.Module):
    def __init__(self, start: int) -> None:
        super().__init__()
        whole = torch.randn(20)
        self.left, self.right = nn.Parameter(whole[:10]), nn.Parameter(whole[start : start + 10])
        self.eval()


def test_parameters_in_one_piece_of_memory_are_two_unless_they_overlap() -> None:
    FullParameter(Sharing(10), lambda: 0.0)
    with pytest.raises(UserError, match=r"left.*right|right.*left"):
        FullParameter(Sharing(9), lambda: 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "spas"}, "did you mean 'spsa'"), ({"population": 1}, "population"), ({"eps": 0.0}, "eps"),
        ({"lr": math.nan}, "--lr"), ({"best_share": 1.0}, "best-share"), ({"seed": -1}, "seed"),
        ({"chunk": -1}, "chunk"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FullParameter(Valley(), lambda: 0.0, **options)


def test_models_that_cannot_be_moved_are_refused() -> None:
    for model, message in (
        (Valley().train(), "training"),
        (nn.Linear(3, 3, device="meta").eval(), "meta"),
        (nn.Identity().eval(), "no floating-point"),
    ):
        with pytest.raises(UserError, match=message):
            FullParameter(model, lambda: 0.0)
    turned = nn.Linear(3, 4).eval()
    turned.weight = nn.Parameter(torch.randn(3, 4).T)
    with pytest.raises(UserError, match="weight"):
        FullParameter(turned, lambda: 0.0)


# -- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_takes_a_tenth_of_the_weights_at_most(dtype: torch.dtype) -> None:
    """At the papers' probe size and the usual weights (0.02); all that torch and numpy hold beyond a plain loss."""
    config = transformers.LlamaConfig(
        vocab_size=zoo.VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    loss = rows_loss(LanguageModel(model, None, "causal", ""), zoo.word_rows("causal", (40,) * 6), LABELS)
    tuner = FullParameter(model, loss, eps=1e-3, lr=1e-6, chunk=2**14)
    tuner.step()  # tables that are made once
    device = torch.device("cpu")
    weights = sum(parameter.nbytes for parameter in model.parameters())
    plain = peak_bytes(loss, device)
    held: list[int] = []

    def step() -> None:
        tracemalloc.start()
        try:
            tuner.step()
            held.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    peak = peak_bytes(step, device)
    assert 0.01 * weights < tuner.point.residue_bytes < 0.06 * weights
    assert peak + held[0] - plain < 0.1 * weights
