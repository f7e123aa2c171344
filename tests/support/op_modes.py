"""The ways to call a C++ op in a test: eagerly, in a graph, and through XLA if this TensorFlow's XLA can call it."""

from __future__ import annotations

from typing import Any

import pytest

from lowlevel_simclr.ops import _route

needs_xla = pytest.mark.skipif(_route.find_route_error() is not None, reason=str(_route.find_route_error()))


def list_modes() -> list[Any]:
    """Return the names of the modes, as parameters of a test."""
    return ["eager", "graph", pytest.param("xla", marks=needs_xla)]
