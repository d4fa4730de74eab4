"""Interleaved timing of all ways to score a population over a sweep of the layers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dfolora.bench import cases, measure
from dfolora.bench.contenders import Contender, contenders
from dfolora.bench.optimizer_wait import waited
from dfolora.engine import Engine, Rows
from dfolora.engine.memory import chunk_tokens
from dfolora.errors import UserError, unknown
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models.adapter import Adapter, Factors
from dfolora.models.load import LanguageModel
from dfolora.optimizers import Optimizer, ahead, make_optimizer
from dfolora.problems.objectives import cross_entropy
from dfolora.settings.model import BenchSettings

RELATIVE_STEP = 0.5  # a candidate's change of a module's output, in units of that output
AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}  # of the scores' scale
OPTIMIZER, OPTIMIZER_DIM = "cma", 500
OPTIMIZERS = 6  # layers that take turns at most; with more of them each has longer to work ahead
LONGEST_SCORING = 0.02  # seconds that are pretended; a population is drawn well within

Report = Callable[[str], None]


def bench(
    config: BenchSettings, encode: Callable[[LanguageModel], Rows] | None = None, say: Report = lambda line: None
) -> dict[str, Any]:
    """Measure one case.

    Args:
        config: what to measure.
        encode: gives the rows of a real task for the loaded model; None: random tokens of the lengths asked.
        say: told what is going on.

    Returns:
        ``case, rows, optimizer_share, optimizer_share_serial`` and the settings; a row has ``name, ratio_to_pure,
        ratio_spread, candidates_per_second, utilisation, peak_memory_bytes``. The spread is the largest ratio of a
        repetition minus the smallest. Utilisation is the rate of floating-point operations, of the fastest that was
        seen in this run: never above 1. The optimizer's share is what a run waits for it, by the clock, while other
        layers are scored for at most 20 ms; the serial one is all its work, on one CPU thread in processor time.

    Raises:
        UserError: a setting that cannot work; rows whose class scores differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        return _bench(config, encode, say)
    finally:
        torch.set_num_threads(threads)


def _bench(config: BenchSettings, encode: Callable[[LanguageModel], Rows] | None, say: Report) -> dict[str, Any]:
    language_model = _model(config, config.dtype)
    dtype, device = next(language_model.model.parameters()).dtype, language_model.device
    batches = [encode(language_model)] if encode else _batches(config, language_model)
    adapter = _adapted(language_model, config.rank)
    layers = _layers(config, len(adapter.layers))
    candidates = {layer: _candidates(adapter, layer, config.population) for layer in layers}
    tokens = config.chunk_tokens or chunk_tokens(adapter.model, device)  # one size for all rows
    table = contenders(adapter, batches, config.population, tokens, config.levers, say)
    say("checking that all rows give the same class scores")
    difference = _agreement(table, layers, candidates, adapter, AGREEMENT[dtype])
    seconds: dict[str, list[float]] = {way.name: [] for way in table}
    speeds = []
    width = int(language_model.model.config.get_text_config().hidden_size)
    # What the engine finds out when a layer is first tuned is no part of a generation: one sweep before the clock runs.
    for layer in layers:
        for way in table:
            if way.every_layer and way.adapted:
                way.score(layer, candidates[layer])
    for repetition in range(config.repetitions):
        sweep = _sweep(table, layers, candidates, adapter, config.threads, device)
        for name, value in sweep.items():
            seconds[name].append(value)
        speeds.append(measure.product_speed(tokens, width, dtype, device, config.threads))
        ratio = sweep["pure"] / sweep["layerwise"]
        say(f"repetition {repetition + 1} of {config.repetitions}: layer-wise {ratio:.2f} x pure")
    say("counting operations and memory")
    middle = layers[len(layers) // 2]
    rows: list[dict[str, Any]] = []
    rates: dict[str, list[float]] = {}
    for way in table:
        ratios = [pure / each for pure, each in zip(seconds["pure"], seconds[way.name], strict=True)]
        at = layers if way.every_layer and way.adapted else [middle]
        flops = statistics.mean(_over(way, layer, candidates, measure.operations) for layer in at)
        rates[way.name] = [flops / each for each in seconds[way.name]]
        rows.append({
            "name": way.name,
            "ratio_to_pure": statistics.median(ratios),
            "ratio_spread": max(ratios) - min(ratios),
            "candidates_per_second": config.population / statistics.median(seconds[way.name]),
            "peak_memory_bytes": _over(way, layers[0], candidates, lambda run: measure.peak_bytes(run, device)),
        })  # fmt: skip
    # The machine can do what it was seen to do, be it in a product by itself or in a row of the table.
    fastest = max(*speeds, *(rate for row in rates.values() for rate in row))
    for row in rows:
        row["utilisation"] = statistics.median(rates[row["name"]]) / fastest
    generation = statistics.median(seconds["layerwise"])
    wait = _optimizer_wait(config.population, len(adapter.layers), generation, device)
    work = _optimizer_seconds(config.population, config.threads)
    return {
        "case": config.case,
        "rows": rows,
        "optimizer_share": wait / (wait + generation),
        "optimizer_share_serial": work / (work + generation),
        "optimizer": f"{OPTIMIZER}, d = {OPTIMIZER_DIM}",
        "kendall_tau_to_float32": _rank_agreement(config, adapter, batches, table, candidates, say),
        "score_difference": difference,
        "model": config.shape or config.model,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": config.threads,
        "population": config.population,
        "sequences": sum(rows.count for rows in batches),
        "padded_tokens": sum(rows.inputs["input_ids"].numel() for rows in batches),
        "real_tokens": sum(int(rows.lengths.sum()) for rows in batches),
        "chunk_tokens": tokens,
        "layers": layers,
        "repetitions": config.repetitions,
        "product_flops_per_second": max(speeds),
        "torch": torch.__version__,
    }


def _model(config: BenchSettings, dtype: str) -> LanguageModel:
    if config.shape:
        device = models.pick_device(config.device)
        return cases.build(config.shape, models.pick_dtype(dtype, device), device)
    return models.load(
        config.model, kind=config.kind, dtype=dtype, device=config.device,
        trust_remote_code=config.trust_remote_code, quantize=config.quantize,
    )  # fmt: skip


def _batches(config: BenchSettings, language_model: LanguageModel) -> list[Rows]:
    if language_model.kind not in ("masked", "causal"):
        raise UserError(f"task: a {language_model.kind} model is measured on a real task; name one")
    lengths: list[list[int]] = [[config.tokens] * config.examples]
    if config.lengths:
        lengths = []
        for name in config.lengths.split(","):
            if name not in cases.FEWGLUE_LENGTHS:
                raise unknown("lengths", name, cases.FEWGLUE_LENGTHS)
            lengths.append(list(cases.FEWGLUE_LENGTHS[name]))
    vocabulary = int(language_model.model.get_input_embeddings().weight.shape[0])
    return [cases.batch(each, vocabulary, seed) for seed, each in enumerate(lengths)]


def _adapted(language_model: LanguageModel, rank: int) -> Adapter:
    """An adapter in every layer, as in the middle of a search."""
    adapter = adapters.attach(language_model, rank)
    for layer in range(len(adapter.layers)):
        adapter.write(layer, _candidates(adapter, layer, 1))
    return adapter


def _candidates(adapter: Adapter, layer: int, population: int) -> Factors:
    """Random factors as most subspaces give them: one A for all candidates, a B for each."""
    factors = {}
    generator = torch.Generator().manual_seed(layer)
    for name, module in adapter.layers[layer].modules.items():
        now_a, now_b = module.factors()
        rank, width = now_a.shape
        a = torch.randn(1, rank, width, generator=generator) / width**0.5
        b = torch.randn(population, *now_b.shape, generator=generator)
        b *= RELATIVE_STEP * float(module.weight.norm(dim=1).mean()) / rank**0.5
        factors[name] = (a.to(now_a).expand(population, -1, -1), b.to(now_b))
    return factors


def _layers(config: BenchSettings, count: int) -> list[int]:
    if not config.layers:
        return list(range(count))
    try:
        chosen = sorted({int(layer) for layer in config.layers.split(",")})
    except ValueError as error:
        raise UserError(f"layers: {config.layers!r} is not a list of layers such as 0,4,8") from error
    if not 0 <= chosen[0] <= chosen[-1] < count:
        raise UserError(f"layers: {config.layers!r} is outside the model's layers, 0 to {count - 1}")
    return chosen


def _agreement(
    table: Sequence[Contender], layers: Sequence[int], candidates: dict[int, Factors], adapter: Adapter, limit: float
) -> float:
    """The largest difference of class scores from those of one candidate at a time, in units of their scale."""
    worst = 0.0
    truth = next(way for way in table if way.name == "sequential")
    for layer in (layers[0], layers[-1]):
        expected = truth.score(layer, candidates[layer])
        for way in table:
            if way.adapted:
                worst = max(worst, _difference(way, way.score(layer, candidates[layer]), expected, limit))
    before = adapter.state()
    adapter.clear()
    nothing = {name: (a, torch.zeros_like(b)) for name, (a, b) in candidates[layers[0]].items()}
    expected = truth.score(layers[0], nothing)
    for way in table:
        worst = max(worst, _difference(way, way.score(layers[0], nothing), expected, limit))
    adapter.restore(before)
    return worst


def _difference(way: Contender, scores: Tensor, expected: Tensor, limit: float) -> float:
    difference = float((scores - expected).abs().max() / expected.abs().max())
    if not difference < limit:
        raise UserError(f"bench: {way.name} gives other class scores than one candidate at a time, by {difference:.1e}")
    return difference


def _sweep(
    table: Sequence[Contender], layers: Sequence[int], candidates: dict[int, Factors], adapter: Adapter, threads: int,
    device: torch.device,
) -> dict[str, float]:  # fmt: skip
    """Seconds of a generation, averaged over an ascending sweep in which every incumbent moves."""
    seconds: dict[str, list[float]] = {way.name: [] for way in table}
    for index, layer in enumerate(layers):
        for way in table:
            if way.every_layer or index % -(-len(layers) // 3) == 0:
                run = lambda way=way, layer=layer: way.score(layer, candidates[layer])  # noqa: E731
                seconds[way.name].append(measure.seconds(run, device, threads))
        adapter.write(layer, adapter.read(layer))
    return {name: statistics.mean(values) for name, values in seconds.items()}


def _over(
    way: Contender, layer: int, candidates: dict[int, Factors], counter: Callable[[Callable[[], Any]], int]
) -> int:
    return counter(lambda: way.score(layer, candidates[layer]))


def _optimizer(population: int, seed: int = 0) -> Optimizer:
    return make_optimizer(OPTIMIZER, OPTIMIZER_DIM, population=max(population, 3), seed=seed)  # CMA-ES takes no fewer


def _optimizer_wait(population: int, layers: int, generation: float, device: torch.device) -> float:
    """Mean seconds of a generation in which a layer-wise search does nothing but wait for its optimizers."""
    optimizers = [_optimizer(population, seed) for seed in range(min(layers, OPTIMIZERS))]
    asleep = min(generation, LONGEST_SCORING)
    with ahead.threads(ahead.threads_beside(device)) as workers:
        return waited(optimizers, 10, lambda: time.sleep(asleep), workers)[0]


def _optimizer_seconds(population: int, threads: int) -> float:
    """Mean seconds of one ask and tell."""
    optimizer = _optimizer(population)
    generator = torch.Generator().manual_seed(0)
    rounds = 60  # long enough for a few eigendecompositions

    def run() -> None:
        for _ in range(rounds):
            optimizer.tell(torch.rand(len(optimizer.ask()), generator=generator))

    with ahead.threads(1):  # as in a run, where numpy's linear algebra uses one
        return measure.seconds(run, torch.device("cpu"), threads) / rounds


def _rank_agreement(
    config: BenchSettings, adapter: Adapter, batches: Sequence[Rows], table: Sequence[Contender],
    candidates: dict[int, Factors], say: Report,
) -> float | None:  # fmt: skip
    """Mean Kendall tau over layers of the candidates' losses against the same candidates in float32."""
    weights = next(adapter.model.parameters())
    if weights.dtype == torch.float32:
        return None
    say("ranking the same candidates in float32")
    layerwise = next(way for way in table if way.name == "layerwise")
    exact_adapter = adapters.attach(_model(config, "float32"), config.rank)
    exact_adapter.restore(adapter.state())
    engines = [Engine(exact_adapter, rows, config.chunk_tokens or 0) for rows in batches]
    labels = torch.cat([cases.labels(rows, seed) for seed, rows in enumerate(batches)]).to(weights.device)
    taus = []
    for layer, factors in candidates.items():
        exact = torch.cat([engine.scores(factors) for engine in engines], 1)
        ours = layerwise.score(layer, factors)
        taus.append(measure.kendall_tau(cross_entropy(ours, labels).mean(-1), cross_entropy(exact, labels).mean(-1)))
    return statistics.mean(taus)
