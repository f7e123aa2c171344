"""Every op in NumPy float64, one module per op, written as in the papers.

All other implementations are checked against these.
"""

from lowlevel_simclr.reference.draw_view_params import draw_view_params
from lowlevel_simclr.reference.make_views import make_views
from lowlevel_simclr.reference.nt_xent import (
    contrastive_top1,
    find_positive,
    list_own_rows,
    normalise_rows,
    nt_xent,
    nt_xent_gradient,
    nt_xent_rows,
    nt_xent_rows_gradient,
    nt_xent_temperature_gradient,
)

__all__ = [
    "contrastive_top1",
    "draw_view_params",
    "find_positive",
    "list_own_rows",
    "make_views",
    "normalise_rows",
    "nt_xent",
    "nt_xent_gradient",
    "nt_xent_rows",
    "nt_xent_rows_gradient",
    "nt_xent_temperature_gradient",
]
