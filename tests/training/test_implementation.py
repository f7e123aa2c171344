"""A native library that has no kernels for the device of a run is refused before the run starts."""

from __future__ import annotations

import pytest

from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.ops import _library
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
    plan.refuse_early(config, workers.LONE)
