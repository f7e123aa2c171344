"""Threads that share NumPy's work on the rows of an array, one thread for each core.

NumPy uses several threads only for its matrix products. The threads of its BLAS library use their cores while they wait
for each other. If other work uses the cores too, small products then take much longer: three logistic regressions on 60
images took 37 seconds with two BLAS threads, and 1 second with one. So in this module every thread takes whole blocks
of rows, and BLAS uses one thread in each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from lowlevel_simclr.runtime.cpu import count_usable_cores

MOST_THREADS = 16  # each thread needs memory of its own


@contextlib.contextmanager
def open_block_pool() -> Iterator[Executor]:
    """Yield a pool with a thread for each core, but at most MOST_THREADS. Inside the context, BLAS uses one thread.

    Example:
        >>> with open_block_pool() as pool:
        ...     list(pool.map(lambda rows: sum(range(10)[rows]), split_rows(10, 6)))
        [15, 30]
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(count_usable_cores() or 1, MOST_THREADS)) as pool:
        yield pool


def split_rows(count: int, size: int) -> list[slice]:
    """Return the blocks of `count` rows. Each block has `size` rows, except that the last one may have fewer.

    Args:
        count: number of rows.
        size: rows of a block, at least 1.

    Example:
        >>> split_rows(5, 2)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
