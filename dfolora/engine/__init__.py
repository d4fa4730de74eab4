"""Run a population: the hot path. Knows nothing of tasks or optimizers."""

from dfolora.engine.engine import Engine
from dfolora.engine.generate import Generated, Generator
from dfolora.engine.levers import Levers
from dfolora.engine.rows import Rows
from dfolora.engine.sequential import SequentialEngine

__all__ = ["Engine", "Generated", "Generator", "Levers", "Rows", "SequentialEngine"]
