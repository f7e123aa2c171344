"""Every op of this package, written with TensorFlow's own (stock) ops, one module for each op.

The native ops, in C++ and CUDA, are checked against the stock ops. Where the native ops are not available, the stock
ops replace them.
"""

from lowlevel_simclr.stock.draw_view_params import draw_view_params
from lowlevel_simclr.stock.lars_update import lars_update, lars_update_all
from lowlevel_simclr.stock.make_views import make_views
from lowlevel_simclr.stock.nt_xent import (
    RowsState,
    contrastive_top1,
    nt_xent,
    nt_xent_and_top1,
    nt_xent_rows,
    nt_xent_rows_backward,
    nt_xent_rows_forward_and_top1,
)
from lowlevel_simclr.stock.philox import draw_epoch_order, philox4x32, to_uniform

__all__ = [
    "RowsState",
    "contrastive_top1",
    "draw_view_params",
    "draw_epoch_order",
    "lars_update",
    "lars_update_all",
    "make_views",
    "nt_xent",
    "nt_xent_and_top1",
    "nt_xent_rows",
    "nt_xent_rows_backward",
    "nt_xent_rows_forward_and_top1",
    "philox4x32",
    "to_uniform",
]
