"""The measures that a check-up takes during training, in NumPy float64, written as in their sources.

h are the outputs of the encoder (representations), and z those of the projection head (projections). u = z / |z| are
normalised projections. A row of length zero has u = 0.

    alignment      mean over pairs of |u_1 - u_2|^2                      Wang and Isola 2020, L_align, alpha = 2
    uniformity     log of the mean over i < j of exp(-2 |u_i - u_j|^2)   Wang and Isola 2020, L_uniform, t = 2
    effective rank exp(-sum p log p), p = s / sum(s)                     Garrido et al. 2023 (RankMe), after Roy and
                                                                         Vetterli 2007; s are the singular values
    spread         mean over columns of the standard deviation of u      Chen and He 2021 (SimSiam), section 4.1
    dead units     share of columns that are 0 in every row              Lu et al. 2019 (dying ReLU)
    gradient norm  length of all gradients as one vector                 Pascanu et al. 2013
    update ratio   |w_after - w_before| / |w_before|, w as one vector    Karpathy 2015, CS231n, "ratio of updates"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lowlevel_simclr.reference.nt_xent import normalise_rows


def compute_alignment(first: ArrayLike, second: ArrayLike) -> float:
    """Return the alignment of n pairs of projections, in [0, 4].

    Args:
        first: (n, d) projections of the first views.
        second: (n, d) projections of the second views of the same images.

    Examples:
        >>> from lowlevel_simclr.reference.checkup import compute_alignment
        >>> compute_alignment([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [1.0, 0.0]])
        1.0
    """
    difference = normalise_rows(first) - normalise_rows(second)
    return float((difference**2).sum(axis=1).mean())


def compute_uniformity(z: ArrayLike) -> float:
    """Return the uniformity of n projections, in [-8, 0].

    Args:
        z: (n, d) projections of one view of each image, n >= 2.

    Examples:
        >>> from lowlevel_simclr.reference.checkup import compute_uniformity
        >>> round(compute_uniformity([[1.0, 0.0], [-1.0, 0.0]]), 6)
        -8.0
    """
    u = normalise_rows(z)
    squares = [((u[i] - u[j]) ** 2).sum() for i in range(len(u)) for j in range(i)]
    return float(np.log(np.mean(np.exp(-2 * np.array(squares)))))


def compute_effective_rank(rows: ArrayLike) -> float:
    """Return the effective rank of a matrix: between 1 and its rank, or 0 for a matrix of zeros.

    Args:
        rows: (n, d), not centred.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr.reference.checkup import compute_effective_rank
        >>> round(compute_effective_rank(np.eye(4)), 6), compute_effective_rank(np.zeros((4, 3)))
        (4.0, 0.0)
    """
    singular = np.linalg.svd(np.asarray(rows, np.float64), compute_uv=False)
    if not singular.any():
        return 0.0
    p = singular / singular.sum()
    p = p[p > 0]  # p log p is 0 at p = 0
    return float(np.exp(-(p * np.log(p)).sum()))


def compute_spread(z: ArrayLike) -> float:
    """Return the mean standard deviation of the columns of normalised z, in [0, 1/sqrt(d)].

    Args:
        z: (n, d) projections.

    Examples:
        >>> from lowlevel_simclr.reference.checkup import compute_spread
        >>> compute_spread([[2.0, 0.0], [-1.0, 0.0]])
        0.5
    """
    return float(normalise_rows(z).std(axis=0).mean())


def compute_dead_share(h: ArrayLike) -> float:
    """Return the share of the columns of h that are 0 in every row, in [0, 1].

    Args:
        h: (n, d) representations.

    Examples:
        >>> from lowlevel_simclr.reference.checkup import compute_dead_share
        >>> compute_dead_share([[0.0, 1.0], [0.0, 0.0]])
        0.5
    """
    return float((np.asarray(h) == 0).all(axis=0).mean())


def compute_length(vectors: Sequence[ArrayLike]) -> float:
    """Return the length of several arrays, taken together as one vector. For gradients, this is the gradient norm.

    Args:
        vectors: arrays of any shapes.

    Examples:
        >>> from lowlevel_simclr.reference.checkup import compute_length
        >>> compute_length([[[3.0]], [4.0]])
        5.0
    """
    return float(np.sqrt(sum((np.asarray(each, np.float64) ** 2).sum() for each in vectors)))


def compute_update_ratio(before: Sequence[ArrayLike], after: Sequence[ArrayLike]) -> float:
    """Return the length of the change of all weights, divided by the length of the weights before the change.

    Args:
        before: the weights before a step, not all 0.
        after: the weights after the step, with the same shapes.

    Examples:
        >>> from lowlevel_simclr.reference.checkup import compute_update_ratio
        >>> compute_update_ratio([[3.0], [4.0]], [[3.0], [4.5]])
        0.1
    """
    change = [np.asarray(new, np.float64) - np.asarray(old, np.float64) for old, new in zip(before, after)]
    return compute_length(change) / compute_length(before)
