"""Clocks and counters: seconds, floating-point operations, bytes, the speed of a matrix product."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import kendalltau
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

PRODUCT_TRIALS = 3
REPEATED_OPERATIONS = 10**9  # floating-point operations that are timed at once: many ticks of any clock


def seconds(run: Callable[[], Any], device: torch.device, threads: int) -> float:
    """How long it takes: processor time on one CPU thread, which other processes disturb little; else the clock."""
    if device.type == "cpu" and threads == 1:
        start = time.process_time()
        run()
        return time.process_time() - start
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and attentions in it."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """The most memory held at once beyond what was held before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def product_speed(tokens: int, width: int, dtype: torch.dtype, device: torch.device, threads: int) -> float:
    """The fastest of several matrix products, in floating-point operations per second: what the machine can do at best.

    They are those of a transformer's linear maps on so many tokens (attention's, and the two of a feed-forward four
    times as wide), on a quarter of them and on the whole, with the weight stored either way; each is timed several
    times, and the shortest time counts, which other processes disturb least.
    """
    fastest = 0.0
    for rows in {tokens, max(1, tokens // 4)}:
        for inside, outside in ((width, width), (width, 4 * width), (4 * width, width)):
            x = torch.randn(rows, inside, device=device).to(dtype)
            stored = torch.randn(outside, inside, device=device).to(dtype)
            for weight in (stored.T, stored.T.contiguous()):
                product = lambda x=x, weight=weight: x @ weight  # noqa: E731
                repeats = 1 + REPEATED_OPERATIONS // (2 * rows * inside * outside)
                times = [
                    seconds(lambda: [product() for _ in range(repeats)], device, threads)  # noqa: B023
                    for _ in range(PRODUCT_TRIALS)
                ]
                if min(times) > 0:  # a clock that ticks too slowly for so small a product tells nothing
                    fastest = max(fastest, repeats * 2 * rows * inside * outside / min(times))
    return fastest


def kendall_tau(left: torch.Tensor, right: torch.Tensor) -> float:
    """Rank agreement of two sets of losses (P,): 1 the same order, -1 the opposite; 1 where there is one candidate."""
    tau = float(kendalltau(left.double().cpu(), right.double().cpu()).statistic)
    return tau if math.isfinite(tau) else 1.0
