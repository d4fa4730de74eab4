"""The ways to score one population that are compared: all give the same losses for the same candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfolora.engine import BatchRunner, Edit, Engine, Rows, Savings, SequentialEngine
from dfolora.engine.patch import Forward
from dfolora.models.adapter import Adapter, Factors


@dataclass
class Contender:
    """One way to score a population.

    Attributes:
        name: the row's name.
        score: (layer, its factors) -> class scores (P, N, C), float32.
        every_layer: whether it is timed at every layer of a sweep; three of them do where the cost is always the same.
        adapted: False for the row that runs the model without adapters.
    """

    name: str
    score: Callable[[int, Factors], Tensor]
    every_layer: bool = False
    adapted: bool = True


class PureEngine(Engine):
    """Plain batched inference: the padded batch once per candidate, no adapters, the head at one position."""

    def __init__(self, adapter: Adapter, rows: Rows, chunk_tokens: int = 0) -> None:
        super().__init__(adapter, rows, chunk_tokens, dataclasses.replace(Savings.none(), answer_rows=True))

    def module_forwards(
        self, edits: Mapping[str, Edit], shared: frozenset[str], copies: int
    ) -> list[tuple[nn.Module, Forward]]:
        modules = [module.lora for layer in self.adapter.layers for module in layer.modules.values()]
        return [(module, module.base_layer.forward) for module in modules]


class GraphedEngine(SequentialEngine):
    """One candidate at a time, the kernels of its forward recorded once as a CUDA graph and launched as one.

    Candidates are written into the weights that the graph reads. Raises RuntimeError where the model's forward asks the
    GPU for a number on the way, which cannot be recorded.
    """

    def __init__(self, adapter: Adapter, rows: Rows) -> None:
        super().__init__(adapter, rows)
        self._graph = torch.cuda.CUDAGraph()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            with torch.cuda.stream(beside):  # libraries set themselves up at their first calls
                for _ in range(3):
                    self.plain_readings(self.rows)
            torch.cuda.current_stream().wait_stream(beside)
            with torch.cuda.graph(self._graph):
                self._readings = self.plain_readings(self.rows)

    def score_as_it_stands(self, rows: Rows) -> Tensor:
        assert rows is self.rows, "the graph is that of the whole batch"
        self._graph.replay()
        self.count(rows.inputs, 1)
        return rows.assemble(self._readings.clone())[0]


class MixedBatchEngine(BatchRunner):
    """PEFT's own batches of mixed adapters: a named adapter per candidate, the whole model, the full head.

    Args:
        adapter, rows, chunk_tokens: as for ``Engine``.
        population: P; as many adapters are added to the PEFT model and stay there.
    """

    def __init__(self, adapter: Adapter, rows: Rows, chunk_tokens: int, population: int) -> None:
        super().__init__(adapter, rows, chunk_tokens, Savings.none())
        self._peft_model = adapter.peft_model
        self._names = [f"candidate{p}" for p in range(population)]
        config = adapter.peft_model.peft_config["default"]
        for name in self._names:
            if name not in adapter.peft_model.peft_config:
                adapter.peft_model.add_adapter(name, config)
        adapter.peft_model.requires_grad_(False)

    @torch.inference_mode()
    def scores(self, factors: Factors) -> Tensor:
        """(P, N, C) class scores, as those of ``Engine.scores``."""
        for layer in self.adapter.layers:
            for name, module in layer.modules.items():
                for p, candidate in enumerate(self._names):
                    a, b = (part[p] for part in factors[name]) if name in factors else module.factors()
                    module.lora.lora_A[candidate].weight.copy_(a)
                    module.lora.lora_B[candidate].weight.copy_(b)
        rows, population = self.rows, len(self._names)
        chunk = max(1, self.chunk_tokens // rows.inputs["input_ids"].numel())
        readings = []
        for start in range(0, population, chunk):
            names = [name for name in self._names[start : start + chunk] for _ in range(rows.count)]
            copies = len(names) // rows.count
            inputs = {name: tensor.repeat(copies, 1) for name, tensor in rows.inputs.items()}
            output = self._peft_model(**inputs, adapter_names=names)
            readings.append(self.abilities.plain_readout.read(rows, output, copies))
        return rows.assemble(torch.cat(readings))


def contenders(
    adapter: Adapter, batches: Sequence[Rows], population: int, chunk_tokens: int, savings: bool,
    say: Callable[[str], None],
) -> list[Contender]:  # fmt: skip
    """Every row of the table.

    Args:
        adapter: the model with its adapter.
        batches: what each candidate is scored on.
        population: P.
        chunk_tokens: most padded tokens in one forward, for all rows but the sequential one.
        savings: whether to add the layer-wise row without each saving.
        say: told which row is left out, and why.
    """

    def over(engines: Sequence[Engine | MixedBatchEngine]) -> Callable[[int | None, Factors], Tensor]:
        return lambda layer, factors: torch.cat([engine.scores(factors) for engine in engines], 1)

    def everywhere(layer: int, factors: Factors) -> Factors:
        """Factors of all layers: the incumbents, but for one layer."""
        modules = {name: module for each in adapter.layers for name, module in each.modules.items()}
        pairs = {name: module.factors() for name, module in modules.items()}
        same = {name: (a.expand(population, -1, -1), b.expand(population, -1, -1)) for name, (a, b) in pairs.items()}
        return {**same, **factors}

    population_engines = [Engine(adapter, rows, chunk_tokens) for rows in batches]
    joint, pure = over(population_engines), over([PureEngine(adapter, rows, chunk_tokens) for rows in batches])
    table = [
        Contender("pure", pure, every_layer=True, adapted=False),
        Contender("layerwise", over([Engine(adapter, rows, chunk_tokens) for rows in batches]), every_layer=True),
        Contender("joint", lambda layer, factors: joint(None, everywhere(layer, factors))),
        Contender("sequential", over([SequentialEngine(adapter, rows) for rows in batches])),
        Contender("mixed-batch", over([MixedBatchEngine(adapter, rows, chunk_tokens, population) for rows in batches])),
    ]
    if _on_gpu(adapter):
        try:
            table.append(Contender("sequential-graph", over([GraphedEngine(adapter, rows) for rows in batches])))
        except RuntimeError as error:
            say(f"sequential-graph is left out: {str(error).splitlines()[0]}")
    for name in Savings.names() if savings else ():
        without = dataclasses.replace(Savings(), **{name: False})
        engines = [Engine(adapter, rows, chunk_tokens, without) for rows in batches]
        table.append(Contender(f"layerwise-without-{name.replace('_', '-')}", over(engines), every_layer=True))
    return table


def _on_gpu(adapter: Adapter) -> bool:
    return next(adapter.model.parameters()).is_cuda
