"""SimCLR pretraining in low-level TensorFlow: exact NT-Xent, seeded views on the device, one folder per run."""

import os
import sys
import warnings
from collections.abc import Collection, Mapping

from lowlevel_simclr.runtime import cpu

__version__ = "0.1.0"

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# CPU flags for which TensorFlow enables oneDNN by default. A processor with only AVX2, such as a Zen 3, has none.
# There a step of resnet20 takes about twice as long without oneDNN (forward and backward of 512 views: 5.0 to 5.4 CPU
# seconds without, 2.45 to 2.6 with oneDNN).
ONEDNN_BY_DEFAULT = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def onednn_comes_late(modules: Collection[str], environment: Mapping[str, str], processor: Collection[str]) -> bool:
    """Return whether TensorFlow lacks oneDNN because it was imported before this package could ask for it.

    Args:
        modules: names of the imported modules.
        environment: environment variables of this process.
        processor: words of /proc/cpuinfo.
    """
    unasked = "avx2" not in processor or not ONEDNN_BY_DEFAULT.isdisjoint(processor)
    return "tensorflow" in modules and ONEDNN not in environment and not unasked


def _ask_for_onednn() -> None:
    if onednn_comes_late(sys.modules, os.environ, cpu.read_cpuinfo_words()):
        warnings.warn(
            "TensorFlow was imported before lowlevel_simclr and runs without oneDNN. Training may take twice as long "
            f"on this processor. To use oneDNN, import lowlevel_simclr first, or set {ONEDNN}=1 (0 keeps it off "
            "without this warning).",
            stacklevel=3,
        )
    os.environ.setdefault(ONEDNN, "1")  # TensorFlow reads it once, when it is loaded


_ask_for_onednn()
