"""Images of different sizes, stored with padding in one array.

Every image lies in the upper left corner of an array of one size, its canvas. The rest of the canvas is padding. The
frame of an image is the part of the canvas that the image covers. Training draws crops from the whole frame of each
image (`canvases` and `sizes`). All other code gets the square in the middle of the frame, so it never reads padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowlevel_simclr.data.frames import cut_square


class FramedImages:
    """Images of different sizes. Indexing returns squares (n, S, S, C) uint8 from the middle of the images.

    A slice returns another `FramedImages`. An array of row numbers returns an array of squares.
    """

    def __init__(self, canvases: Any, sizes: np.ndarray, side: int) -> None:
        """Take the stored images.

        Args:
            canvases: (n, H, W, C) uint8, of type `dataset.Images`. Each image lies in the upper left corner.
            sizes: (n, 2) int32, the height and width of each image.
            side: S, pixels a side of a square.
        """
        self.canvases, self.sizes, self.side = canvases, sizes, side

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (n, S, S, C) of the squares."""
        return (len(self.sizes), self.side, self.side, self.canvases.shape[-1])

    @property
    def nbytes(self) -> int:
        """The bytes of the stored images, if they are in memory."""
        return int(self.canvases.nbytes)

    def __len__(self) -> int:
        """Return n."""
        return len(self.sizes)

    def __getitem__(self, rows: Any) -> Any:
        """Return `FramedImages` for a slice, or an array of squares for an array of row numbers of any shape."""
        if isinstance(rows, slice):
            return self.select_rows(rows)
        rows = np.asarray(rows)
        flat = np.arange(len(self))[rows.reshape(-1)]
        squares = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for place, (canvas, size) in enumerate(zip(self.canvases[flat], self.sizes[flat])):
            squares[place] = cut_square(canvas, size, self.side)
        return squares.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all squares."""
        return self[np.arange(len(self))].astype(dtype or np.uint8, copy=False)

    def select_rows(self, rows: Any) -> FramedImages:
        """Return the images with the row numbers `rows` (m,), or those of a slice, still with their padding."""
        streamed = not isinstance(self.canvases, np.ndarray)
        canvases = self.canvases.select_rows(rows) if streamed else self.canvases[rows]
        return FramedImages(canvases, self.sizes[rows], self.side)

    def join(self, other: FramedImages) -> FramedImages:
        """Return these images followed by the images of `other`. Both must have the same kind of canvases."""
        streamed = not isinstance(self.canvases, np.ndarray)
        canvases = self.canvases.join(other.canvases) if streamed else np.concatenate([self.canvases, other.canvases])
        return FramedImages(canvases, np.concatenate([self.sizes, other.sizes]), self.side)

    def cut_frames(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the whole images with the row numbers `rows` (m,), without padding: (height, width, C) uint8 each."""
        return [canvas[:height, :width] for canvas, (height, width) in zip(self.canvases[rows], self.sizes[rows])]


def get_canvases(images: Any) -> Any:
    """Return the images as they are stored, (n, H, W, C) uint8, with their padding if they have any."""
    return images.canvases if isinstance(images, FramedImages) else images
