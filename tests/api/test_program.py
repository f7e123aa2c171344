"""Tests how the programs of this package end after an error.

A known error must give one sentence. For an unexpected error, the user is asked to report it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal

import pytest
import tensorflow as tf

from lowlevel_simclr.api.program import explain_error, run_program
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.runtime.signals import Stopped, StopSignal, request_stop
from lowlevel_simclr.runtime.start_refusals import StartError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "There is not enough memory. Use a smaller --batch-size"),
        (MemoryError("Unable to allocate 7.45 GiB"), "There is not enough memory. Use a smaller --batch-size"),
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nwith shape [8]"),
            "not enough memory on the device. Use a smaller --batch-size, or --micro-batch. TensorFlow says: OOM when",
        ),
        (RuntimeError("can't start new thread"), "The system refused another thread. Raise the limits"),
        (StartError("KERAS_BACKEND is 'jax'."), "KERAS_BACKEND is 'jax'."),
        (DataError("There are no images."), "There are no images."),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "a\nb"), r"a\nb: Permission denied. Check the path"),
    ],
)
def test_an_error_of_the_surroundings_is_one_line(error: Exception, words: str) -> None:
    said = explain_error(error)
    assert said is not None and words in said and "\n" not in said


@pytest.mark.parametrize("error", [RuntimeError("other"), ValueError("x"), OSError("no number"), ZeroDivisionError()])
def test_a_mistake_of_ours_has_no_sentence(error: Exception) -> None:
    assert explain_error(error) is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 1, "error: There is not enough memory"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), 1, "error: There is not enough memory on the device"),
        (KeyboardInterrupt(), 130, "Stopped by SIGINT while testing"),
    ],
)
def test_a_program_ends_with_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def work() -> int:
        raise error

    assert run_program(work, "testing") == code
    printed = capsys.readouterr()
    assert printed.err.startswith(said) and printed.err.count("\n") == 1 and printed.out == ""


def test_an_error_that_a_signal_causes_counts_as_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    """Test a signal that arrives in a C function. The function hides the signal's exception and returns a wrong result.

    The program must treat the error that follows as the signal.
    """

    def work() -> int:
        with contextlib.suppress(StopSignal):
            request_stop(signal.SIGTERM)
        raise AttributeError("'SymbolicTensor' object has no attribute '_type_spec'")

    def fail() -> int:
        raise AttributeError("another error")

    assert run_program(work, "testing") == 143
    assert capsys.readouterr().err == ("Stopped by SIGTERM while testing. Run the same command again to continue.\n")
    assert run_program(fail, "testing") == 1


def test_a_stopped_program_has_the_code_of_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise Stopped("Saved at step 3.", signal.SIGHUP)

    assert run_program(work, "testing") == 129 and capsys.readouterr().out == "Saved at step 3.\n"


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_is_for_a_mistake_of_ours_or_for_debug(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    def make_mistake() -> int:
        raise ZeroDivisionError

    def lack_memory() -> int:
        raise MemoryError

    assert run_program(make_mistake, "testing", debug) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "This is a mistake in lowlevel_simclr" in said
    assert run_program(lack_memory, "testing", debug) == 1
    assert ("Traceback" in capsys.readouterr().err) == debug
