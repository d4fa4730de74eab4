"""Settings of published methods, by name: what ``--preset`` fills in where no value is given."""

from __future__ import annotations

from typing import Any

# What the MeZO papers have in common where they tune LoRA on OPT: r = 8, alpha = 16, A and B of all layers at once, SGD
# at a constant rate, epsilon 1e-2; of their grids {3e-5, 5e-5, 1e-4} and {5e-5, 1e-4} the rate that is in both. A step
# is measured on 16 examples drawn anew. They adapt query and value: --target.
_MEZO = {
    "subspace": "lora", "mode": "joint", "rank": 8, "scale": 1.0, "sigma": 1e-2, "lr": 5e-5,
    "update": "sgd", "noise": "gaussian", "paper_scale": True, "batch": 16, "selection": "incumbent",
    "objective": "cross-entropy",
}  # fmt: skip

# Where they tune all weights: epsilon 1e-3; of the grids {1e-6, 1e-7} of MeZO and {1e-7, 2e-7, 5e-7} of papers after
# it the rate that is in all of them.
_MEZO_FULL = {
    "method": "full-parameter", "sigma": 1e-3, "lr": 1e-7, "paper_scale": True, "batch": 16,
    "objective": "cross-entropy",
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    # arXiv 2403.01754 as released: one CMA-ES per layer over z in R^500, unbounded, sigma = alpha = 1, population 20;
    # the best candidate ever seen is kept; every 100 evaluations the dev set is run with the population's last one.
    "dfo-lora": {
        "optimizer": "cma", "subspace": "paper", "subspace_dim": 500, "sigma": 1.0, "scale": 1.0, "rank": 4,
        "population": 20, "incumbent": "best", "selection": "sample", "dev_every": 100, "visit": 1,
        "objective": "cross-entropy",
    },
    # arXiv 2305.17333 and its scripts: 20,000 steps of two forwards, a look at the dev set every 4000 of them.
    "mezo-lora": {**_MEZO, "optimizer": "spsa", "population": 2, "budget": 40_000, "dev_every": 8000},
    # arXiv 2601.04710, Table III: k = M = 4, alpha = 0.5; 5000 steps of M + 2 forwards, a look every 1000 of them.
    "mezo-gv-lora": {
        **_MEZO, "optimizer": "guided", "population": 4, "best_share": 0.5, "budget": 30_000, "dev_every": 6000,
    },
    # The same for the best of the pool alone, for which the paper names no other settings.
    "mezo-greedy-lora": {**_MEZO, "optimizer": "greedy", "population": 4, "budget": 30_000, "dev_every": 6000},
    # The same three on all weights.
    "mezo": {**_MEZO_FULL, "optimizer": "spsa", "population": 2, "budget": 40_000, "dev_every": 8000},
    "mezo-gv": {
        **_MEZO_FULL, "optimizer": "guided", "population": 4, "best_share": 0.5, "budget": 30_000, "dev_every": 6000,
    },
    "mezo-greedy": {**_MEZO_FULL, "optimizer": "greedy", "population": 4, "budget": 30_000, "dev_every": 6000},
}  # fmt: skip
