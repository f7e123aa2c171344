"""TensorBoard scalars as TensorFlow's own records. The tensorboard package only shows them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lowlevel_simclr.run.results import Row

START = 1  # SessionLog.START: TensorBoard drops what an earlier session logged at this step and later


class EventFile:
    """TensorBoard scalars of one session, as TensorFlow's record files hold them."""

    def __init__(self, folder: Path, first_step: int) -> None:
        import tensorflow as tf  # here, so that looking into a folder needs no TensorFlow

        folder.mkdir(exist_ok=True)
        self._tf = tf
        micro = time.time_ns() // 1000
        # TensorBoard reads the files of a folder in the order of their names: the time leads, in fixed width.
        name = f"events.out.tfevents.{micro // 10**6:010d}.{micro % 10**6:06d}.{os.getpid()}"
        with self._os_errors():
            self._file = tf.io.TFRecordWriter(str(folder / name))
            self._put(file_version="brain.Event:2")
            # Without it a chart would show the rows that a resume cut twice.
            self._put(step=first_step, session_log=tf.compat.v1.SessionLog(status=START))

    @contextlib.contextmanager
    def _os_errors(self) -> Iterator[None]:
        """TensorFlow has errors of its own for a full disk and the like."""
        try:
            yield
        except self._tf.errors.OpError as error:
            raise OSError(error.message) from error

    def _put(self, **event: Any) -> None:
        record = self._tf.compat.v1.Event(wall_time=time.time(), **event)
        self._file.write(record.SerializeToString())

    def write(self, rows: Iterable[Row]) -> None:
        """One event a row: every finite number but the step under its own name."""
        summary = self._tf.compat.v1.Summary
        with self._os_errors():
            for row in rows:
                numbers = {name: value for name, value in row.items() if name != "step" and value is not None}
                values = [summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
                self._put(step=row["step"], summary=summary(value=values))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
