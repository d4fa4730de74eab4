"""Every subspace keeps its contract; scales and directions against numbers computed here from a plain forward."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from models_zoo import ZOO, attached, sentence_rows, word_rows
from torch import Tensor

from dfolora.engine import Engine, Rows
from dfolora.errors import UserError
from dfolora.models.adapter import Adapter, LoraModule
from dfolora.problems.objectives import cross_entropy
from dfolora.subspaces import Subspace, subspace_class, subspace_names, subspace_options
from dfolora.subspaces import measure as statistics
from dfolora.subspaces.directions import principal_directions, whitened

RANK, DIM, SCALE, SEED = 3, 41, 0.2, 7
LINEAR = [name for name in subspace_names() if subspace_class(name).linear]
QUERY_AND_KEY = [name for name in subspace_names() if subspace_class(name).target == "qk"]
MODELS = ["roberta", "gpt2", "llama", "gpt_neox", "t5"]
every_name = pytest.mark.parametrize("name", subspace_names())


@functools.cache
def bed(model: str, target: str = "qk") -> tuple[Adapter, Rows, Engine]:
    """A model with empty adapters and its batch; tests leave them as they are."""
    adapter = attached(model, RANK, incumbents=False, targets=(target,))
    rows = sentence_rows(True) if ZOO[model][0] == "encoder" else word_rows(ZOO[model][0])
    return adapter, rows, Engine(adapter, rows)


def make(name: str, model: str = "roberta", layer: int = 1, **changes: Any) -> Subspace:
    cls = subspace_class(name)
    adapter, _, engine = bed(model, cls.target)
    settings = {"dim": DIM, "seed": SEED, "scale": SCALE, **changes}
    measured = statistics.measure(adapter, engine, cls, RANK, settings["seed"])[layer]
    return cls(adapter.layers[layer], measured, RANK, device=torch.device("cpu"), **settings)


def normal(population: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(population, dim, generator=torch.Generator().manual_seed(seed))


@functools.cache
def inputs(model: str) -> dict[str, Tensor]:
    """Inputs of every adapted module and block on the real tokens, by hooks on one plain forward."""
    adapter, rows, _ = bed(model)
    mask = rows.inputs["attention_mask"].bool()
    store: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(module: Any, args: Any, kwargs: Any) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            store[name] = x[mask] if x.shape[:2] == mask.shape else x.reshape(-1, x.shape[-1])

        return keep

    names = [name for layer in adapter.layers for name in (layer.name, *layer.modules)]
    handles = [
        adapter.model.get_submodule(name).register_forward_pre_hook(hook(name), with_kwargs=True) for name in names
    ]
    with torch.no_grad():
        adapter.model(**rows.inputs)
    for handle in handles:
        handle.remove()
    return store


# -- the contract ----------------------------------------------------------------------------------------------------


@every_name
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("population", [1, 4])
def test_shapes(name: str, model: str, population: int) -> None:
    subspace = make(name, model)
    factors = subspace.factors(normal(population, subspace.dim).double())
    assert list(factors) == list(subspace.layer.modules)
    for key, (a, b) in factors.items():
        module = subspace.layer.modules[key]
        assert a.shape == (population, RANK, module.in_features)
        assert b.shape == (population, module.out_features, RANK)
        assert a.dtype == b.dtype == torch.float32
        assert a.any()
        assert b.any()


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("pca", 41),
        ("frozen-a", 41),
        ("paper", 40),
        ("xs", 18),
        ("aligned", 12),
        ("full", 192),
        ("factors", 384),
        ("lora", 384),
    ],
)
def test_dimensions(name: str, dim: int) -> None:
    assert make(name).dim == dim


@pytest.mark.parametrize("name", LINEAR)
def test_linear_in_z_from_the_base_model_on(name: str) -> None:
    subspace = make(name)
    u, v = normal(2, subspace.dim)
    both = subspace.factors(torch.stack([u, v, 2 * u - 3 * v, torch.zeros_like(u)]))
    for a, b in both.values():
        assert torch.equal(a[0], a[2])
        assert torch.allclose(2 * b[0] - 3 * b[1], b[2], atol=1e-5 * float(b.abs().max()))
        assert not b[3].any()


@every_name
def test_every_number_of_z_counts(name: str) -> None:
    subspace = make(name)
    z = torch.cat([torch.ones(1, subspace.dim), 1 + torch.eye(subspace.dim)])
    flat = torch.cat([part.flatten(1) for pair in subspace.factors(z).values() for part in pair], 1)
    assert bool((flat[1:] != flat[0]).any(1).all())


@pytest.mark.parametrize("name", ["factors", "lora"])
@pytest.mark.parametrize("model", MODELS)
def test_both_factors_start_at_the_base_model(name: str, model: str) -> None:
    subspace: Any = make(name, model)
    base = subspace.factors(torch.zeros(1, subspace.dim))
    z = normal(1, subspace.dim)
    moved = subspace.factors(z)
    assert len(z[0]) == sum(index.stop - index.start for pair in subspace.slices.values() for index in pair)
    for key, module in subspace.layer.modules.items():
        (a, b), (moved_a, moved_b), (of_a, of_b) = base[key], moved[key], subspace.slices[key]
        assert not b.any()
        rows = torch.arange(module.out_features) if module.rows is None else module.rows
        if name == "lora":
            bound = 1 / math.sqrt(module.in_features)
            assert 0.9 * bound < a.abs().max() <= bound
            assert torch.allclose((moved_a - a).flatten(), z[0, of_a], atol=1e-6)
            assert torch.allclose(moved_b[0, rows].flatten(), 2 * SCALE * z[0, of_b])
        else:
            assert torch.equal(a[0], make("frozen-a", model).factors(normal(1, DIM))[key][0][0])
            assert ((moved_a - a).square().mean(2) / a.square().mean(2)).mean() == pytest.approx(1, rel=0.5)
    if name == "factors":  # to first order as ``full``
        small, full = subspace.factors(1e-4 * z), make("full", model)
        b_part = torch.cat([z[:, of_b] for _, of_b in subspace.slices.values()], 1)
        for key, (a, b) in full.factors(1e-4 * b_part).items():
            assert torch.allclose(small[key][1] @ small[key][0], b @ a, atol=1e-3 * float((b @ a).abs().max()))


def test_the_loss_is_even_in_the_papers_z() -> None:
    _, rows, engine = bed("roberta")
    subspace = make("paper", scale=2.0)
    labels = torch.arange(rows.count) % 3
    for z in normal(4, subspace.dim):
        plus, minus, base = (
            cross_entropy(engine.scores(subspace.factors(torch.stack([z, -z, 0 * z]))), labels).mean(-1).tolist()
        )
        assert plus == pytest.approx(minus, rel=1e-5)
        assert abs(plus - base) > 1e-4
    linear = make("pca", scale=2.0)
    z = normal(1, linear.dim)
    plus, minus = cross_entropy(engine.scores(linear.factors(torch.cat([z, -z]))), labels).mean(-1).tolist()
    assert abs(plus - minus) > 1e-4


@every_name
def test_seeds(name: str) -> None:
    """The same seed gives the same factors whatever the global generator does."""
    z = normal(2, make(name).dim)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make(name).factors(z)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = make(name).factors(z), make(name, seed=SEED + 1).factors(z)
    for key, (a, b) in first.items():
        assert torch.equal(a, second[key][0])
        assert torch.equal(b, second[key][1])
        unchanged = torch.equal(a, other[key][0]) and torch.equal(b, other[key][1])
        assert unchanged != subspace_class(name).draws


@every_name
@pytest.mark.parametrize("model", ["roberta", "gpt2"])
def test_rebuilt_from_what_was_measured(name: str, model: str) -> None:
    """As a resumed run does: no forward pass, another adapter object, the same numbers bit for bit."""
    cls = subspace_class(name)
    adapter, _, engine = bed(model, cls.target)
    measured = statistics.measure(adapter, engine, cls, RANK, SEED)[2]
    fresh = attached(model, RANK, incumbents=False, targets=(cls.target,)).layers[2]
    z = normal(3, make(name, model).dim)
    one, two = (cls(at, measured, RANK, DIM, SEED, SCALE, torch.device("cpu")) for at in (adapter.layers[2], fresh))
    for key, (a, b) in one.factors(z).items():
        assert torch.equal(a, two.factors(z)[key][0])
        assert torch.equal(b, two.factors(z)[key][1])
    assert all(tensor.dtype == torch.float32 and not tensor.is_inference() for tensor in measured.values())


# -- scales ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LINEAR if name in QUERY_AND_KEY])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layer", [0, -1])
def test_a_standard_normal_z_changes_the_output_by_scale(name: str, model: str, layer: int) -> None:
    subspace = make(name, model, layer=layer, dim=200)
    factors = subspace.factors(normal(300, subspace.dim))
    for key, module in subspace.layer.modules.items():
        x = inputs(model)[key]
        searched = torch.arange(module.out_features) if module.rows is None else module.rows
        a, b = factors[key]
        change = torch.einsum("ti,pri,por->pto", x, a, b[:, searched])
        own = (x @ module.weight[searched].T).std()
        assert float(change.square().mean().sqrt() / own) == pytest.approx(SCALE, rel=0.12), key


@pytest.mark.parametrize("name", QUERY_AND_KEY)
@pytest.mark.parametrize("model", ["gpt2", "gpt_neox", "phi3", "modernbert"])
def test_value_rows_stay_zero(name: str, model: str) -> None:
    subspace = make(name, model)
    for key, (_, b) in subspace.factors(normal(2, subspace.dim)).items():
        rows = subspace.layer.modules[key].rows
        assert rows is not None
        value = torch.ones(b.shape[1], dtype=torch.bool)
        value[rows] = False
        assert value.any()
        assert not b[:, value].any()
        assert b[:, rows].any(-1).all()


@pytest.mark.parametrize("model", ["roberta", "gpt2"])
def test_the_papers_rule(model: str) -> None:
    adapter, _, _ = bed(model)
    share = 400 // (2 * len(adapter.layers[0].modules))
    for layer in (0, 2):
        if layer == 0:  # the embedding matrix stands for the hidden states
            hidden = adapter.model.get_input_embeddings().weight.std()
        else:
            x = inputs(model)[adapter.layers[layer].name].flatten()
            for _ in range(5):
                x = x.clamp(x.mean() - 3 * x.std(), x.mean() + 3 * x.std())
            hidden = x.std()
        std = SCALE * float(hidden) / math.sqrt(400)
        subspace: Any = make("paper", model, layer=layer, dim=400)
        for key in subspace.layer.modules:
            a, b = subspace.a_projection[key], subspace.b_projection[key]
            assert a.shape[0] == b.shape[0] == share
            assert float(a.std()) == pytest.approx(std, rel=0.03)
            bound = 1 / math.sqrt(share)
            if layer == 0:
                assert float(b.std()) == pytest.approx(std, rel=0.03)
            else:  # a linear layer's default
                assert float(b.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
                assert 0.99 * bound < float(b.abs().max()) <= bound


# -- directions ------------------------------------------------------------------------------------------------------


def cosines(rows: Tensor, directions: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    return (unit * torch.nn.functional.normalize(directions.double(), dim=1)).sum(1).abs()


@pytest.mark.parametrize("model", MODELS)
def test_pca_follows_the_inputs(model: str) -> None:
    subspace = make("pca", model)
    for key in subspace.layer.modules:
        x = inputs(model)[key]
        right = torch.linalg.svd(x.double(), full_matrices=False)[2]
        assert cosines(subspace.a[key], right[:RANK]).min() > 1 - 1e-4
        assert torch.allclose((x @ subspace.a[key].T).square().mean(0), torch.ones(RANK), atol=1e-3)


@pytest.mark.parametrize("tokens", [5, 200])
def test_principal_directions(tokens: int) -> None:
    """Fewer and more tokens than dimensions go different ways to the same answer, signs fixed."""
    x = normal(tokens, 12) * torch.linspace(3, 0.5, 12) + 1
    right = torch.linalg.svd(x.double(), full_matrices=False)[2][:4]
    found = principal_directions(x, 4)
    assert cosines(found, right).min() > 1 - 1e-6
    assert torch.allclose(found @ found.T, torch.eye(4), atol=1e-5)
    assert bool((found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all())
    assert torch.allclose(principal_directions(-x, 4), found, atol=1e-5)


@pytest.mark.parametrize("model", ["roberta", "gpt2", "llama"])
def test_xs_follows_the_weights(model: str) -> None:
    subspace = make("xs", model)
    factors = subspace.factors(normal(1, subspace.dim))
    for key, module in subspace.layer.modules.items():
        searched = torch.arange(module.out_features) if module.rows is None else module.rows
        left, _, right = torch.linalg.svd(module.weight[searched].double())
        assert cosines(subspace.a[key], right[:RANK]).min() > 1 - 1e-5
        b = factors[key][1][0, searched].double()
        outside = b - left[:, :RANK] @ (left[:, :RANK].T @ b)
        assert outside.norm() < 1e-4 * b.norm()


class Diagonal(Subspace):
    """Every module's leading inputs, each moved by one number of z; all that a package of one's own needs to write."""

    def __init__(self, *arguments: Any, strength: Annotated[float, "of a change"] = 1.0, **common: Any) -> None:
        self.strength = strength
        super().__init__(*arguments, **common)

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(principal_directions(x, rank), x)

    def build(self, dim: int) -> None:
        self.dim = self.rank * len(self.layer.modules)
        self.out = {
            name: self.normal(name, 1, module.out_features if module.rows is None else len(module.rows))
            for name, module in self.layer.modules.items()
        }

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        part = z.view(len(z), -1, self.rank)[:, list(self.layer.modules).index(name)]
        return self.strength * self.scale * self.out_std[name] * part[:, None] * self.out[name].T / self.rank**0.5


def test_a_class_of_ones_own_is_enough() -> None:
    assert subspace_class(Diagonal) is Diagonal
    assert list(subspace_options(Diagonal)) == ["strength"]
    assert subspace_options("pca") == {}
    adapter, _, engine = bed("gpt2")
    measured = statistics.measure(adapter, engine, Diagonal, RANK, SEED)[1]
    arguments = (adapter.layers[1], measured, RANK, DIM, SEED, SCALE, torch.device("cpu"))
    subspace, strong = Diagonal(*arguments), Diagonal(*arguments, strength=2.0)
    z = normal(200, subspace.dim)
    for key, (a, b) in subspace.factors(z).items():
        x, kept = inputs("gpt2")[key], subspace.layer.modules[key].rows
        assert kept is not None
        change = torch.einsum("ti,pri,por->pto", x, a, b[:, kept])
        own = (x @ subspace.layer.modules[key].weight[kept].T).std()
        assert float(change.square().mean().sqrt() / own) == pytest.approx(SCALE, rel=0.2)
        assert torch.allclose(strong.factors(z)[key][1], 2 * b)
    zero, moved = engine.scores(subspace.factors(torch.stack([0 * z[0], z[0]])))
    assert not torch.allclose(zero, moved, atol=1e-5)


def test_one_from_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "narrow.py").write_text("from dfolora.subspaces.pca import Pca\nclass Narrow(Pca): ...\n")
    folder = tmp_path / "narrow-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: narrow\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[dfolora.subspaces]\nnarrow = narrow:Narrow\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "narrow" in subspace_names()
    assert issubclass(subspace_class("narrow"), subspace_class("pca"))
    with pytest.raises(UserError, match="did you mean 'narrow'"):
        subspace_class("narow")


@pytest.mark.parametrize("wrong", [3, dict, Diagonal.a_side])
def test_what_is_no_subspace(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"subspace: .* is none; give a name such as 'pca'"):
        subspace_class(wrong)


def test_dimensions_too_small() -> None:
    for name, dim in (("pca", 1), ("frozen-a", 1), ("paper", 3)):
        with pytest.raises(UserError, match=f"subspace_dim: {dim} cannot work") as caught:
            make(name, dim=dim)
        assert "\n" not in str(caught.value)
        assert make(name, dim=dim + 1).dim == dim + 1
    with pytest.raises(UserError, match="subspace: unknown 'pcaa'; did you mean 'pca'"):
        subspace_class("pcaa")
