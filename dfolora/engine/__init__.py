"""Run a population: the hot path. Knows nothing of tasks or optimizers."""

from dfolora.engine.base import BatchRunner
from dfolora.engine.edits import Edit, Edits, LowRank
from dfolora.engine.engine import Engine
from dfolora.engine.generate import Draw, Generated, Generator
from dfolora.engine.rows import Rows
from dfolora.engine.savings import Savings
from dfolora.engine.sequential import SequentialEngine

__all__ = [
    "BatchRunner", "Draw", "Edit", "Edits", "Engine", "Generated", "Generator", "LowRank", "Rows", "Savings",
    "SequentialEngine",
]  # fmt: skip
