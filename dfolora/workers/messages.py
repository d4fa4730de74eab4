"""What the driver and its workers say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Order:
    """A slice of a population to score.

    Attributes:
        turn: number of the population, so that an answer to an earlier one is known as such.
        slice: number of the slice within it.
        part: index of the part that the candidates belong to.
        candidates: (p, d) float32.
        batch: (n,) int64, a minibatch; None: all examples.
        wants: ``losses``, ``example_losses`` or ``scores``.
        incumbents: part -> (d,) float32, those that have moved since the worker last heard of them.
    """

    turn: int
    slice: int
    part: int
    candidates: NDArray[Any]
    batch: NDArray[Any] | None
    wants: str
    incumbents: dict[int, NDArray[Any]]


@dataclass(frozen=True)
class Ready:
    """A worker has built its problem.

    Attributes:
        data_checksum: of its rows, labels and weights; that of the driver, or it would score something else.
        host: name of its machine.
    """

    data_checksum: str
    host: str


@dataclass(frozen=True)
class Scored:
    """What an order came to.

    Attributes:
        turn, slice: of the order.
        losses: (p,), lower is better.
        scores: (p, n, C) float32; None where they are not wanted.
        example_losses: (p, n) float32; None likewise.
        token_layers, forwards: what it cost.
    """

    turn: int
    slice: int
    losses: NDArray[Any]
    scores: NDArray[Any] | None
    example_losses: NDArray[Any] | None
    token_layers: int
    forwards: int


@dataclass(frozen=True)
class Died:
    """A worker's process is gone; ``reason`` in one line."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """A worker's own code raised ``error``: the same would happen anywhere."""

    error: Exception


Report = Ready | Scored | Died | Failed
