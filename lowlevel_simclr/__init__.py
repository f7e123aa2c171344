"""SimCLR in low-level TensorFlow: trains an image encoder without labels.

SimCLR makes two random views of every image (crops with changed colours). Its loss, NT-Xent, trains the encoder to
find out which two views belong to the same image.

    import lowlevel_simclr as ls

    run = ls.train("shapes", "runs/shapes")           # or your images, uint8 (n, height, width, channels)
    h = ls.embed(run, images)                          # one row of d numbers for each image, (n, d)
    encoder = ls.load_encoder(run)                     # a Keras model
    model.compile("adam", loss=ls.NTXent(0.2))         # for a model of your own that begins with ls.SimCLRViews

Importing this package does not import TensorFlow. TensorFlow is imported when a public name is first used.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from lowlevel_simclr.runtime import cpu

if TYPE_CHECKING:  # for type checkers and editors. Python loads the same names at first use, see __getattr__.
    from lowlevel_simclr.api.evaluation import evaluate as evaluate
    from lowlevel_simclr.api.export import export as export
    from lowlevel_simclr.api.loss import NTXent as NTXent
    from lowlevel_simclr.api.loss import nt_xent as nt_xent
    from lowlevel_simclr.api.networks import embed as embed
    from lowlevel_simclr.api.networks import load_encoder as load_encoder
    from lowlevel_simclr.api.run import Run as Run
    from lowlevel_simclr.api.training import train as train
    from lowlevel_simclr.api.views import SimCLRViews as SimCLRViews
    from lowlevel_simclr.api.views import make_views as make_views
    from lowlevel_simclr.config.settings import ConfigError as ConfigError
    from lowlevel_simclr.config.settings import ViewRecipe as ViewRecipe
    from lowlevel_simclr.data.dataset import DataError as DataError
    from lowlevel_simclr.evaluation.embedding.given import EmbedError as EmbedError
    from lowlevel_simclr.evaluation.formats.form import ExportError as ExportError
    from lowlevel_simclr.ops._library import NativeLibraryError as NativeLibraryError
    from lowlevel_simclr.run.atomic import RunError as RunError
    from lowlevel_simclr.run.checkpoint import CheckpointError as CheckpointError
    from lowlevel_simclr.runtime.signals import Stopped as Stopped
    from lowlevel_simclr.training.step import NonFiniteLoss as NonFiniteLoss

__version__ = "0.1.0"

# The module that defines each public name. Importing TensorFlow takes seconds, so a module is imported only when one of
# its names is first used.
PUBLIC = {
    "NTXent": "api.loss",
    "Run": "api.run",
    "SimCLRViews": "api.views",
    "ViewRecipe": "config.settings",
    "embed": "embed",
    "evaluate": "evaluate",
    "export": "export",
    "load_encoder": "api.networks",
    "make_views": "api.views",
    "nt_xent": "api.loss",
    "train": "train",
    "CheckpointError": "run.checkpoint",
    "ConfigError": "config.settings",
    "DataError": "data.dataset",
    "EmbedError": "evaluation.embedding.given",
    "ExportError": "evaluation.formats.form",
    "NativeLibraryError": "ops._library",
    "NonFiniteLoss": "training.step",
    "RunError": "run.atomic",
    "Stopped": "runtime.signals",
}
__all__ = [*PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{PUBLIC[name]}")
    # Some names, such as `train`, are modules that can be called like a function, see api/callable_module.py.
    value = module if name == PUBLIC[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})


ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# CPU flags for which TensorFlow uses oneDNN (Intel's library of fast CPU kernels) by default. An AMD Zen 3, for
# example, has AVX2 but none of these flags. There, the forward and backward pass of resnet20 for 512 views takes 5.0 to
# 5.4 CPU seconds without oneDNN, and 2.45 to 2.6 with it.
ONEDNN_BY_DEFAULT = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def onednn_comes_late(modules: Collection[str], environment: Mapping[str, str], processor: Collection[str]) -> bool:
    """Return whether TensorFlow was imported before this package could switch oneDNN on.

    The answer is also False if oneDNN is on by default on this processor, if the processor has no AVX2, or if the user
    has set the environment variable.

    Args:
        modules: names of the imported modules.
        environment: environment variables of this process.
        processor: words of /proc/cpuinfo.
    """
    by_default = "avx2" not in processor or not ONEDNN_BY_DEFAULT.isdisjoint(processor)
    return "tensorflow" in modules and ONEDNN not in environment and not by_default


def _ask_for_onednn() -> None:
    if onednn_comes_late(sys.modules, os.environ, cpu.read_cpuinfo_words()):
        warnings.warn(
            "TensorFlow was imported before lowlevel_simclr and runs without oneDNN. Training may take twice as long "
            f"on this processor. To use oneDNN, import lowlevel_simclr first, or set {ONEDNN}=1 (0 keeps it off "
            "without this warning).",
            stacklevel=3,
        )
    os.environ.setdefault(ONEDNN, "1")  # TensorFlow reads the variable once, when it is loaded


_ask_for_onednn()
