"""Every op in NumPy float64, one module per op, written as in the paper.

All other implementations are checked against these.
"""

from lowlevel_simclr.reference.draw_view_params import draw_view_params
from lowlevel_simclr.reference.make_views import make_views
from lowlevel_simclr.reference.nt_xent import (
    contrastive_top1,
    nt_xent,
    nt_xent_gradient,
    nt_xent_rows,
    nt_xent_rows_gradient,
    nt_xent_temperature_gradient,
    own_rows,
    positive,
    unit_rows,
)

__all__ = [
    "contrastive_top1",
    "draw_view_params",
    "make_views",
    "nt_xent",
    "nt_xent_gradient",
    "nt_xent_rows",
    "nt_xent_rows_gradient",
    "nt_xent_temperature_gradient",
    "own_rows",
    "positive",
    "unit_rows",
]
