"""The native ops (with this package's own C++ and CUDA kernels), one module per op.

They have the same names and signatures as the ops in `stock`, which are plain TensorFlow.

Importing this package registers the ops with TensorFlow, so that `tf.saved_model.load` finds the ops of a SavedModel:

    import lowlevel_simclr.ops
    model = tf.saved_model.load("model")

The import also works without a usable native library, because `--ops stock` does not need it. The first call of an op
then raises a NativeLibraryError.
"""

import contextlib

from lowlevel_simclr.ops import _library
from lowlevel_simclr.ops.draw_view_params import draw_view_params
from lowlevel_simclr.ops.lars_update import lars_update, lars_update_all
from lowlevel_simclr.ops.make_views import make_views
from lowlevel_simclr.ops.nt_xent import (
    RowsState,
    contrastive_top1,
    nt_xent,
    nt_xent_and_top1,
    nt_xent_rows,
    nt_xent_rows_backward,
    nt_xent_rows_forward,
    nt_xent_rows_forward_and_top1,
)

with contextlib.suppress(_library.NativeLibraryError):
    _library.load_library()

__all__ = [
    "RowsState",
    "contrastive_top1",
    "draw_view_params",
    "lars_update",
    "lars_update_all",
    "make_views",
    "nt_xent",
    "nt_xent_and_top1",
    "nt_xent_rows",
    "nt_xent_rows_backward",
    "nt_xent_rows_forward",
    "nt_xent_rows_forward_and_top1",
]
