"""Tests the scaling model: formulas for the bytes and the time of a training step on several devices (replicas).

They must predict the number of bytes that the replicas really send, and up to how many devices a step becomes faster.
"""

from __future__ import annotations

import pytest

from bench.step import scaling
from lowlevel_simclr.model import encoder, projection

SIZES = scaling.Sizes(width=8, parameters=1000, channels=(4, 6), operations=1e9)
MACHINE = scaling.Machine(rate=1e12, bandwidth=1e9, latency=1e-6)


def test_bytes_of_two_devices_are_counted_by_hand() -> None:
    assert scaling.predict_bytes(SIZES, 16, 1) == {}
    assert scaling.predict_bytes(SIZES, 16, 2) == {
        "z": 16 * 8 * 4,
        "normalisers and cotangents": 16 * 3 * 4,
        "BatchNorm": 2 * (4 + 6) * 4 * 2,
        "gradients": 1000 * 4,
        "metrics": 2 * 4,
    }


def test_a_count_that_differs_is_refused() -> None:
    said = scaling.predict_bytes(SIZES, 24, 3)
    counted = {what: int(size) for what, size in said.items()}
    scaling.refuse_difference("3 replicas", said, counted, exchanges=7)
    with pytest.raises(scaling.WrongModel, match="3 replicas: the replicas sent"):
        scaling.refuse_difference("3 replicas", said, {**counted, "z": 2 * counted["z"]}, exchanges=7)
    with pytest.raises(scaling.WrongModel, match="3 replicas: the replicas sent"):
        scaling.refuse_difference("3 replicas", said, {**counted, "views": 8}, exchanges=7)


def test_sizes_are_those_of_the_layers() -> None:
    f, g = encoder.build_encoder("resnet20", "cifar", 16, 3), projection.build_projection_head(64, (16, 8))
    sizes = scaling.read_sizes(f, g)
    assert sizes.width == 8 and len(sizes.channels) == 19
    assert sizes.channels == (16,) * 7 + (32,) * 6 + (64,) * 6
    assert sizes.parameters == f.count_params() - 2 * sum(sizes.channels) + g.count_params()


def test_it_stops_scaling_where_exchanges_take_longer_than_compute() -> None:
    found = scaling.predict_scaling(SIZES, MACHINE, 4096, 32)
    shared = {row["devices"]: row["seconds"]["share"] for row in found["shared"]["rows"]}
    last = found["shared"]["scales_to"]
    assert list(shared) == list(scaling.DEVICES) and 8 <= last < 1024
    assert shared[last] >= scaling.SCALES > shared[2 * last]
    assert [row["batch"] for row in found["growing"]["rows"]] == [32 * devices for devices in scaling.DEVICES]
    free = scaling.predict_scaling(SIZES, scaling.Machine(1e12, 1e30, 0.0), 4096, 32)
    assert free["shared"]["scales_to"] == 1024
