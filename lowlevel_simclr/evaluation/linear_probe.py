"""The linear probe: multinomial logistic regression on frozen representations."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lowlevel_simclr.runtime.progress_bar import open_bar

SMALL_PRODUCT = 10**8  # multiplications of rows and weights. This number of them takes 10 to 20 ms on one core.
PROBE_C = 0.01  # inverse weight of the penalty, see `fit_linear_probe`
PROBE_TOLERANCE = 1e-3
PROBE_ITERATIONS = 300


class Probe(NamedTuple):
    """The result of a linear probe.

    Attributes:
        accuracy: on the test split, in [0, 1].
        iterations: iterations of the solver.
        converged: whether the solver stopped before its largest number of iterations.
    """

    accuracy: float
    iterations: int
    converged: bool


def fit_linear_probe(
    train_h: np.ndarray,
    train_labels: np.ndarray,
    test_h: np.ndarray,
    test_labels: np.ndarray,
    seed: int = 0,
    title: str = "",
) -> Probe:
    """Fit multinomial logistic regression on the train rows, and return its accuracy on the test rows.

    Every column is first scaled to mean 0 and variance 1 on the train split. The fit is scikit-learn's StandardScaler
    and LogisticRegression (L-BFGS) with a fixed C = 0.01. No setting is chosen from data, so the test split cannot
    influence one.

    The solver stops when no entry of the mean gradient is above 1e-3, or after 300 iterations. (For 20,000 images of
    CIFAR-10 as pixels it takes 144 iterations.) The problem is convex and the solver draws no random numbers, so the
    seed has no effect.

    Args:
        train_h: (n, d) float.
        train_labels: (n,) class numbers, with at least two classes.
        test_h: (m, d) float.
        test_labels: (m,) class numbers.
        seed: the random_state of LogisticRegression.
        title: shown with the progress. Without it, no progress is shown.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    # The threads of OpenBLAS spin while they wait for each other. On busy cores, small products then take much longer.
    # Three probes of 60 images took 37 seconds with two threads, and 1 second with one.
    threads = 1 if train_h.size * len(np.unique(train_labels)) < SMALL_PRODUCT else None
    scaler = StandardScaler().fit(train_h)
    probe = LogisticRegression(C=PROBE_C, max_iter=PROBE_ITERATIONS, tol=PROBE_TOLERANCE, random_state=seed % 2**32)
    shown = f"{title} (may end earlier)" if title else ""
    with warnings.catch_warnings(), threadpool_limits(threads, "blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller reads `converged`
        with open_bar(shown, PROBE_ITERATIONS, "iterations") as bar, _tell_iterations(bar.update):
            probe.fit(scaler.transform(train_h), train_labels)
    iterations = int(probe.n_iter_.max())
    accuracy = float(probe.score(scaler.transform(test_h), test_labels))
    return Probe(accuracy, iterations, iterations < PROBE_ITERATIONS)


@contextlib.contextmanager
def _tell_iterations(tell: Callable[[], object]) -> Iterator[None]:
    """Call `tell` after each iteration of L-BFGS in the block.

    Up to version 1.7, scikit-learn takes no callback. It calls SciPy's solver through the module `scipy.optimize`. This
    solver accepts a callback. So this function replaces the solver in that module.
    """
    from scipy import optimize

    minimize = optimize.minimize

    def minimize_and_tell(
        *given: Any, callback: Callable[[np.ndarray], object] | None = None, **options: Any
    ) -> optimize.OptimizeResult:
        def tell_both(weights: np.ndarray) -> object:
            tell()
            return callback(weights) if callback else None

        return minimize(*given, callback=tell_both, **options)

    optimize.minimize = minimize_and_tell
    try:
        yield
    finally:
        optimize.minimize = minimize
