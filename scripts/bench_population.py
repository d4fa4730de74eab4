"""One generation of layer-wise search: the batched engine against a plain PEFT forward per candidate.

    python -m scripts.bench_population                 # 32 examples of 48 tokens, no padding, 1 thread, float32
    python -m scripts.bench_population --varied --json  # lengths spread as in few-shot SuperGLUE

A RoBERTa of random weights (12 layers, width 256); losses that differ end the run. The default start layers leave 12,
8, 5 and 1 blocks to run, 6.5 on average as in a whole sweep; the engine also pays for advancing its prefix cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaForMaskedLM

from dfolora import adapter as adapters
from dfolora.adapter import Adapter, Factors
from dfolora.engine import Engine, Rows
from dfolora.models import LanguageModel
from dfolora.objectives import cross_entropy

VOCABULARY, MASK, LABEL_TOKENS = 12565, 4, (205, 372)


def build() -> Adapter:
    """A post-LN RoBERTa with an adapter in every layer, as in the middle of a search."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=12, num_attention_heads=4, intermediate_size=1024,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    model = RobertaForMaskedLM(config).eval()
    adapter = adapters.attach(LanguageModel(model, None, "masked", "random-roberta"), rank=4)
    for layer in range(12):
        adapter.write(layer, candidates(adapter, layer, 1))
    return adapter


def candidates(adapter: Adapter, layer: int, population: int) -> Factors:
    """Random factors as most subspaces give them: one A for all candidates, a B for each."""
    factors = {}
    for name, module in adapter.layers[layer].modules.items():
        a, b = (torch.randn(n, *part.shape) for n, part in zip((1, population), module.factors(), strict=True))
        factors[name] = (a.expand(population, -1, -1) / a.shape[2] ** 0.5, 0.3 * b)
    return factors


def batch(examples: int, tokens: int, varied: bool) -> Rows:
    lengths = (tokens * torch.exp(0.45 * varied * torch.randn(examples))).round().long().clamp(8, 256)
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.where(real, torch.randint(5, VOCABULARY, real.shape), 1)
    ids.scatter_(1, positions := lengths[:, None] - 3, MASK)
    owner, two = torch.stack([torch.arange(examples), torch.full((examples,), -1)], 1), torch.full((examples,), 2)
    return Rows({"input_ids": ids, "attention_mask": real.long()}, positions, owner, two, torch.tensor(LABEL_TOKENS))


@torch.inference_mode()
def one_by_one(adapter: Adapter, rows: Rows, layer: int, factors: Factors, labels: Tensor) -> Tensor:
    """Losses by writing each candidate and running the PEFT model as it comes, full head included."""
    losses, row = [], torch.arange(rows.count)
    for p in range(len(next(iter(factors.values()))[0])):
        adapter.write(layer, {name: (a[p : p + 1], b[p : p + 1]) for name, (a, b) in factors.items()})
        logits = adapter.peft_model(**rows.inputs).logits[row, rows.positions[:, 0]][:, rows.columns]
        losses.append(cross_entropy(logits[None], labels))
    return torch.cat(losses)


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Processor seconds, so that whoever else uses the machine matters little, and the result."""
    start, result = time.process_time(), run()
    return time.process_time() - start, result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48, help="per example; with --varied the median")
    parser.add_argument("--varied", action="store_true", help="log-normal lengths (sigma 0.45), padded")
    parser.add_argument("--start-layers", default="0,4,7,11", help="ascending")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # processor time is wall time on one thread
    layers = sorted(int(layer) for layer in options.start_layers.split(","))
    adapter, rows = build(), batch(options.examples, options.tokens, options.varied)
    labels, engine = torch.arange(options.examples) % 2, Engine(adapter, rows)
    times: dict[int, list[tuple[float, float]]] = {layer: [] for layer in layers}
    worst = 0.0
    engine.incumbent_scores()  # warm-up
    for _ in range(options.rounds):
        for layer in layers:
            factors, before = candidates(adapter, layer, options.population), adapter.read(layer)
            fast, ours = timed(lambda f=factors, at=layer: cross_entropy(engine.scores(at, f), labels))
            slow, plain = timed(lambda f=factors, at=layer: one_by_one(adapter, rows, at, f, labels))
            worst = max(worst, float((ours - plain).abs().max() / (plain.max() - plain.min())))
            if worst > 1e-2:
                raise SystemExit(f"layer {layer}: the losses differ by {worst:.1e} of their range over the population")
            adapter.write(layer, before)
            times[layer].append((slow, fast))
    sweeps = zip(*times.values(), strict=True)
    sweep = statistics.median(sum(slow for slow, _ in turn) / sum(fast for _, fast in turn) for turn in sweeps)
    ratios = {layer: statistics.median(slow / fast for slow, fast in pairs) for layer, pairs in times.items()}
    if options.json:
        return print(json.dumps({**vars(options), "loss_difference": worst, "layers": ratios, "sweep": sweep}))
    print("start layer   one by one s   engine s   ratio")
    for layer, pairs in times.items():
        slow, fast = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"{layer:11d}   {slow:12.2f}   {fast:8.2f}   {ratios[layer]:5.2f}")
    print(f"a sweep: {sweep:.2f} times faster; losses differ by at most {worst:.1e} of their range")


if __name__ == "__main__":
    main()
