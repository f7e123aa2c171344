"""The colours and markers of classes in pictures."""

from __future__ import annotations

import numpy as np

# Petroff, Accessible Color Sequences for Data Visualization, 2021.
PALETTE = "#3f90da #ffa90e #bd1f01 #94a4a2 #832db6 #a96b59 #e76300 #b9ac70 #717581 #92dadd".split()
MARKERS = "o s ^ D v P X < > *".split()
PALE = "#bbbbbb"  # points of a class without its own colour
NAMED_AT_MOST = 20  # classes with a colour and a marker of their own


def choose_named_classes(labels: np.ndarray, count: int, most: int = NAMED_AT_MOST) -> list[int]:
    """Return the numbers of the classes with the most images, in ascending order. These classes get their own colours.

    Args:
        labels: (n,) class numbers. A negative number means that there is no label.
        count: the number of classes.
        most: the largest number of classes to choose.
    """
    sizes = np.bincount(labels[labels >= 0].astype(np.int64), minlength=count)[:count]
    return sorted(np.argsort(-sizes, kind="stable")[:most].tolist())


def choose_mark(place: int) -> tuple[str, str]:
    """Return the colour and the marker of a named class, given its position among them. No two classes share both."""
    turn, colour = divmod(place, len(PALETTE))
    return PALETTE[colour], MARKERS[(colour + 3 * turn) % len(MARKERS)]
