"""Tests which ops `--ops auto` chooses: the compiled C++ library (native), or TensorFlow's own ops (stock).

Also tests the error if the library is missing on a platform that should have it.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

import lowlevel_simclr as ls
from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.ops import _library
from lowlevel_simclr.runtime import platform_ops
from lowlevel_simclr.training import messages, plan, workers


def move(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, library: Path = platform_ops.LIBRARY
) -> pytest.MonkeyPatch:
    """Make this process believe that it runs on another platform."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform_ops, "LIBRARY", library)
    return monkeypatch


@pytest.mark.parametrize(
    ("system", "machine", "there", "ops", "words"),
    [
        ("linux", "x86_64", True, "native", "Linux on x86_64"),
        ("linux", "x86_64", False, "native", "Linux on x86_64"),  # a call of such an op raises an error
        ("linux", "aarch64", True, "native", "Linux on aarch64"),
        ("linux", "aarch64", False, "stock", "Linux on aarch64"),
        ("darwin", "arm64", False, "stock", "macOS on arm64"),
        (
            "darwin",
            "x86_64",
            True,
            "stock",
            "macOS on x86_64",
        ),  # a Mac can have the file of Linux's library, for example in a folder that it shares with a Linux machine
        ("win32", "AMD64", True, "stock", "Windows on AMD64"),
    ],
)
def test_auto_is_native_where_the_platform_has_the_library(
    system: str, machine: str, there: bool, ops: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "_native.so"
    if there:
        library.write_bytes(b"")
    with monkeypatch.context() as moved:
        move(moved, system, machine, library)
        assert platform_ops.choose_available_ops("auto") == ops
        assert [platform_ops.choose_available_ops(given) for given in ("native", "stock")] == ["native", "stock"]
        assert platform_ops.describe_platform() == words


def test_a_missing_library_on_x86_linux_is_an_error_in_every_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "_native.so"
    monkeypatch.setattr(platform_ops, "LIBRARY", missing)
    monkeypatch.setattr(_library, "load_library", lambda: _library.load_and_check(missing))
    with pytest.raises(ls.NativeLibraryError, match="_native.so is missing from"):
        ls.nt_xent(np.eye(4, dtype=np.float32), 0.5)
    with pytest.raises(ls.NativeLibraryError, match="_native.so is missing from"):
        ls.make_views(np.zeros((2, 8, 8, 3), np.uint8), seed=0, size=8)
    with pytest.raises(ConfigError, match="_native.so is missing from .*--ops stock"):
        plan.refuse_early(presets.load_preset("shapes"), workers.LONE)


def test_a_platform_without_the_library_says_so_where_native_ops_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = identity.replace(presets.load_preset("shapes"), ops="native")
    with monkeypatch.context() as moved:
        move(moved, "darwin", "arm64", tmp_path / "_native.so")
        with pytest.raises(ConfigError, match="does not exist for macOS on arm64. Use --ops auto or --ops stock"):
            plan.refuse_early(config, workers.LONE)
        plan.refuse_early(identity.replace(config, ops="auto"), workers.LONE)
        _library.load_library.cache_clear()
        with pytest.raises(ls.NativeLibraryError, match="no native library for macOS on arm64"):
            _library.load_library()
        assert messages.describe_ops("stock") == (
            "stock ops (TensorFlow's, because there is no native library for macOS on arm64)"
        )
    _library.load_library.cache_clear()
    assert messages.describe_ops("stock") == "stock ops (TensorFlow's)"


def test_the_resolved_ops_identify_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = presets.load_preset("shapes")
    assert config.train.ops == "auto"
    here = plan._choose_for_machine(config, workers.LONE, None)
    with monkeypatch.context() as moved:
        move(moved, "darwin", "arm64", tmp_path / "_native.so")
        there = plan._choose_for_machine(config, workers.LONE, None)
        differences = plan.list_early_differences(config, workers.LONE, None, identity.to_dict(here))
        resumed = plan.list_early_differences(config, workers.LONE, None, identity.to_dict(there))
    assert (here.train.ops, there.train.ops) == ("native", "stock")
    assert differences == ["ops: native -> stock"] and resumed == []
