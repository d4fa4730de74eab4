"""How fast a population is scored, in units of plain batched inference of the same sequences."""

from dfolora.bench.bench import bench
from dfolora.bench.cases import CASES, SHAPES

__all__ = ["CASES", "SHAPES", "bench"]
