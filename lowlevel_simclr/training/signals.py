"""Signals that ask a run to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Stopped(Exception):
    """SIGTERM or Ctrl-C asked the run to end."""


@contextlib.contextmanager
def note_stop_requests() -> Iterator[Callable[[], str | None]]:
    """Within it SIGTERM and Ctrl-C are noted, not obeyed at once; a second Ctrl-C is. Gives the name of the signal."""
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
