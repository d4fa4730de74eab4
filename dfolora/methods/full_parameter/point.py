"""All parameters of a model as one point that is moved in place, chunk by chunk.

A direction is {k: w_k}, the sum of w_k z_k over the probes k of a step; it is never held, only drawn a chunk at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dfolora.errors import UserError
from dfolora.methods.full_parameter.noise import ROUNDING, Address, normal, uniform
from dfolora.methods.full_parameter.rounding import DTYPES, Residue, bits, displace, replace, stochastic

Weights = Mapping[int, float]
CHUNK = {"cpu": 2**16, "cuda": 2**22}  # weights: what stays in cache, what fills a GPU
_FINGERPRINT = 2**12  # of each tensor, so that it does not read them all


class Point:
    """The parameters of a model as one point x, which can be displaced, restored and moved.

    Tied parameters are one; buffers and parameters that are not floating-point numbers stay as they are.

    Attributes:
        tensors: name and flat view of each parameter, in the model's order.
        dim: d, how many weights there are.
        residue_bytes: the most that was ever held to restore the weights.
    """

    def __init__(self, model: nn.Module, seed: int, chunk: int = 0) -> None:
        """Find the parameters.

        Args:
            model: unmodified, on any devices.
            seed: of the noise, 0 to 2**32 - 1.
            chunk: weights that are handled at once; 0: what suits the device. It changes no number.

        Raises:
            UserError: an argument out of range; a parameter that cannot be moved in place.
        """
        if not 0 <= seed < 2**32:
            raise UserError(f"seed: {seed} is out of range; it takes 0 to {2**32 - 1}")
        if chunk < 0:
            raise UserError(f"chunk: {chunk} is no number of weights; it takes 1 or more, or 0 for what suits")
        self._seed = seed
        self._chunk = chunk
        self.tensors = _tensors(model)
        self.dim = sum(len(flat) for _, flat in self.tensors)
        self.residue_bytes = 0
        self._held: tuple[int, Weights, float] | None = None  # step, direction and scale of the displacement in force
        self._residues: dict[tuple[int, int], Residue] = {}  # by parameter and start of the chunk

    def displace(self, step: int, direction: Weights, scale: float) -> None:
        """Move to x + scale v, from x or from wherever another displacement has moved."""
        self._sweep(step, displacement=(direction, scale))

    def restore(self) -> None:
        """Back to x, the same to the last bit."""
        if self._held is not None:
            self._sweep(self._held[0])

    def move(self, step: int, direction: Weights, scale: float) -> None:
        """Make x + scale v the new x.

        Weights of 32 bits and more are rounded to nearest, those of 16 up or down by chance, which is drawn from the
        address of the weight: see ``rounding.stochastic``.
        """
        self._sweep(step, move=(direction, scale))

    def fingerprint(self) -> str:
        """Of names, sizes, dtypes and the first weights of each tensor, to know a model again."""
        digest = hashlib.blake2b(digest_size=8)
        for name, flat in self.tensors:
            digest.update(f"{name} {len(flat)} {flat.dtype}".encode())
            digest.update(bits(flat[:_FINGERPRINT]).cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def _sweep(
        self,
        step: int,
        displacement: tuple[Weights, float] | None = None,
        move: tuple[Weights, float] | None = None,
    ) -> None:
        """One pass over the weights: undo what is in force, then displace or move; noise that both need is drawn once.

        If it is interrupted, the weights are lost, and the log is what brings them back.
        """
        held, residues = self._held, self._residues
        self._held, self._residues = None, {}
        for parameter, (_, flat) in enumerate(self.tensors):
            size = self._chunk or CHUNK.get(flat.device.type, CHUNK["cuda"])
            for start in range(0, len(flat), size):
                chunk = flat[start : start + size]
                slices = _Slices(self._seed, parameter, start, len(chunk), flat.device)
                x = chunk
                if held is not None:
                    residue = residues.pop((parameter, start), None)
                    x = replace(chunk, slices.sum(*held), residue)
                if displacement is not None:
                    x, residue = displace(x, slices.sum(step, *displacement))
                    if residue is not None:
                        self._residues[parameter, start] = residue
                if move is not None:
                    exact = x.double() + slices.sum(step, *move)
                    x = stochastic(exact, slices.chance(step), x.dtype) if x.element_size() < 4 else exact.to(x.dtype)
                if x is not chunk:
                    chunk.copy_(x)
        if displacement is not None:
            self._held = step, *displacement
            self.residue_bytes = max(self.residue_bytes, sum(one.nbytes for one in self._residues.values()))


class _Slices:
    """The noise of one chunk; each direction is drawn once, however many sums it goes into."""

    def __init__(self, seed: int, parameter: int, start: int, count: int, device: torch.device) -> None:
        self._seed, self._parameter = seed, parameter
        self._where = start, count, device
        self._drawn: dict[tuple[int, int], Tensor] = {}

    def sum(self, step: int, weights: Weights, scale: float) -> Tensor:
        """(count,) float64: scale times the sum of w_k z_k, added in the order of the weights."""
        total = torch.zeros(self._where[1], dtype=torch.float64, device=self._where[2])
        for probe, weight in weights.items():
            if (step, probe) not in self._drawn:
                address = Address(self._seed, step, probe, self._parameter)
                self._drawn[step, probe] = normal(address, *self._where)
            # Not addcmul or alpha: a device that fuses product and sum would round once where others round twice.
            total += self._drawn[step, probe] * (scale * weight)
        return total

    def chance(self, step: int) -> Tensor:
        return uniform(Address(self._seed, step, 0, self._parameter, ROUNDING), *self._where)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, parameter in model.named_parameters():  # tied ones once
        tensor = parameter.detach()
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.device.type == "meta" or not tensor.is_contiguous() or tensor.dtype not in DTYPES:
            raise UserError(
                f"model: parameter {name!r} ({tensor.dtype} on {tensor.device}, contiguous: {tensor.is_contiguous()})"
                " cannot be moved in place; load the model whole, in float32, bfloat16 or float16"
            )
        found.append((name, tensor.view(-1)))
    if not found:
        raise UserError("model: it has no floating-point parameters to tune")
    # Memory that two parameters share without being one object would be moved twice.
    ends: dict[torch.device, tuple[int, str]] = {}
    for name, flat in sorted(found, key=lambda pair: pair[1].data_ptr()):
        end, before = ends.get(flat.device, (0, ""))
        if flat.data_ptr() < end:
            raise UserError(f"model: parameters {before!r} and {name!r} share memory without being tied; tie them")
        ends[flat.device] = flat.data_ptr() + flat.nbytes, name
    return found
