"""Tests --micro-batch auto, which chooses the largest part of a batch (micro-batch) that fits into the GPU's memory.

The memory of the GPU is imitated.
"""

from __future__ import annotations

import pytest

from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.training.plan import Plan
from tests.support.made_up_memory import ON_HOST, limit_memory, resolve_config

pytestmark = pytest.mark.usefixtures("small_runs")


@pytest.mark.parametrize(("largest", "taken"), [(100, "24"), (23, "12"), (7, "6"), (1, "1")])
def test_the_largest_divisor_that_fits_is_taken(gpu: None, largest: int, taken: str) -> None:
    tried: list[Plan] = []
    said: list[str] = []
    found = resolve_config(ON_HOST, fits=limit_memory(largest, tried), tell=said.append)
    assert found == resolve_config(identity.replace(ON_HOST, micro_batch=taken))
    assert found.train.micro_batch == taken
    expected = [size for size in (24, 12, 8, 6, 4, 3, 2, 1) if size >= int(taken)]
    assert [one.micro_batch for one in tried] == expected
    assert said[-1] == f"micro-batches of {taken} images fit into the memory" and len(said) == len(expected)


def test_what_fits_nowhere_is_told(gpu: None) -> None:
    with pytest.raises(settings.ConfigError, match="even 1 images need more than the GPU's memory"):
        resolve_config(ON_HOST, largest=0)
