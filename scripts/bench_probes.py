"""A step of eight two-sided probes: all in one batched forward against one after the other, in place.

    python -m scripts.bench_probes

A causal model of random weights (12 layers, width 256), one batch, one thread, float32. All rows make whole steps of
MeZO's estimator: noise, losses, update. Rows: LoRA factors displaced in place, eight plain forwards of the PEFT model;
every weight displaced in place (``FullParameter``); the engine's batched forward with all layers' factors displaced at
once; the same, one layer a step, averaged over a sweep. Processor seconds, in turn within every repetition.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from dfolora.bench import cases, measure
from dfolora.engine import Engine, Rows, SequentialEngine
from dfolora.methods.full_parameter import FullParameter, rows_loss
from dfolora.models import adapter as adapters
from dfolora.models.adapter import Adapter
from dfolora.optimizers import make_optimizer
from dfolora.problems.objectives import cross_entropy
from dfolora.subspaces import Subspace, subspace_class
from dfolora.subspaces import measure as inputs

EPS, LR, RANK = 1e-2, 1e-4, 4


def in_place(adapter: Adapter, rows: Rows, labels: Tensor, population: int) -> Callable[[], None]:
    """MeZO's loop on the LoRA factors: seeds instead of stored noise, four passes over the factors a direction."""
    factors = [part for layer in adapter.layers for module in layer.modules.values() for part in module.factors()]
    engine = SequentialEngine(adapter, rows)
    seeds = itertools.count()

    def displace(seed: int, length: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        for part in factors:
            part.add_(torch.randn(part.shape, generator=generator), alpha=length)

    @torch.inference_mode()
    def step() -> None:
        slopes = {}
        for seed in itertools.islice(seeds, population // 2):
            sides = []
            for length in (EPS, -2 * EPS):
                displace(seed, length)
                sides.append(float(cross_entropy(engine.incumbent_scores()[None], labels)))
            displace(seed, EPS)
            slopes[seed] = (sides[0] - sides[1]) / (2 * EPS)
        for seed, slope in slopes.items():
            displace(seed, -LR * slope / len(slopes))

    return step


def batched(
    adapter: Adapter, engine: Engine, labels: Tensor, population: int, places: list[tuple[int | None, list[Subspace]]]
) -> list[Callable[[], None]]:
    """A step per place, with every probe of it a candidate of one batched forward."""

    def step_of(layer: int | None, subspaces: list[Subspace]) -> Callable[[], None]:
        dims = [subspace.dim for subspace in subspaces]
        optimizer = make_optimizer("spsa", sum(dims), population=population, sigma=EPS, lr=LR, update="sgd")

        def factors(z: Tensor) -> adapters.Factors:
            parts = zip(subspaces, z.split(dims, dim=1), strict=True)
            return {name: pair for subspace, part in parts for name, pair in subspace.factors(part).items()}

        def step() -> None:
            optimizer.tell(cross_entropy(engine.scores(factors(optimizer.ask())), labels))
            written = factors(optimizer.incumbent()[None])
            for index, each in enumerate(adapter.layers):
                if layer in (None, index):
                    adapter.write(index, {name: written[name] for name in each.modules})

        return step

    return [step_of(layer, subspaces) for layer, subspaces in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama12", help="a causal model of `dfolora bench --shape`")
    parser.add_argument("--lengths", default="", help="real lengths instead of --tokens: rte, cb or boolq")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    lengths = cases.FEWGLUE_LENGTHS[options.lengths] if options.lengths else [options.tokens]
    lengths = list(itertools.islice(itertools.cycle(lengths), options.examples))
    vocabulary = cases.build(options.shape, torch.float32, cpu).model.get_input_embeddings().weight.shape[0]
    rows = cases.batch(lengths, vocabulary)
    labels = cases.labels(rows)

    adapter = adapters.attach(cases.build(options.shape, torch.float32, cpu), RANK)
    engine = Engine(adapter, rows)
    kind = subspace_class("lora")
    measured = inputs.measure(adapter, engine, kind, RANK, seed=0)
    pairs = zip(adapter.layers, measured, strict=True)
    subspaces = [kind(layer, part, RANK, 0, 0, 1.0, cpu) for layer, part in pairs]
    plain = adapters.attach(cases.build(options.shape, torch.float32, cpu), RANK)
    start = {
        name: pair for subspace in subspaces for name, pair in subspace.factors(torch.zeros(1, subspace.dim)).items()
    }
    for each in (adapter, plain):
        for index, layer in enumerate(each.layers):
            each.write(index, {name: start[name] for name in layer.modules})
    whole = cases.build(options.shape, torch.float32, cpu)
    full = FullParameter(whole.model, rows_loss(whole, rows, labels), "spsa", population=options.probes)

    layerwise = batched(
        adapter, engine, labels, options.probes, [(index, [subspace]) for index, subspace in enumerate(subspaces)]
    )
    steps: dict[str, list[Callable[[], object]]] = {
        "in place, LoRA": [in_place(plain, rows, labels, options.probes)],
        "in place, all weights": [full.step],
        "batched, all layers": list(batched(adapter, engine, labels, options.probes, [(None, subspaces)])),
        "batched, layer-wise": list(layerwise),
    }
    for run in steps.values():  # what is found out once is no part of a step
        for step in run:
            step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.repetitions):
        for name, run in steps.items():
            taken[name].append(statistics.mean(measure.seconds(step, cpu, 1) for step in run))
    found = {}
    for name, own in taken.items():
        ratios = [base / each for base, each in zip(taken["in place, LoRA"], own, strict=True)]
        found[name] = {
            "seconds": statistics.median(own),
            "times_in_place": statistics.median(ratios),
            "spread": max(ratios) - min(ratios),
        }
    if options.json:
        return print(json.dumps({**vars(options), "rows": found}))
    for name, row in found.items():
        print(f"{name:24} {row['seconds']:7.3f} s  {row['times_in_place']:5.2f} x  (spread {row['spread']:.2f})")


if __name__ == "__main__":
    main()
