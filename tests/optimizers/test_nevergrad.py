"""What is particular to nevergrad's optimizers: which are refused, and how those that are not behave."""

from __future__ import annotations

import pytest

from dfolora.errors import UserError
from dfolora.optimizers import make_optimizer


# One candidate at a time, by nature or by what it delegates to; a missing package; broken with this numpy.
@pytest.mark.parametrize("algorithm", ["Cobyla", "SPSA", "Carola3", "AX", "BayesOptimBO", "BAR4"])
def test_methods_that_cannot_serve_are_refused_at_once(algorithm: str) -> None:
    with pytest.raises(UserError, match=f"nevergrad:{algorithm} .*population") as caught:
        make_optimizer(f"nevergrad:{algorithm}", 8)
    assert "\n" not in str(caught.value)


def test_a_population_may_be_smaller_where_the_method_waits_for_losses() -> None:
    search = make_optimizer("nevergrad:DiagonalCMA", 500)
    sizes = []
    for _ in range(15):
        z = search.ask()
        search.tell((z - 0.5).square().sum(1))
        sizes.append(len(z))
    assert max(sizes) == 20
    assert 0 < min(sizes) < 20


def test_one_shot_method_says_when_its_plan_ends() -> None:
    search = make_optimizer("nevergrad:ScrHammersleySearch", 8, generations=5)
    for _ in range(5):
        search.tell(search.ask().sum(1))
    with pytest.raises(RuntimeError, match="100 of the 100"):
        search.ask()
