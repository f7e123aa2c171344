"""Tests that XLA knows the functions of the native library that it must call (handlers), for CPU and for CUDA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tensorflow as tf

from lowlevel_simclr.ops import _library, _route
from tests.support.op_modes import needs_xla
from tests.support.xla_registry import register_another

KERNELS = Path(__file__).parents[2] / "kernels"
TARGETS = sorted(
    {*re.findall(r'target<k\w+>\("(\w+)"\)', "".join(path.read_text() for path in KERNELS.rglob("*_xla.cc")))}
)
needs_cuda = pytest.mark.skipif(
    not _library.read_build_information()["cuda"], reason="the library was built without CUDA kernels"
)
pytestmark = needs_xla


def test_the_sources_name_targets() -> None:
    assert len(TARGETS) == 7 and "lowlevel_simclr_nt_xent" in TARGETS


@pytest.mark.parametrize("platform", ["Host", pytest.param("CUDA", marks=needs_cuda)])
@pytest.mark.parametrize("name", TARGETS)
def test_xla_has_every_handler(name: str, platform: str) -> None:
    """Register another handler under the name of this one. XLA must refuse it, and must accept it under a new name."""
    _library.load_library()
    assert name in register_another(name, platform)
    assert register_another(f"{name}_free", platform) == ""


@needs_cuda
def test_the_module_of_a_call_names_cuda() -> None:
    """Test the program text (module) with which a graph calls a handler through XLA, if the library has CUDA kernels.

    The module must be made for two platforms, CPU and CUDA. Its first argument must be the number of the platform.
    """
    z, temperature = tf.TensorSpec([4, 2], tf.float32), tf.TensorSpec([], tf.float64)
    outputs = [((4,), tf.float32), ((4, 2), tf.float32), ((4,), tf.float32), ((4,), tf.bool)]

    def work(z: tf.Tensor, temperature: tf.Tensor) -> list[tf.Tensor]:
        return _route.call_handler("lowlevel_simclr_nt_xent", [z, temperature], outputs)

    graph = tf.function(work).get_concrete_function(z, temperature).graph
    (node,) = [each for each in graph.get_operations() if each.type == "XlaCallModule"]
    assert node.get_attr("platforms") == [b"CPU", b"CUDA"]
    assert b"%platform" in node.get_attr("module")
