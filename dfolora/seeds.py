"""Seeds that follow from the run's seed by name, so that no two things draw the same numbers."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, what: str) -> int:
    """The seed of ``what``, 0 to 2**32 - 1: a layer's optimizer, a generation's minibatch."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{what}".encode(), digest_size=4).digest(), "little")
