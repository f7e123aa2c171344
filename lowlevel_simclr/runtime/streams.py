"""Guards standard output and standard error, so that a failed write raises no OSError."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from lowlevel_simclr.runtime.signals import SIGPIPE, request_stop


class GuardedStream:
    """A text stream that raises no OSError if a write fails.

    A full disk or a closed terminal only ends the output, and the program continues. If the process that reads the
    output has ended, as in `train | head`, the stream asks the program to stop, as the signal SIGPIPE would.

    Attributes:
        error: the first error of a write, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, unless a write has failed before."""
        if self.error is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless a write has failed before."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = error
        # Python flushes the buffer again when it ends, which would fail again. So the stream now leads to /dev/null.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        if isinstance(error, BrokenPipeError):
            request_stop(SIGPIPE)

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the stream."""
        return getattr(self._stream, name)


def open_missing_streams() -> None:
    """Open /dev/null in place of a standard stream that was closed before the program started.

    Otherwise the next file that the program opens would get the number of that stream, and TensorFlow would write its
    messages into the file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))


@contextlib.contextmanager
def guard_streams() -> Iterator[None]:
    """Within the block, a failed write to standard output or standard error raises no OSError (see `GuardedStream`).

    Standard output is flushed after each line, so that a log file or a pipe shows it at once. Some encodings, such as
    Windows code pages, lack characters. The missing characters are written as escapes.
    """
    open_missing_streams()
    before = sys.stdout, sys.stderr
    out, err = GuardedStream(before[0]), GuardedStream(before[1])
    if hasattr(before[0], "reconfigure"):
        before[0].reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
        out.flush()
        err.flush()
        if out.error is not None:
            print(f"warning: Standard output could not be written ({out.error.strerror}).", file=sys.stderr)
    finally:
        sys.stdout, sys.stderr = before
