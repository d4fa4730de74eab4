"""What the engine leaves out, one switch each: all of it exact. A benchmark turns one off to see what it is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Savings:
    """Which savings may be used.

    Attributes:
        prefix: blocks below the tuned layer run once per visit, and candidates resume there.
        shared: products of the tuned layer whose input is equal for all candidates run once.
        answer_rows: only answer positions reach the head.
        label_columns: only label tokens leave it.
        last_block: the last block computes answer positions only.
        buckets: rows are cut into batches of similar length.
        no_mask: a batch without padding runs without an attention mask.
        shared_prompt: the prompt runs once for all choices of an example.
        padding_free: sequences of various lengths run without padding.
    """

    prefix: bool = True
    shared: bool = True
    answer_rows: bool = True
    label_columns: bool = True
    last_block: bool = True
    buckets: bool = True
    no_mask: bool = True
    shared_prompt: bool = True
    padding_free: bool = True

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def none(cls) -> Savings:
        return cls(**dict.fromkeys(cls.names(), False))

    def without(self, names: Iterable[str]) -> Savings:
        """These savings, but for some that are named."""
        return dataclasses.replace(self, **dict.fromkeys(names, False))
