"""A loop of your own: ``dfolora.problem`` is a black box, candidates in and losses out, without a run folder."""

from tempfile import mkdtemp

import torch

import dfolora

problem = dfolora.problem(task="demo/pair", mode="joint", subspace_dim=50)  # all layers at once are one part
best, step = torch.zeros(problem.parts[0].dim), 0.3
lowest = first = problem.losses(best[None])[0]
for _ in range(30):
    candidates = best + step * torch.randn(20, len(best))  # (P, d)
    losses = problem.losses(candidates)  # (P,), one batched forward
    if losses.min() < lowest:
        lowest, best = losses.min(), candidates[losses.argmin()]
problem.keep(best)  # the model holds it now
problem.save(folder := mkdtemp() + "/adapter")  # an ordinary PEFT folder
print(f"loss {first:.3f} -> {lowest:.3f}")
print(dfolora.evaluate(task="demo/pair", adapter=folder)["metrics"])
