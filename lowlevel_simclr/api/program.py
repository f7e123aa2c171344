"""What every program does around its own work: start TensorFlow, handle signals, and print errors as sentences."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from lowlevel_simclr.config.command_line import FlagParser
from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.runtime.signals import (
    Stopped,
    StopSignal,
    describe_stop,
    end_on_signals,
    take_raised_signal,
    tell_stage,
)
from lowlevel_simclr.runtime.start_refusals import StartError
from lowlevel_simclr.runtime.streams import guard_streams
from lowlevel_simclr.runtime.tensorflow_start import start_tensorflow

# Some programs import FlagParser from this module.
__all__ = ["FlagParser", "explain_error", "print_written", "run_program"]


def run_program(work: Callable[[], int], stage: str, debug: bool = False) -> int:
    """Do the work of a program, and return its exit code.

    Args:
        work: function that does the work and returns the exit code. The imports that need TensorFlow are inside it,
            so that --help is fast.
        stage: what the program does first, such as "reading the images". It is the end of the sentence "Stopped by
            SIGTERM while ...". Later stages replace it.
        debug: whether to show the traceback of an error.

    Returns:
        The exit code of `work`, 1 after an error, and 128 plus the number of the signal that stopped the program.
    """
    with guard_streams():
        try:
            with end_on_signals():
                start_tensorflow()
                tell_stage(stage)
                return work()
        except Stopped as stopped:
            print(stopped)
            return 128 + stopped.number
        except KeyboardInterrupt as stop:
            take_raised_signal()
            number = stop.number if isinstance(stop, StopSignal) else signal.SIGINT
            print(describe_stop(number), file=sys.stderr)
            return 128 + number
        except Exception as error:  # noqa: BLE001, the one place that turns errors into sentences
            raised = take_raised_signal()
            if raised is not None and not debug:
                print(describe_stop(raised), file=sys.stderr)
                return 128 + raised
            sentence = explain_error(error)
            if debug or sentence is None:
                traceback.print_exc()
            print(f"error: {sentence or ask_for_report()}", file=sys.stderr)
            return 1


def print_written(path: str | Path) -> None:
    """Print which file or folder a program wrote, as one printable line."""
    print(f"Wrote {show_name(path)}")


def explain_error(error: Exception) -> str | None:
    """Return the sentence to print for an error, or None if the error is a mistake (bug) of this package.

    Args:
        error: the error that ended a program.
    """
    if isinstance(error, StartError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "There is not enough memory. Use a smaller --batch-size, --micro-batch or --memory-limit, or end other "
            "programs."
        )
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "The system refused another thread. Raise the limits of ulimit -v and ulimit -u, or end other programs."
    if "tensorflow" in sys.modules and (sentence := _explain_reported(error)):
        return sentence
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{show_name(where + error.strerror)}. Check the path and its permissions, and that the disk is not full."
        )
    return None


def _explain_reported(error: Exception) -> str | None:
    """Return the sentence for an error in REPORTED, or for a device whose memory is full. Otherwise return None."""
    import tensorflow as tf

    from lowlevel_simclr.api.errors import REPORTED

    if isinstance(error, REPORTED):
        return str(error)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return (
            "There is not enough memory on the device. Use a smaller --batch-size, or --micro-batch. TensorFlow says: "
            f"{str(error).splitlines()[0][:200]}"
        )
    return None


def ask_for_report() -> str:
    """Return the sentence that asks the user to report a mistake of this package, with the address."""
    return (
        "This is a mistake in lowlevel_simclr, not in what you did. Please report it with the lines above at "
        f"{find_report_address()}."
    )


def find_report_address() -> str:
    """Return the address of the issue tracker, from the metadata of the installed package."""
    try:
        urls = importlib.metadata.metadata("lowlevel_simclr").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        urls = []
    found = dict(url.split(", ", 1) for url in urls if ", " in url)
    return found.get("Issues") or "the place where you got this package"
