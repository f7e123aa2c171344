"""A thread that works beside training. It writes metrics and saves checkpoints, one piece of work after another.

An error in the thread ends the run. The next call of `do` or `wait` raises the error. If there is no such call, the end
of the `with` block raises it. After an error the thread drops all later work, so that no checkpoint follows metrics
that could not be written.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

WAITING = 2  # pieces of work that may wait; with one more, `do` blocks, so that snapshots cannot fill the memory


class BackgroundWorker:
    """A thread that does the work that it is given.

    As a context manager, it finishes all work before the block ends.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="background", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundWorker:
        """Return the worker itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all work that was given. Raise the error of that work, unless the block itself raised one."""
        self._waiting.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def do(self, work: Callable[[], None]) -> None:
        """Give the thread a piece of work. The thread does it after all earlier work.

        Args:
            work: a function without arguments.

        Raises:
            BaseException: if earlier work raised it. In this case the thread does not do `work`.
        """
        self._raise()
        self._waiting.put(work)

    def wait(self) -> None:
        """Wait until the thread has done all work that was given.

        Raises:
            BaseException: if a piece of work raised it.
        """
        done = threading.Event()
        self._waiting.put(done.set)
        while self._error is None and not done.wait(0.05):
            pass
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:  # noqa: BLE001, `do`, `wait` or `__exit__` raises it again
                    self._error = error
