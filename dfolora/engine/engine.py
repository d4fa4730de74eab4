"""Score a population of candidate adapters in batched forwards of the unmodified model.

Layer-wise search leaves everything below the tuned layer as it is for every candidate, so those blocks run once per
visit and each candidate resumes at the tuned one; within it, products whose inputs are still equal run once. Only
answer positions reach the language-model head and only label tokens leave it. All of it is exact: the class scores are
those of setting the weights one candidate at a time, up to rounding.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine import memory
from dfolora.engine.blocks import BlockOrder, Prefix
from dfolora.engine.levers import Levers
from dfolora.engine.lora import incumbent_forward, population_forward, shared_forward
from dfolora.engine.packing import model_inputs, share_prompts
from dfolora.engine.padded import Padded
from dfolora.engine.padding_free import PaddingFree, first_position
from dfolora.engine.patch import Forward, patched
from dfolora.engine.readout import Readout
from dfolora.engine.rows import Rows, buckets
from dfolora.engine.trials import RowInputs, shared_maps
from dfolora.models.adapter import Adapter, Factors

# What one more forward costs, in tokens: the price of another length bucket.
LAUNCH_TOKENS = {"cpu": 16, "cuda": 512}


@dataclass
class _Bucket:
    index: Tensor  # positions of its rows in the whole batch
    layout: Padded | PaddingFree
    prefix: Prefix
    versions: list[int]


class Engine:
    """Class scores of a fixed batch under candidate adapters.

    Attributes:
        token_layers: tokens x blocks computed so far, padding included: the honest unit of cost.
        forwards: model forwards so far.
        backwards: backward passes so far; none but ``Gradient`` makes any.
    """

    def __init__(self, adapter: Adapter, rows: Rows, chunk_tokens: int = 0, levers: Levers | None = None) -> None:
        """Watch the model run once and cut the batch into length buckets.

        Args:
            adapter: the model with its LoRA modules.
            rows: the batch.
            chunk_tokens: most padded tokens in one forward; 0: what is fastest on the device and fits.
            levers: which savings to use; None: all of them.
        """
        self.adapter = adapter
        self.model = adapter.model
        self.levers = levers or Levers()
        device = next(self.model.parameters()).device
        self.chunk_tokens = chunk_tokens or memory.chunk_tokens(self.model, device)
        self.rows = rows.to(device)
        self.token_layers = self.forwards = self.backwards = 0
        self._single = self.rows  # as they came: one row a choice
        if self.levers.shared_prompt:
            with torch.inference_mode():
                self.rows = share_prompts(adapter, self.rows, self._forward, self.chunk_tokens)
        self._shared: dict[int, frozenset[str]] = {}  # by layer, found when it is first tuned
        with torch.inference_mode():
            # The longest rows: on rows of one token every position would look like the answer's.
            longest = self.rows.lengths.argsort(descending=True, stable=True)[:3]
            self.readout = Readout(self.model, self.rows.take(longest), self._forward, self.levers)
            modules = [module for layer in adapter.layers for module in layer.modules.values()]
            probe = RowInputs([module.lora for module in modules], self._probe)
            self.order = BlockOrder(self.model, probe, [layer.name for layer in adapter.layers])
            self._together = probe.always()
            if self.order.resumable and self.levers.last_block and self._ends_in_answers(self.order.blocks[-1].stack):
                last = self.order.blocks[-1]
                own = [layer.modules.values() for layer in adapter.layers if layer.name == last.name]
                self.readout.thin_out(last.module, [module.lora for modules in own for module in modules])
            self._block_of = [self.order.index[layer.name] for layer in adapter.layers]
            if self.order.resumable and self.levers.prefix and len(self.order.blocks) > 1:
                self._try_to_skip_stem(self.rows.take(longest))
            unmasked = self.levers.no_mask and self.readout.ignores_full_mask(self.rows.take(longest[:1]))
            first = self._first_position(self.rows.take(longest))
        layouts: list[tuple[Tensor, Padded | PaddingFree]]
        if first is None:
            layouts = [(cut, Padded(self.rows.take(cut), unmasked)) for cut in self._cuts(self.rows)]
        else:
            dtype = self._dtype_and_device()[0]
            layouts = [(cut, PaddingFree(self.rows.take(cut), first, dtype)) for cut in self._full_cuts()]
        self._buckets = [_Bucket(index, layout, Prefix(0, {}), []) for index, layout in layouts]

    @torch.inference_mode()
    def scores(self, factors: Factors, examples: Tensor | None = None) -> Tensor:
        """Score a population.

        Args:
            factors: module name -> (A (P, r, in), B (P, out, r)), of any modules; all others are at their incumbents.
                Blocks below the lowest one touched run once for all candidates.
            examples: (n,) int64, a minibatch: which examples to score, each once; None: all N in their order. The
                prefix cache is kept for all of them, so that another minibatch finds it.

        Returns:
            (P, N or n, C) float32; -inf for classes that an example does not have.
        """
        population = next(iter(factors.values()))[0].shape[0]
        return self._all_buckets(self._only_layer(factors), self._cast(factors), population, examples)

    @torch.inference_mode()
    def incumbent_scores(self, examples: Tensor | None = None) -> Tensor:
        """(N or n, C) float32: class scores with every layer at its incumbent; ``examples`` as for ``scores``."""
        return self._all_buckets(None, {}, 1, examples)[0]

    def _only_layer(self, factors: Factors) -> int | None:
        """The one layer that the factors belong to; None where they belong to several."""
        touched = {
            index for index, layer in enumerate(self.adapter.layers) if not factors.keys().isdisjoint(layer.modules)
        }
        return touched.pop() if len(touched) == 1 else None

    def running(self, factors: Factors, copies: int) -> AbstractContextManager[None]:
        """Within it a call of the model, whole, is ``copies`` candidates on rows in candidate-major order.

        Args:
            factors: their factors, P = ``copies``, of any layers; all others are at their incumbents.
            copies: at most what ``at_once`` says.
        """
        return patched(self._lora(self._cast(factors), frozenset(), copies))

    def at_once(self, population: int, most: int) -> int:
        """How many candidates to run together where ``most`` fit."""
        if not self._together:
            return 1
        chunks = -(-population // max(1, most))
        return -(-population // chunks)  # of equal size: a short last one wastes what a launch costs

    @property
    def batches(self) -> list[Rows]:
        """The batch in length buckets, one row a choice: what is measured on it does not depend on what is saved."""
        return [self._single.take(cut) for cut in self._cuts(self._single)]

    @torch.inference_mode()
    def run_plain(self, rows: Rows) -> None:
        """One forward of the model as it is, nothing cut short: for hooks that look at hidden states."""
        self._forward(rows.inputs)

    def reset_counts(self) -> None:
        self.token_layers = self.forwards = self.backwards = 0

    def _ends_in_answers(self, stack: str) -> bool:
        """Whether answers are read behind this stack: not behind an encoder that alone is adapted."""
        return "decoder_input_ids" not in self.rows.inputs or ".decoder." in f".{stack}."

    def _try_to_skip_stem(self, few: Rows) -> None:
        """Leave the embeddings out of resumed runs where that changes nothing: some models read them again later."""
        prefix = self.order.advance(Prefix(0, {}), 1, lambda: self._forward(few.inputs))

        def read(spoiled: list[tuple[nn.Module, Forward]]) -> Tensor:
            with patched([*self.order.resume(prefix, 2), *self.readout.replacements(few, 2), *spoiled]):
                output = self._forward({name: tensor.repeat(2, 1) for name, tensor in few.inputs.items()})
            return self.readout.read(few, output, 2)

        def spoil(module: nn.Module) -> tuple[nn.Module, Forward]:
            forward = module.forward
            return module, lambda *args, **kwargs: torch.full_like(forward(*args, **kwargs), torch.nan)

        # NaN in place of the embeddings: whoever still read them could not hide it.
        self.order.skip_stem = self.readout.close(read([spoil(module) for module in self.order.stem]), read([]))

    def _cuts(self, rows: Rows) -> list[Tensor]:
        """Indices of the rows of each length bucket."""
        device = rows.owner.device
        if not self.levers.buckets:
            return [torch.arange(rows.count, device=device)]
        overhead = LAUNCH_TOKENS.get(device.type, LAUNCH_TOKENS["cuda"])
        cuts = buckets(rows.lengths.tolist(), max(self.chunk_tokens // 4, 1), overhead)
        return [torch.tensor(cut, device=device) for cut in cuts]

    def _first_position(self, few: Rows) -> int | None:
        """What ``padding_free`` counts positions from; None where it does not work or is not wanted."""
        if not self.levers.padding_free or len(self.rows.lengths.unique()) == 1:
            return None
        config = self.model.config.get_text_config()
        pad, most = getattr(config, "pad_token_id", None), getattr(config, "max_position_embeddings", None)
        numbers = [0]
        if pad is not None and pad >= 0 and (most is None or int(few.lengths.max()) + pad < most):
            numbers.append(pad + 1)  # RoBERTa's positions begin behind the number of its padding token
        block, dtype = self.order.blocks[0].module, self._dtype_and_device()[0]
        return first_position(few, self.readout, block, self._forward, numbers, dtype)

    def _full_cuts(self) -> list[Tensor]:
        """Indices of rows, the shortest first, whose tokens fill a quarter of a chunk."""
        cuts: list[list[int]] = [[]]
        held = 0
        lengths = self.rows.lengths.tolist()
        for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
            length = lengths[row]
            if cuts[-1] and held + length > self.chunk_tokens // 4:
                cuts.append([])
                held = 0
            cuts[-1].append(row)
            held += length
        return [torch.tensor(cut, device=self.rows.owner.device) for cut in cuts]

    def _all_buckets(
        self, layer: int | None, factors: Factors, population: int, examples: Tensor | None = None
    ) -> Tensor:
        wanted, keep = self.rows, torch.ones(self.rows.count, dtype=torch.bool, device=self.rows.owner.device)
        if examples is not None:
            index, wanted = self.rows.of(examples.to(keep.device))
            keep = torch.zeros_like(keep).index_fill_(0, index, True)
        readings: Tensor | None = None
        for bucket in self._buckets:
            chosen = None if examples is None else keep[bucket.index].nonzero()[:, 0]
            if chosen is not None and not len(chosen):
                continue
            index = bucket.index if chosen is None else bucket.index[chosen]
            layout, states = (bucket.layout, None) if chosen is None else bucket.layout.pick(chosen)
            chunk = self.at_once(population, self.chunk_tokens // layout.inputs["input_ids"].numel())
            for start in range(0, population, chunk):
                part = {name: (a[start : start + chunk], b[start : start + chunk]) for name, (a, b) in factors.items()}
                copies = min(chunk, population - start)
                reading = self._run(bucket, layout, states, layer, part, copies)
                if readings is None:
                    readings = reading.new_empty(population, self.rows.count, *reading.shape[2:])
                readings[start : start + copies, index] = reading
        assert readings is not None, "a batch has rows"
        return wanted.assemble(readings if examples is None else readings[:, keep])

    def _run(
        self, bucket: _Bucket, layout: Padded | PaddingFree, states: Tensor | None, layer: int | None, factors: Factors,
        copies: int,
    ) -> Tensor:  # fmt: skip
        """Readings of ``copies`` candidates on a bucket, or the part of it that has these hidden states."""
        prefix = Prefix(0, {})
        shared: frozenset[str] = frozenset()
        if layer is not None and self.order.resumable and self.levers.prefix:
            prefix = self._prefix(bucket, self._block_of[layer])
            if states is not None:
                prefix = self.order.pick(prefix, states)
            if layer not in self._shared:
                self._shared[layer] = self._shared_maps(layer) if self.levers.shared else frozenset()
            shared = self._shared[layer]
        own = layout.replacements(self.readout, self._lora(factors, shared, copies), copies)
        with patched([*own, *self.order.resume(prefix, copies)]):
            output = layout.run(self._forward, copies)
        self._count(layout.inputs, copies, prefix.depth, len(self.order.blocks))
        return layout.read(self.readout, output, copies)

    def _forward(self, inputs: dict[str, Tensor]) -> Any:
        options = {} if self.rows.sentences or not _takes_cache(self.model) else {"use_cache": False}
        return self.model(**model_inputs(inputs, self._dtype_and_device()[0]), **options, return_dict=True)

    def _prefix(self, bucket: _Bucket, depth: int) -> Prefix:
        """The bucket's cached state below ``depth``, carried up from where it stands if nothing beneath has moved."""
        below = [self.adapter.versions[i] for i, block in enumerate(self._block_of) if block < bucket.prefix.depth]
        if bucket.prefix.depth > depth or bucket.versions != below:
            bucket.prefix = Prefix(0, {})
        if bucket.prefix.depth < depth:
            self._count(bucket.layout.inputs, 1, bucket.prefix.depth, depth)
            with patched(self._lora({}, frozenset(), 1)):
                run = lambda: bucket.layout.run(self._forward, 1)  # noqa: E731
                bucket.prefix = self.order.advance(bucket.prefix, depth, run)
            bucket.versions = [self.adapter.versions[i] for i, block in enumerate(self._block_of) if block < depth]
        return bucket.prefix

    def _lora(self, factors: Factors, shared: frozenset[str], copies: int) -> list[tuple[nn.Module, Forward]]:
        replacements: list[tuple[nn.Module, Forward]] = []
        for index, layer in enumerate(self.adapter.layers):
            for name, module in layer.modules.items():
                if name in factors:
                    forward = population_forward(module, *factors[name], shared_input=name in shared)
                else:
                    forward = incumbent_forward(module, self.adapter.active[index])
                replacements.append((module.lora, forward))
        plain = [name for name in shared if name not in factors]
        if copies > 1:
            modules = [self.model.get_submodule(name) for name in plain]
            replacements += [(module, shared_forward(module, copies)) for module in modules]
        return replacements

    def _count(self, inputs: dict[str, Tensor], copies: int, start: int, stop: int) -> None:
        self.forwards += 1
        for block in self.order.blocks[start:stop]:
            decoder = "decoder_input_ids" in inputs and ".decoder." in f".{block.stack}."
            tokens = inputs["decoder_input_ids" if decoder else "input_ids"].numel()
            self.token_layers += copies * tokens * block.calls

    def _probe(self, count: int) -> Any:
        """A plain forward of ``count`` rows, repeated from the first ones where the batch has fewer."""
        return self._forward(self.rows.take(self._first(count)).inputs)

    def _first(self, count: int) -> Tensor:
        return torch.arange(count, device=self.rows.owner.device) % self.rows.count

    def _shared_maps(self, layer: int) -> frozenset[str]:
        """Linear maps in a layer's block whose inputs do not depend on the candidate."""
        if not self.order.resumable:
            return frozenset()
        # The longest rows: a token alone attends to itself whatever query and key are, and would make all look shared.
        few = self.rows.take(self.rows.lengths.argsort(descending=True, stable=True)[:4])
        inputs = {name: tensor.repeat(2, 1) for name, tensor in few.inputs.items()}
        modules = [module.lora for module in self.adapter.layers[layer].modules.values()]
        return shared_maps(self.order.blocks[self._block_of[layer]], modules, lambda: self._forward(inputs))

    def _cast(self, factors: Factors) -> Factors:
        dtype, device = self._dtype_and_device()
        return {name: (_cast(a, dtype, device), _cast(b, dtype, device)) for name, (a, b) in factors.items()}

    def _dtype_and_device(self) -> tuple[torch.dtype, torch.device]:
        parameter = next(p for p in self.model.parameters() if p.dtype.is_floating_point)
        return parameter.dtype, parameter.device


def _cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cast a factor; a view expanded over the population stays one."""
    if tensor.stride(0) == 0 and tensor.shape[0] > 1:
        return tensor[:1].to(device, dtype).expand(tensor.shape)
    return tensor.to(device, dtype)


def _takes_cache(model: nn.Module) -> bool:
    return getattr(model.config, "use_cache", None) is not None
