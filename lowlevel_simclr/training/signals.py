"""The signals that ask a run to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Stopped(Exception):
    """The early end of a run, because SIGTERM or Ctrl-C asked for it."""


@contextlib.contextmanager
def note_stop_requests() -> Iterator[Callable[[], str | None]]:
    """Note SIGTERM and Ctrl-C within the block, without stopping at once.

    A Ctrl-C that follows a first signal does stop the program at once.

    Yields:
        A function that returns the name of the first signal, or None.
    """
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python lets only the main thread handle signals, so a notebook's worker notes none
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
