"""Handles the signals that ask a program to stop: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when the terminal is closed.

Windows has no SIGHUP. Its SIGBREAK comes with Ctrl-Break and when the window is closed.

A program ends within seconds after the first signal, whatever it is doing. Python's own handling is not enough: its
handlers run between two lines of Python, so a signal waits until a call into TensorFlow returns. Therefore a thread
watches for signals too. It ends the process if the main thread does not react in time. No file is damaged, because
every file is written under another name and renamed when it is complete.

Training is the exception. It notes the signal, finishes the present call into TensorFlow, which makes a few steps,
saves the state, and then stops (`note_stop_requests`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
WATCHED: tuple[signal.Signals, ...] = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
SIGPIPE = 13  # a broken output pipe; Windows has no such signal, but a program there stops for the same reason
PATIENCE = 4.0  # seconds that the main thread may take to come back from a call into TensorFlow


class Stopped(Exception):
    """The early end of a run, because a signal asked for it.

    Attributes:
        number: the number of the signal.
    """

    def __init__(self, text: str, number: int = signal.SIGTERM) -> None:
        super().__init__(text)
        self.number = number


class StopSignal(KeyboardInterrupt):
    """A signal that arrived while nothing had to be saved. Like Ctrl-C, it is not an `Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(name_signal(number))
        self.number = number


class _State:
    """The state that the signal handlers share: the work of the program, and the signal that has arrived."""

    def __init__(self) -> None:
        self.handled = False  # whether `end_on_signals` has set the handlers
        self.forget()

    def forget(self) -> None:
        """Start again, as if no signal had arrived."""
        self.stage = "starting"
        self.noting = False
        self.patience: float | None = None
        self.received: int | None = None
        self.raised: int | None = None
        self.ended = threading.Event()


_state = _State()


def tell_stage(stage: str) -> None:
    """Set the words for what the program is doing now. If a signal stops the program, it prints them.

    Args:
        stage: the end of the sentence "Stopped by SIGTERM while ...", such as "reading the images".
    """
    _state.stage = stage


def is_watched() -> bool:
    """Return whether `end_on_signals` watches the signals of this process.

    It does so only in the package's programs.
    """
    return _state.handled


def name_signal(number: int) -> str:
    """Return the name of a signal, such as "SIGTERM"."""
    return "SIGPIPE" if number == SIGPIPE else signal.Signals(number).name


def describe_stop(number: int) -> str:
    """Return the sentence that a program prints when a signal stops it."""
    name = name_signal(number)
    if number == SIGPIPE:
        return f"Stopped while {_state.stage}, because the program that read the output has ended ({name})."
    return f"Stopped by {name} while {_state.stage}. Run the same command again to continue."


def request_stop(number: int) -> None:
    """Act on a signal: note it while training, otherwise raise it in this thread.

    Args:
        number: the number of the signal.

    Raises:
        StopSignal: if nothing has to be saved, or if it is a second Ctrl-C.
    """
    again = _state.received is not None
    _state.received = _state.received or number
    if again and number == signal.SIGINT or not again and not _state.noting:
        _state.raised = number
        raise StopSignal(number)


def take_raised_signal() -> int | None:
    """Return the signal that this program last raised as a StopSignal, or None. A signal is returned only once.

    Code in C can clear the exception and continue with a wrong answer. For example, TensorFlow can then mistake a
    tensor for another object. So the program may end with a different error that is only a consequence of the signal.
    """
    number, _state.raised = _state.raised, None
    return number


@contextlib.contextmanager
def end_on_signals() -> Iterator[None]:
    """Within the block, raise StopSignal for each signal of `WATCHED`, or end the process if that takes too long.

    Only programs use this, in their main thread. If the program was started to ignore a signal, as under nohup, the
    signal stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.forget()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    old_writer = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, lambda number, frame: request_stop(number))
        for number in WATCHED
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    watch = threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True)
    watch.start()
    print_ignored = sys.unraisablehook
    sys.unraisablehook = _end_on_ignored_signal(print_ignored)
    _state.handled = True
    try:
        yield
    finally:
        _state.handled = False
        _state.ended.set()
        sys.unraisablehook = print_ignored
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_writer)
        writer.close()  # ends the thread
        watch.join()
        reader.close()


def _end_on_ignored_signal(
    print_ignored: Callable[[sys.UnraisableHookArgs], object],
) -> Callable[[sys.UnraisableHookArgs], None]:
    """Return a hook that ends the process if Python ignores a StopSignal.

    Python ignores an exception in a destructor or in a callback of the garbage collector, and prints its traceback.
    Signal handlers run there too.

    Args:
        print_ignored: the hook for every other exception.
    """

    def act(ignored: sys.UnraisableHookArgs) -> None:
        if isinstance(ignored.exc_value, StopSignal):
            _end(ignored.exc_value.number, "")
        print_ignored(ignored)

    return act


def _watch(reader: socket.socket) -> None:
    """End the process if the main thread does not react to a signal in time. A second signal ends it at once."""
    for first in iter(lambda: reader.recv(1), b""):
        number = first[0]
        if number not in WATCHED:
            continue
        if _state.noting:  # the training loop finishes its call and saves the state
            if _state.patience is not None:
                threading.Thread(target=_wait_for_workers, args=(number,), daemon=True).start()
            continue
        reader.settimeout(PATIENCE)
        try:
            again = reader.recv(1)
        except TimeoutError:
            again = b"\0"
        if not again or _state.ended.is_set():
            return  # the main thread has come back
        _end(number, "")


def _wait_for_workers(number: int) -> None:
    """End the process if the other workers keep it from stopping."""
    if not _state.ended.wait(_state.patience) and _state.noting:
        _end(number, f" The other workers did not answer within {_state.patience:g} seconds.")


def _end(number: int, more: str) -> None:
    os.write(2, f"{describe_stop(number)}{more}\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def note_stop_requests(patience: float | None = None) -> Iterator[Callable[[], int | None]]:
    """Note the signals of `WATCHED` within the block, without stopping at once.

    After a first signal, Ctrl-C stops at once.

    Args:
        patience: the program ends this many seconds after a signal, even if the block still runs. None: the program
            waits until the block ends.

    Yields:
        A function that returns the number of the first signal, or None.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python lets only the main thread handle signals, so other threads note none
        return
    before = {}
    if not _state.handled:
        _state.forget()

        def note(number: int, frame: FrameType | None) -> None:
            request_stop(number)

        before = {number: signal.signal(number, note) for number in WATCHED}
    _state.noting, _state.patience = True, patience
    try:
        yield lambda: _state.received
    finally:
        _state.noting = False
        for number, handler in before.items():
            signal.signal(number, handler)
