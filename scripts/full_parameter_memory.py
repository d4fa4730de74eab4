"""Memory of a zeroth-order step on all weights against plain inference of the same batch.

    python -m scripts.full_parameter_memory --shape opt-1.3b --dtype bfloat16

A model of random weights and a known shape. Both figures count every tensor held at once, the weights included.
"""

from __future__ import annotations

import argparse
import json

import torch

from dfolora.bench import cases, measure
from dfolora.methods.full_parameter import FullParameter, rows_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama12", choices=list(cases.SHAPES))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--estimators", default="spsa,guided,greedy")
    parser.add_argument("--eps", type=float, default=1e-3)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the lines")
    options = parser.parse_args()
    device = torch.device(options.device)
    language_model = cases.build(options.shape, getattr(torch, options.dtype), device)
    model = language_model.model
    weights = sum(parameter.nbytes for parameter in model.parameters())
    rows = cases.batch([options.tokens] * options.examples, model.get_input_embeddings().weight.shape[0])
    loss = rows_loss(language_model, rows, cases.labels(rows))
    held = {"weights": weights, "inference": weights + measure.peak_bytes(loss, device)}
    for name in options.estimators.split(","):
        tuner = FullParameter(model, loss, name, population=2 if name == "spsa" else 4, eps=options.eps)
        held[name] = weights + measure.peak_bytes(tuner.step, device)
    if options.json:
        return print(json.dumps({**vars(options), "bytes": held}))
    for name, size in held.items():
        print(f"{name:10} {size / 1e6:8.1f} MB  {size / held['inference']:.3f} times inference")


if __name__ == "__main__":
    main()
