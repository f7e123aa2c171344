"""The linear probe: multinomial logistic regression on frozen representations."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

PROBE_C = 0.01  # inverse weight of the penalty, see `fit_linear_probe`
PROBE_TOLERANCE = 1e-3
PROBE_ITERATIONS = 300


class Probe(NamedTuple):
    """The result of a linear probe.

    Attributes:
        accuracy: on the test split, in [0, 1].
        iterations: of the solver.
        converged: whether the solver needed fewer iterations than it may take.
    """

    accuracy: float
    iterations: int
    converged: bool


def fit_linear_probe(
    train_h: np.ndarray, train_labels: np.ndarray, test_h: np.ndarray, test_labels: np.ndarray, seed: int = 0
) -> Probe:
    """Fit multinomial logistic regression on the train rows, and return its accuracy on the test rows.

    Every column is first brought to mean 0 and variance 1 on the train split. The fit is scikit-learn's StandardScaler
    and LogisticRegression (L-BFGS) with a fixed C = 0.01. Nothing is chosen, so nothing can be chosen by the test
    split.

    The solver stops when no entry of the mean gradient is above 1e-3 (144 iterations for 20,000 images of CIFAR-10 as
    pixels), or after 300 iterations. The problem is convex and the solver draws nothing, so the seed has no effect.

    Args:
        train_h: (n, d) float.
        train_labels: (n,) class numbers, with at least two classes.
        test_h: (m, d) float.
        test_labels: (m,) class numbers.
        seed: the random_state of LogisticRegression.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train_h)
    probe = LogisticRegression(C=PROBE_C, max_iter=PROBE_ITERATIONS, tol=PROBE_TOLERANCE, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller reads `converged`
        probe.fit(scaler.transform(train_h), train_labels)
    iterations = int(probe.n_iter_.max())
    accuracy = float(probe.score(scaler.transform(test_h), test_labels))
    return Probe(accuracy, iterations, iterations < PROBE_ITERATIONS)
