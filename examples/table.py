"""Methods side by side: a few seeds each at equal budget, mean and spread of the test score."""

from statistics import mean, stdev

import dfolora

METHODS = {
    "cma": {"optimizer": "cma"},
    "fzoo": {"optimizer": "fzoo", "population": 8},
    "first-order": {"method": "first-order", "budget": 65},  # a gradient step costs about three evaluations
}

print(f"{'method':12s} zero-shot  tuned")
for name, options in METHODS.items():
    scores = [dfolora.tune(task="demo/pair", seed=seed, **{"budget": 200, **options}).scores for seed in (1, 2)]
    before = mean(score["zero_shot"]["accuracy"] for score in scores)
    after = [score["tuned"]["accuracy"] for score in scores]
    print(f"{name:12s} {before:9.1f}  {mean(after):.1f} ± {stdev(after):.1f}")
