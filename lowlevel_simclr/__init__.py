"""SimCLR pretraining in low-level TensorFlow: exact NT-Xent, seeded views on the device, one run in one folder."""

import os
import sys
import warnings
from collections.abc import Collection, Mapping

from lowlevel_simclr.runtime import cpu

__version__ = "0.1.0"

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# What a processor has on which TensorFlow uses oneDNN unasked. On one with AVX2 alone, a Zen 3 for one, a step of
# resnet20 takes about twice as long without it.
ONEDNN_BY_DEFAULT = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def onednn_comes_late(modules: Collection[str], environment: Mapping[str, str], processor: Collection[str]) -> bool:
    """Whether TensorFlow runs without oneDNN because it was imported before this package could ask for it.

    Args:
        modules: the names of what is imported.
        environment: the variables of this process.
        processor: the words of /proc/cpuinfo.
    """
    unasked = "avx2" not in processor or not ONEDNN_BY_DEFAULT.isdisjoint(processor)
    return "tensorflow" in modules and ONEDNN not in environment and not unasked


def _ask_for_onednn() -> None:
    if onednn_comes_late(sys.modules, os.environ, cpu.read_cpuinfo_words()):
        warnings.warn(
            "TensorFlow was imported before lowlevel_simclr and does without oneDNN, so that training may take twice "
            f"as long on this processor: import lowlevel_simclr first, or set {ONEDNN}=1 (0 leaves it off)",
            stacklevel=3,
        )
    os.environ.setdefault(ONEDNN, "1")  # read once, when TensorFlow is loaded


_ask_for_onednn()
