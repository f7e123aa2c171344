"""Every op on the native library, one module an op; names and signatures as in `stock`."""

from lowlevel_simclr.ops.lars_update import lars_update
from lowlevel_simclr.ops.nt_xent import (
    RowsState,
    contrastive_top1,
    nt_xent,
    nt_xent_and_top1,
    nt_xent_rows,
    nt_xent_rows_backward,
    nt_xent_rows_forward,
)

__all__ = [
    "RowsState",
    "contrastive_top1",
    "lars_update",
    "nt_xent",
    "nt_xent_and_top1",
    "nt_xent_rows",
    "nt_xent_rows_backward",
    "nt_xent_rows_forward",
]
