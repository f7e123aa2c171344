"""Tests that importing the package turns on oneDNN, the library of fast CPU kernels that TensorFlow contains.

This works only before TensorFlow is imported. If TensorFlow was imported before and does not use oneDNN, the package
must print a warning.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lowlevel_simclr import ONEDNN, onednn_comes_late
from tests.support.other_process import output_of

LOADED = ["numpy", "tensorflow"]
ZEN_3, ZEN_4, ARM = ["fma", "avx2"], ["fma", "avx2", "avx512_vnni"], ["asimd"]


@pytest.mark.parametrize(
    ("modules", "environment", "processor", "late"),
    [
        (LOADED, {}, ZEN_3, True),
        (["numpy"], {}, ZEN_3, False),
        (LOADED, {ONEDNN: "1"}, ZEN_3, False),
        (LOADED, {ONEDNN: "0"}, ZEN_3, False),
        (LOADED, {}, ZEN_4, False),
        (LOADED, {}, ARM, False),
    ],
)
def test_it_is_late_where_tensorflow_was_loaded_without_being_asked(
    modules: list[str], environment: dict[str, str], processor: list[str], late: bool
) -> None:
    assert onednn_comes_late(modules, environment, processor) == late


WARNINGS = """
import os, sys, warnings
os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
with warnings.catch_warnings(record=True) as found:
    {first}
    warnings.simplefilter("always")
    import lowlevel_simclr
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], *(each.message for each in found))
"""


def test_importing_this_package_first_is_silent() -> None:
    assert output_of(WARNINGS.format(first="pass")) == "1"


@pytest.mark.skipif(
    not onednn_comes_late(LOADED, {}, Path("/proc/cpuinfo").read_text().split()),
    reason="TensorFlow uses oneDNN by default on this processor",
)
def test_importing_tensorflow_first_is_told_on_a_processor_that_needs_to_be_asked() -> None:
    assert f"import lowlevel_simclr first, or set {ONEDNN}=1" in output_of(WARNINGS.format(first="import tensorflow"))
