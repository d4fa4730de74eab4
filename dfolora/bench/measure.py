"""Clocks and counters: seconds, floating-point operations, bytes, the speed of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


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
    """Floating-point operations per second of (tokens, width) x (width, 4 width), what a feed-forward does at best."""
    left = torch.randn(tokens, width, device=device).to(dtype)
    right = torch.randn(width, 4 * width, device=device).to(dtype)
    left @ right
    repeats = 10
    taken = seconds(lambda: [left @ right for _ in range(repeats)], device, threads)
    return repeats * 2 * tokens * width * 4 * width / taken


def kendall_tau(left: torch.Tensor, right: torch.Tensor) -> float:
    """Rank agreement of two sets of losses (P,): 1 the same order, -1 the opposite (Kendall 1938, tau-a)."""
    signs = [(values[:, None] - values[None]).sign() for values in (left.double(), right.double())]
    pairs = len(left) * (len(left) - 1)
    return float((signs[0] * signs[1]).sum() / pairs) if pairs else 1.0
