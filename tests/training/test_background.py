"""Tests the background thread of training: it does its tasks in order, finishes all of them, and reports errors."""

from __future__ import annotations

import threading
import time

import pytest

from lowlevel_simclr.training.background import BackgroundWorker


def test_work_is_done_in_order_by_the_end_of_the_block() -> None:
    done: list[int] = []

    def work(place: int) -> None:
        time.sleep(0.002 * (20 - place) / 20)  # the first task takes the longest time, the last one the shortest
        done.append(place)

    with BackgroundWorker() as beside:
        for place in range(20):
            beside.do(lambda place=place: work(place))
    assert done == list(range(20))


def test_work_is_done_beside_and_not_before() -> None:
    gate, threads = threading.Event(), []
    with BackgroundWorker() as beside:
        beside.do(lambda: (gate.wait(10), threads.append(threading.current_thread())))
        assert threads == []
        gate.set()
    assert threads and threads[0] is not threading.current_thread()


def test_an_error_is_raised_where_the_next_work_is_given_and_drops_what_is_behind_it() -> None:
    done: list[int] = []
    with pytest.raises(OSError, match="the disk is full"):
        with BackgroundWorker() as beside:
            beside.do(fail)
            beside.do(lambda: done.append(1))  # raises only if the thread has already run `fail`
            while True:
                beside.do(lambda: done.append(2))
                time.sleep(0.001)
    assert done == []


def fail() -> None:
    raise OSError("the disk is full")


def test_an_error_of_the_last_work_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="the disk is full"):
        with BackgroundWorker() as beside:
            beside.do(fail)


def test_an_error_of_the_block_itself_goes_first_and_waits_for_the_work() -> None:
    done: list[int] = []
    with pytest.raises(ValueError, match="the block"):
        with BackgroundWorker() as beside:
            beside.do(lambda: (time.sleep(0.05), done.append(1)))
            beside.do(fail)
            raise ValueError("the block")
    assert done == [1]


def test_memory_cannot_fill_whoever_gives_too_much_waits() -> None:
    gate, given = threading.Event(), []

    def give() -> None:
        with BackgroundWorker() as beside:
            for place in range(10):
                beside.do(lambda: gate.wait(10) and None)
                given.append(place)

    giver = threading.Thread(target=give)
    giver.start()
    time.sleep(0.2)
    waiting = len(given)
    gate.set()
    giver.join()
    assert waiting <= 4 and len(given) == 10
