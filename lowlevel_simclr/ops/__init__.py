"""Every op on the native library, one module an op; names and signatures as in `stock`."""

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

__all__ = [
    "RowsState",
    "contrastive_top1",
    "nt_xent",
    "nt_xent_and_top1",
    "nt_xent_rows",
    "nt_xent_rows_backward",
    "nt_xent_rows_forward",
    "nt_xent_rows_forward_and_top1",
]
