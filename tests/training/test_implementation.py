"""Tests that training does not start if the native library (compiled C++ and CUDA ops) does not support the device."""

from __future__ import annotations

import pytest

from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.training import plan, workers


def test_a_library_without_cuda_kernels_is_refused_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    build = _library.read_build_information()
    monkeypatch.setattr(_library, "read_build_information", lambda *_: {**build, "cuda": []})
    config = presets.load_preset("shapes")
    plan.refuse_early(config, workers.LONE)
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    with pytest.raises(ConfigError, match="sees a GPU, but the native library was built without CUDA kernels"):
        plan.refuse_early(config, workers.LONE)
    for other in ({"ops": "stock"}, {"devices": "cpu:2"}):
        plan.refuse_early(identity.replace(config, **other), workers.LONE)
    monkeypatch.setattr(_library, "read_build_information", lambda *_: {**build, "cuda": ["sm_90"]})
    monkeypatch.setattr(_route, "find_route_problem", lambda: None)
    plan.refuse_early(config, workers.LONE)


def test_an_xla_that_cannot_call_the_library_is_refused_where_the_run_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    build = _library.read_build_information()
    monkeypatch.setattr(_library, "read_build_information", lambda *_: {**build, "cuda": ["sm_90"]})
    monkeypatch.setattr(_route, "find_route_problem", lambda: "The XLA FFI is older than version 0.1.")
    config = presets.load_preset("shapes")
    plan.refuse_early(config, workers.LONE)
    compiled = identity.replace(config, xla="on")
    with pytest.raises(ConfigError, match=r"under --xla on.*older than version 0\.1\..*--ops stock.*2\.18.*--xla off"):
        plan.refuse_early(compiled, workers.LONE)
    plan.refuse_early(identity.replace(compiled, ops="stock"), workers.LONE)
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    with pytest.raises(ConfigError, match=r"on a GPU.*older than version 0\.1\..*--ops stock.*CUDA_VISIBLE_DEVICES=-1"):
        plan.refuse_early(config, workers.LONE)
