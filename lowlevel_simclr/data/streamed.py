"""Images that are not in memory. They are decoded or copied when their rows are requested."""

from __future__ import annotations

import abc
from typing import Any, TypeVar

import numpy as np

from lowlevel_simclr.data.image_file import Shape

Kind = TypeVar("Kind", bound="StreamedImages")


class StreamedImages(abc.ABC):
    """Images (n, H, W, C) uint8 that are read when they are needed.

    A slice returns another `StreamedImages` and reads nothing. An array of row numbers returns an array of images.
    """

    def __init__(self, chosen: np.ndarray, shape: Shape) -> None:
        """Take the positions (n,) of the images in their source (files or an array), and the shape of an image."""
        self.chosen, self._shape = chosen, shape

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (n, H, W, C)."""
        return (len(self.chosen), *self._shape)

    def __len__(self) -> int:
        """Return n."""
        return len(self.chosen)

    def __getitem__(self, rows: Any) -> Any:
        """Return `StreamedImages` for a slice, or an array of images for an array of row numbers of any shape.

        Raises:
            DataError: if an image can no longer be read.
        """
        if isinstance(rows, slice):
            return self.select_rows(rows)
        rows = np.asarray(rows)
        return self.read_rows(rows.reshape(-1)).reshape(*rows.shape, *self._shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all images."""
        return self[np.arange(len(self))].astype(dtype or np.uint8, copy=False)

    def join(self: Kind, other: Kind) -> Kind:
        """Return these images followed by the images of `other`. Both must come from the same source."""
        both = self.select_rows(slice(None))
        both.chosen = np.concatenate([self.chosen, other.chosen])
        return both

    @abc.abstractmethod
    def select_rows(self: Kind, rows: Any) -> Kind:
        """Return the images with the row numbers `rows` (m,), or those of a slice, without reading them."""

    @abc.abstractmethod
    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (m, H, W, C) with the row numbers `rows` (m,)."""
