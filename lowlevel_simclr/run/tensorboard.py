"""TensorBoard scalars, written by TensorFlow itself. The package tensorboard is only needed to show them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lowlevel_simclr.run.results import Row

START = 1  # SessionLog.START makes TensorBoard drop an earlier session's values from this step on


class EventFile:
    """A file of TensorBoard scalars for one session, in TensorFlow's record format."""

    def __init__(self, folder: Path, first_step: int) -> None:
        import tensorflow as tf  # imported here, so that reading a run folder needs no TensorFlow

        folder.mkdir(exist_ok=True)
        self._tf = tf
        micro = time.time_ns() // 1000
        # TensorBoard reads the files of a folder in the order of their names, so the time comes first in fixed width.
        name = f"events.out.tfevents.{micro // 10**6:010d}.{micro % 10**6:06d}.{os.getpid()}"
        with self._explain_os_errors():
            self._file = tf.io.TFRecordWriter(str(folder / name))
            self._put(file_version="brain.Event:2")
            # A resumed run repeats some steps. Without this event, a chart would show those steps twice.
            self._put(step=first_step, session_log=tf.compat.v1.SessionLog(status=START))

    @contextlib.contextmanager
    def _explain_os_errors(self) -> Iterator[None]:
        """Turn TensorFlow's own errors, for example about a full disk, into an OSError."""
        try:
            yield
        except self._tf.errors.OpError as error:
            raise OSError(error.message) from error

    def _put(self, **event: Any) -> None:
        record = self._tf.compat.v1.Event(wall_time=time.time(), **event)
        self._file.write(record.SerializeToString())

    def write(self, rows: Iterable[Row]) -> None:
        """Write one event per row. Every value except the step and null is written under its own name."""
        summary = self._tf.compat.v1.Summary
        with self._explain_os_errors():
            for row in rows:
                numbers = {name: value for name, value in row.items() if name != "step" and value is not None}
                values = [summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
                self._put(step=row["step"], summary=summary(value=values))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
