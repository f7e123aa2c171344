"""Tests how benchmarks count a model's operations and compare their rate with the peak rate of the GPU."""

from __future__ import annotations

import pytest

from bench import utilisation
from lowlevel_simclr.model import encoder, projection


def test_operations_are_those_of_the_layers() -> None:
    g = projection.build_projection_head(32, (16, 8))
    assert utilisation.count_view_operations(g) == 2 * (32 * 16 + 16 * 8)
    assert utilisation.count_pair_operations([g]) == 6 * 2 * (32 * 16 + 16 * 8)
    f = encoder.build_encoder("resnet20", "cifar", 32, 3)
    # Without the shortcuts, the convolutions of CIFAR's ResNet-20 have 40.8 million multiply-adds (He et al. 2016).
    assert utilisation.count_view_operations(f) == pytest.approx(2 * 40.8e6, rel=0.03)


def test_a_share_needs_a_known_peak() -> None:
    assert utilisation.compute_share(1000.0, 989e9, "NVIDIA H200", "bfloat16") == pytest.approx(1.0)
    assert utilisation.compute_share(1000.0, 989e9, "some other card", "bfloat16") is None
    assert utilisation.compute_share(1000.0, 989e9, None, "bfloat16") is None
