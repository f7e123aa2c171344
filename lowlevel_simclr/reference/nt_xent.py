"""NT-Xent, the loss of SimCLR, in NumPy float64, written as in the paper.

All other implementations are checked against it.

SimCLR (Chen et al. 2020), section 2.1, equation (1), over the 2N projections of N images:

    loss_i = -log( exp(s_ip) / sum_{k != i} exp(s_ik) ),   s_ij = <u_i, u_j> / tau,   u = z / |z|

Rows 0..N-1 are the first views and rows N..2N-1 the second views, so the positive of row i is p(i) = (i + N) mod 2N. A
row of length zero has u = 0 and gradient 0. Nothing is ever added to a norm. NaN in z makes the losses NaN.

A pair is the two views of one image. If several replicas (copies of the model on several devices) share a batch, each
of them owns some of the N pairs. The rows of these pairs are its own rows. `nt_xent_rows` and `nt_xent_rows_gradient`
compute the losses and gradients of a replica's own rows, each compared with all 2N rows. `nt_xent` and
`nt_xent_gradient` are the special case in which one replica owns every pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowlevel_simclr.contract.checks import convert_to_float

Rows = NDArray[np.float64]


def nt_xent(z: ArrayLike, temperature: float) -> Rows:
    """Return the loss of every row, equation (1).

    Args:
        z: (2N, d) projections, first views then second views. They need not be normalised.
        temperature: tau > 0.

    Returns:
        (2N,) float64 losses. Their mean is the paper's loss L.

    Raises:
        ValueError: if z is not (2N, d) with N >= 1 and d >= 1, or temperature is not a positive finite number.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> reference.nt_xent(z, temperature=0.5).round(4).tolist()
        [0.2395, 0.2395, 0.2395, 0.2395]
        >>> reference.nt_xent(np.ones((4, 2)), temperature=0.5).round(4).tolist()  # a collapsed encoder: log(2N - 1)
        [1.0986, 1.0986, 1.0986, 1.0986]
    """
    z = _check_rows(z)
    return nt_xent_rows(z, 0, len(z) // 2, temperature)


def nt_xent_rows(z: ArrayLike, first_pair: int, pairs: int, temperature: float) -> Rows:
    """Return the losses of pairs first_pair .. first_pair + pairs - 1. Each of their rows is compared with all 2N rows.

    Args:
        z: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair, 0 <= first_pair < N.
        pairs: n, number of own pairs, n >= 1.
        temperature: tau > 0.

    Returns:
        (2n,) float64 losses: the own first views, then the own second views.

    Raises:
        ValueError: as in `nt_xent`, or if the own pairs do not lie in 0 .. N-1.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> reference.nt_xent_rows(z, first_pair=1, pairs=1, temperature=0.5).round(4).tolist()
        [0.2395, 0.2395]
    """
    z = _check_rows(z)
    own = list_own_rows(len(z), first_pair, pairs)  # (2n,)
    s = _compute_similarities(normalise_rows(z), own, _check_temperature(temperature))  # (2n, 2N)
    return _compute_log_sum_exp(s) - _select_positive(s, own)


def nt_xent_gradient(z: ArrayLike, temperature: float, cotangent: ArrayLike) -> Rows:
    """Return the gradient of sum_i cotangent_i loss_i with respect to z, in closed form.

    Args:
        z: (2N, d) projections, first views then second views.
        temperature: tau > 0.
        cotangent: (2N,) weights c of the losses. 1 / 2N for each gives the gradient of the paper's loss L.

    Returns:
        (2N, d) float64. Rows with |z_i| = 0 are 0.

    Raises:
        ValueError: as in `nt_xent`, or if cotangent is not (2N,).

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> reference.nt_xent_gradient(z, temperature=0.5, cotangent=np.full(4, 1 / 4)).shape
        (4, 2)
    """
    z = _check_rows(z)
    return nt_xent_rows_gradient(z, 0, len(z) // 2, temperature, cotangent)


def nt_xent_rows_gradient(z: ArrayLike, first_pair: int, pairs: int, temperature: float, cotangent: ArrayLike) -> Rows:
    """Return the rows of `nt_xent_gradient` that belong to pairs first_pair .. first_pair + pairs - 1.

    An own row enters its own loss as u_i. It enters every other row's loss as one of the columns. So besides z, a
    replica needs only the cotangents and the log-sums lse_i = log sum_{k != i} exp(s_ik) of all 2N losses. The replicas
    need not exchange gradients.

        W_ij = c_i exp(s_ij - lse_i) + c_j exp(s_ij - lse_j),  minus c_i + c_j if j is the positive of i
        du_i = (1/tau) sum_{j != i} W_ij u_j
        dz_i = (du_i - <du_i, u_i> u_i) / |z_i|

    Args:
        z: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair, 0 <= first_pair < N.
        pairs: n, number of own pairs, n >= 1.
        temperature: tau > 0.
        cotangent: (2N,) weights c of all losses, not only of the own ones.

    Returns:
        (2n, d) float64: the own first views, then the own second views.

    Raises:
        ValueError: as in `nt_xent_rows`, or if cotangent is not (2N,).

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> reference.nt_xent_rows_gradient(z, 1, 1, temperature=0.5, cotangent=np.full(4, 1 / 4)).shape
        (2, 2)
    """
    z, temperature = _check_rows(z), _check_temperature(temperature)
    c = _check_cotangent(cotangent, len(z))  # (2N,)
    own, u = list_own_rows(len(z), first_pair, pairs), normalise_rows(z)
    s_all = _compute_similarities(u, np.arange(len(z)), temperature)  # (2N, 2N)
    lse, s = _compute_log_sum_exp(s_all), s_all[own]  # (2N,), (2n, 2N)
    weights = c[own, None] * np.exp(s - lse[own, None]) + c[None, :] * np.exp(s - lse[None, :])
    place, partner = np.arange(len(own)), find_positive(len(z))[own]
    weights[place, partner] -= c[own] + c[partner]
    du = weights @ u / temperature  # (2n, d)
    tangent = du - np.sum(du * u[own], axis=1, keepdims=True) * u[own]
    lengths = _measure_lengths(z)[own]  # (2n, 1)
    return np.where(lengths == 0, 0.0, tangent / np.where(lengths == 0, 1.0, lengths))


def nt_xent_temperature_gradient(z: ArrayLike, temperature: float, cotangent: ArrayLike) -> np.float64:
    """Return the gradient of sum_i cotangent_i loss_i with respect to the temperature.

    s is proportional to 1/tau. Therefore, with lse_i = log sum_{k != i} exp(s_ik) and P_ik = exp(s_ik - lse_i),

        d loss_i / d tau = -(1/tau) (sum_{k != i} P_ik s_ik - s_ip)

    Args:
        z: (2N, d) projections, first views then second views.
        temperature: tau > 0.
        cotangent: (2N,) weights c of the losses.

    Returns:
        One float64 number.

    Raises:
        ValueError: see `nt_xent_gradient`.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> float(reference.nt_xent_temperature_gradient(z, temperature=0.5, cotangent=np.full(4, 1 / 4)).round(4))
        0.8521
    """
    z, temperature = _check_rows(z), _check_temperature(temperature)
    c = _check_cotangent(cotangent, len(z))
    own = np.arange(len(z))
    s = _compute_similarities(normalise_rows(z), own, temperature)  # (2N, 2N)
    probability = np.exp(s - _compute_log_sum_exp(s)[:, None])
    candidates = np.where(np.isneginf(s), 0.0, s)  # the diagonal becomes 0, because 0 * -inf would be NaN
    slope = -(np.sum(probability * candidates, axis=1) - _select_positive(s, own)) / temperature  # (2N,)
    return np.float64(np.sum(c * slope))


def contrastive_top1(z: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each row's positive (the other view) is the most similar of its 2N - 1 candidates.

    The positive must be strictly more similar than every other candidate. So a tie gives False, and a collapsed encoder
    (one z for all views) scores 0. With N = 1 there is no other candidate, so both rows are True. NaN gives False.

    Args:
        z: (2N, d) projections, first views then second views.

    Returns:
        (2N,) bool.

    Raises:
        ValueError: if z is not (2N, d) with N >= 1 and d >= 1.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> reference.contrastive_top1(z).tolist()
        [True, True, True, True]
        >>> reference.contrastive_top1(np.ones((4, 2))).tolist()  # a collapsed encoder
        [False, False, False, False]
    """
    z = _check_rows(z)
    own = np.arange(len(z))
    s = _compute_similarities(normalise_rows(z), own, 1.0)
    of_positive = _select_positive(s, own)
    s[own, find_positive(len(z))] = -np.inf
    return of_positive > np.max(s, axis=1)


def normalise_rows(z: ArrayLike) -> Rows:
    """Return rows of length 1: u = z / |z|, and u = 0 where |z| is 0.

    Args:
        z: (2N, d) projections.

    Returns:
        (2N, d) float64.

    Examples:
        >>> from lowlevel_simclr import reference
        >>> reference.normalise_rows([[3.0, 4.0], [0.0, 0.0]]).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    z = np.asarray(z, dtype=np.float64)
    scaled = z / _find_largest(z)  # its squares neither overflow nor vanish, whatever |z| is
    length = np.sqrt(np.sum(scaled * scaled, axis=1, keepdims=True))
    return scaled / np.where(length == 0, 1.0, length)


def find_positive(rows: int) -> NDArray[np.intp]:
    """Return the index p(i) of the other view of the same image, for each of 2N rows.

    Args:
        rows: 2N.

    Returns:
        (2N,) indices.

    Examples:
        >>> from lowlevel_simclr import reference
        >>> reference.find_positive(6).tolist()
        [3, 4, 5, 0, 1, 2]
    """
    return (np.arange(rows) + rows // 2) % rows


def list_own_rows(rows: int, first_pair: int, pairs: int) -> NDArray[np.intp]:
    """Return the row numbers of pairs first_pair .. first_pair + pairs - 1: their first views, then their second views.

    Args:
        rows: 2N.
        first_pair: first own pair.
        pairs: n, number of own pairs.

    Returns:
        (2n,) indices.

    Raises:
        ValueError: if the pairs do not lie in 0 .. N-1.

    Examples:
        >>> from lowlevel_simclr import reference
        >>> reference.list_own_rows(6, first_pair=1, pairs=2).tolist()
        [1, 2, 4, 5]
    """
    if first_pair < 0 or pairs < 1 or first_pair + pairs > rows // 2:
        raise ValueError(
            f"first_pair={first_pair} and pairs={pairs} do not lie within the {rows // 2} pairs of z. "
            "Use first_pair >= 0, pairs >= 1 and first_pair + pairs <= N."
        )
    first_views = np.arange(first_pair, first_pair + pairs)
    return np.concatenate([first_views, first_views + rows // 2])


def _compute_similarities(u: Rows, own: NDArray[np.intp], temperature: float) -> Rows:
    """Return s_ij = <u_i, u_j> / tau for the rows i in `own`, with -inf where j = i: (2n, 2N)."""
    s = u[own] @ u.T / temperature
    s[np.arange(len(own)), own] = -np.inf  # k != i: a row is not a candidate for itself
    return s


def _select_positive(s: Rows, own: NDArray[np.intp]) -> Rows:
    """Return s_ip of each row of a (2n, 2N) block: (2n,)."""
    return s[np.arange(len(own)), find_positive(s.shape[1])[own]]


def _compute_log_sum_exp(s: Rows) -> Rows:
    """Return log sum_k exp s_ik over the columns: (2n, 2N) -> (2n,)."""
    largest = np.max(s, axis=1, keepdims=True)
    return largest[:, 0] + np.log(np.sum(np.exp(s - largest), axis=1))


def _find_largest(z: Rows) -> Rows:
    """Return the largest |coordinate| of each row, 1 for a zero row, NaN for an infinite row: (2N, 1)."""
    largest = np.max(np.abs(z), axis=1, keepdims=True)
    return np.where(np.isinf(largest), np.nan, np.where(largest == 0, 1.0, largest))


def _measure_lengths(z: Rows) -> Rows:
    """Return |z| of each row, without overflow: (2N, 1)."""
    largest = _find_largest(z)
    return largest * np.sqrt(np.sum((z / largest) ** 2, axis=1, keepdims=True))


def _check_rows(z: ArrayLike) -> Rows:
    """Return z as float64.

    Raises:
        ValueError: if z is not (2N, d) with N >= 1 and d >= 1.
    """
    rows = np.asarray(z, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0 or len(rows) % 2 != 0 or rows.shape[1] == 0:
        raise ValueError(
            f"z has shape {rows.shape}. NT-Xent needs (2N, d) with N >= 1 and d >= 1: "
            "all N first views, then all N second views."
        )
    return rows


def _check_temperature(temperature: float) -> float:
    """Return tau as a float.

    Raises:
        ValueError: if it is not a positive finite number.
    """
    tau = convert_to_float(temperature)
    if not 0 < tau < np.inf:
        raise ValueError(f"temperature is {tau}. It must be a positive finite number.")
    return tau


def _check_cotangent(cotangent: ArrayLike, rows: int) -> Rows:
    """Return the cotangent as float64.

    Raises:
        ValueError: if it is not (2N,).
    """
    c = np.asarray(cotangent, dtype=np.float64)
    if c.shape != (rows,):
        raise ValueError(f"cotangent has shape {c.shape}. It must have shape ({rows},), one number for each row.")
    return c
