"""Tests a thread pool that divides the rows of an array into blocks, on which several threads run NumPy code."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lowlevel_simclr.runtime import block_pool


def count_blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (6, 3), (7, 3), (7, 100)])
def test_blocks_are_all_rows_in_order(count: int, size: int) -> None:
    blocks = block_pool.split_rows(count, size)
    assert [row for block in blocks for row in range(count)[block]] == list(range(count))
    assert all(0 < block.stop - block.start <= size for block in blocks)


def test_results_come_in_order_and_blas_uses_one_thread_meanwhile() -> None:
    before = count_blas_threads()
    with block_pool.open_block_pool() as pool:
        found = list(pool.map(lambda rows: (rows.start, count_blas_threads()), block_pool.split_rows(9, 2)))
    assert found == [(start, {1}) for start in (0, 2, 4, 6, 8)]
    assert count_blas_threads() == before


def test_there_is_a_thread_for_each_core_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((None, 1), (3, 3), (500, block_pool.MOST_THREADS)):
        monkeypatch.setattr(block_pool, "count_usable_cores", lambda cores=cores: cores)
        with block_pool.open_block_pool() as pool:
            assert pool._max_workers == expected
