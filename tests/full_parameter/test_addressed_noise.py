"""The noise's numbers: what they are drawn from, and that a slice is the same however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfolora.methods.full_parameter import noise
from dfolora.methods.full_parameter.noise import ROUNDING, Address, normal, philox_halves, uniform

CPU = torch.device("cpu")
HERE = Address(seed=5, step=7, probe=3, parameter=11)


@pytest.mark.parametrize(("start", "count"), [(0, 64), (5, 100), (16, 1), (2**33 + 3, 77)])
@pytest.mark.parametrize("address", [HERE, Address(2**32 - 1, 2**40, 0, 2**20, ROUNDING)])
def test_the_generator_for_other_devices_gives_numpys_numbers(address: Address, start: int, count: int) -> None:
    """Integers only, so what holds on a CPU holds elsewhere; numpy's are 64-bit words, the lowest 16 bits first."""
    counter = [0, address.probe, address.step, address.parameter]
    philox = np.random.Philox(counter=counter, key=[address.seed, address.purpose]).advance(start // 16)
    words = philox.random_raw(4 * (count // 16 + 2)).tolist()
    expected = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)][start % 16 :][:count]
    assert philox_halves(address, start, count, CPU).tolist() == expected
    assert uniform(address, start, count, CPU).tolist() == [(half + 0.5) / 65536 for half in expected]


def test_it_is_normal_and_uncorrelated() -> None:
    count = 400_000
    z = normal(HERE, 0, count, CPU)
    error = 4 / count**0.5
    assert abs(z.mean()) < error
    assert abs(z.square().mean() - 1) < error * 2**0.5
    assert abs(z.pow(4).mean() - 3) < error * 96**0.5
    for quantile, value in ((0.0228, -2.0), (0.1587, -1.0), (0.8413, 1.0), (0.99865, 3.0)):
        assert (z < value).double().mean() == pytest.approx(quantile, abs=error / 2)
    assert abs((z[1:] * z[:-1]).mean()) < error
    for other in (Address(6, 7, 3, 11), Address(5, 8, 3, 11), Address(5, 7, 4, 11), Address(5, 7, 3, 12)):
        assert abs((z * normal(other, 0, count, CPU)).mean()) < error


def test_its_values_fit_a_float32_and_have_variance_one() -> None:
    z = normal(HERE, 0, 1_000_000, CPU).unique()
    assert len(z) == 2**16  # each is expected 15 times
    assert torch.equal(z, z.float().double())
    assert z.square().mean() == pytest.approx(1, abs=1e-7)
    assert z.max() == pytest.approx(4.33, abs=0.01)


@pytest.mark.parametrize("size", [1, 7, 16, 1000])
def test_a_slice_is_the_same_however_it_is_cut(size: int) -> None:
    whole = normal(HERE, 0, 2000, CPU)
    parts = [normal(HERE, start, min(size, 200 - start), CPU) for start in range(0, 200, size)]
    assert torch.equal(torch.cat(parts), whole[:200])
    assert torch.equal(normal(HERE, 1234, 700, CPU), whole[1234:1934])


def test_other_devices_look_up_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their way, run here: the generator in torch, and the table on the device."""
    here = normal(HERE, 5, 1000, CPU)
    monkeypatch.setattr(noise, "philox_halves", lambda a, start, count, _: philox_halves(a, start, count, CPU))
    monkeypatch.setattr(noise, "_table", lambda _: torch.from_numpy(noise._quantiles()))
    assert torch.equal(normal(HERE, 5, 1000, torch.device("cuda")), here)
