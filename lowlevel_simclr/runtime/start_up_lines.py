"""Hides the lines that TensorFlow prints when it starts, because they do not help the user of a program.

TensorFlow's libraries write to file descriptor 2 while they are loaded and while they look for GPUs. Most of these
lines ignore TF_CPP_MIN_LOG_LEVEL, and none of them helps somebody who starts a first run. So the program writes to a
pipe, and a filter process reads from it. The filter drops these lines and passes on all others at once. The filter is a
separate process for two reasons. Python's lock is held while a library is loaded, so a thread could not empty the pipe.
And if the program crashes, the filter still prints the lines that it held back.

This file is also the filter's program. It needs only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

# The beginning of a line. From TensorFlow 2.18 on it looks like "E0000 00:00:1796032084.745037   17231 file.cc:52] ".
# Up to TensorFlow 2.17 it looks like "2026-11-30 09:49:02.170539: E path/file.cc:113] ".
PREFIX = re.compile(r"^(?:(?P<new>[IWEF])\d{4} [\d:.]+ +\d+ |[\d-]+ [\d:.]+: (?P<old>[IWEF]) )\S+:\d+\] ")
LETTERS = "IWEF"  # the letters of the levels 0 to 3
HARMLESS = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "To enable the following instructions:",  # the second line of a note about the processor
    "Unable to register cu",  # cuDNN, cuFFT and cuBLAS: TensorFlow 2.15 registers them twice
    "computation_placer already registered",
    "failed call to cuInit",  # `gpu_problem` says in one sentence why no GPU is used
    "cuda_diagnostics.cc",
    "only on platforms with AVX-512. Falling back",  # oneDNN lacks a number type here; TensorFlow still works
    # TensorFlow 2.15 writes three lines when `check` tries the ops inside XLA. `check` prints the result of the trial
    # itself.
    "'stablehlo.custom_call' op attribute 'api_version' failed",
    "Cannot deserialize computation",
    "[[{{node XlaCallModule}}]]",
)
LEVEL = "TF_CPP_MIN_LOG_LEVEL"
SEEN_BY_DEFAULT = "2"  # errors only
END = b"\0the program started\n"  # the last line of a program that started
HELD_AT_MOST = 1000  # lines; when the filter holds as many, it passes on all further lines


def is_harmless(line: str, level: int = 2) -> bool:
    """Return whether a user does not need this line of TensorFlow's start.

    Such a line has a known text, or it lies below the level that TF_CPP_MIN_LOG_LEVEL asks for. (TensorFlow's first
    lines ignore that level.)

    Args:
        line: a line of standard error.
        level: 1 shows warnings and errors, 2 shows errors, 3 shows only crashes.

    Example:
        >>> is_harmless("I0000 00:00:1796032084.74   17231 cudart_stub.cc:31] Could not find cuda drivers")
        True
        >>> is_harmless("Traceback (most recent call last):")
        False
    """
    found = PREFIX.match(line)
    below = found is not None and LETTERS.index(found["new"] or found["old"]) < level
    return below or any(text in line for text in HARMLESS)


@contextlib.contextmanager
def hide_start_up_lines() -> Iterator[None]:
    """Show none of TensorFlow's start-up lines on standard error while the block runs.

    If the block raises, or the program crashes in it, all lines are printed. With TF_CPP_MIN_LOG_LEVEL=0 the user asks
    for every line, so nothing is hidden. Without that variable, the function sets it to 2, so that TensorFlow later
    prints errors only.
    """
    if os.environ.setdefault(LEVEL, SEEN_BY_DEFAULT) == "0" or sys.stderr is None:
        yield
        return
    command = [sys.executable, "-I", "-S", __file__]
    # The filter gets a session of its own, so that Ctrl-C does not end it before the program.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdin is not None
        before = os.dup(2)
        os.dup2(child.stdin.fileno(), 2)
        try:
            yield
            child.stdin.write(END)
        finally:
            os.dup2(before, 2)
            os.close(before)


def filter_lines() -> None:
    """Pass the lines of standard input on to standard error, without harmless ones, until the line END.

    If the input ends without END, the program crashed. Then the filter prints the lines that it held back.
    """
    asked = os.environ.get(LEVEL, "")
    level = int(asked) if asked in ("1", "2", "3") else int(SEEN_BY_DEFAULT)
    held: list[bytes] = []
    for line in sys.stdin.buffer:
        if line == END:
            return
        if len(held) < HELD_AT_MOST and is_harmless(line.decode("utf-8", "replace"), level):
            held.append(line)
        else:
            os.write(2, line)
    for line in held:
        os.write(2, line)


if __name__ == "__main__":
    filter_lines()
