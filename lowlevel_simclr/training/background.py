"""Work done beside training, in one thread and in the order it was given: metrics read and written, checkpoints saved.

An error ends the run: it is raised where the next work is given, or at the end. Work behind it is dropped, so that no
checkpoint follows metrics that could not be written.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

WAITING = 2  # pieces of work that may wait; whoever gives a third waits, so that memory cannot fill with snapshots


class BackgroundWorker:
    """A thread that does what it is given, as a context: it ends, all work done, where the block ends."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="background", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundWorker:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for the work that was given; an error of it is raised unless the block already ends by one."""
        self._waiting.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def do(self, work: Callable[[], None]) -> None:
        """Takes a piece of work, to be done after all that was given before.

        Raises:
            BaseException: what earlier work raised; `work` is not done then.
        """
        self._raise()
        self._waiting.put(work)

    def wait(self) -> None:
        """Returns when all that was given is done.

        Raises:
            BaseException: what the work raised.
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
                except BaseException as error:  # noqa: BLE001, it is raised in the thread that gives the work
                    self._error = error
