"""Seeds derived from the run's seed by name, so that no two things draw the same numbers."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, what: str) -> int:
    """Derive the seed of ``what``, such as a layer's optimizer or a generation's minibatch: 0 to 2**32 - 1."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{what}".encode(), digest_size=4).digest(), "little")
