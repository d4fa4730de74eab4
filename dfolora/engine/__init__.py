"""Run a population: the hot path. Knows nothing of tasks or optimizers."""

from dfolora.engine.engine import Engine
from dfolora.engine.rows import Rows

__all__ = ["Engine", "Rows"]
