"""Writes scalars, pictures and settings for TensorBoard, with TensorFlow alone.

The package tensorboard is only needed to show them, and to write the table of settings on TensorBoard's HParams page.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.run.results import Row

START = 1  # SessionLog.START: from the step of this event on, TensorBoard drops the values of earlier sessions


class EventFile:
    """A TensorBoard file of one training session, in TensorFlow's record format."""

    def __init__(self, folder: Path, first_step: int) -> None:
        import tensorflow as tf  # imported here, so that reading a run folder needs no TensorFlow

        folder.mkdir(exist_ok=True)
        self._tf = tf
        micro = time.time_ns() // 1000
        # TensorBoard reads the files of a folder in the order of their names, so the time comes first in fixed width.
        name = f"events.out.tfevents.{micro // 10**6:010d}.{micro % 10**6:06d}.{os.getpid()}"
        with self._explain_os_errors():
            self._file = tf.io.TFRecordWriter(os.fsencode(folder / name))
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
        """Write one event per row.

        Every value of the row is written under its own name, except the step and null values.
        """
        summary = self._tf.compat.v1.Summary
        with self._explain_os_errors():
            for row in rows:
                numbers = {name: value for name, value in row.items() if name != "step" and value is not None}
                values = [summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
                self._put(step=row["step"], summary=summary(value=values))
            self._file.flush()

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """Write a PNG picture under a name."""
        summary = self._tf.compat.v1.Summary
        with self._explain_os_errors():
            self._put(step=step, summary=summary(value=[_make_picture(summary, name, png)]))
            self._file.flush()

    def write_settings(self, step: int, sections: Mapping[str, Any]) -> None:
        """Write the settings of a run as a text, and as the row of the HParams page.

        Args:
            step: the step at which the text is shown.
            sections: the content of config.json.
        """
        summary = self._tf.compat.v1.Summary
        with self._explain_os_errors():
            self._put(step=step, summary=summary(value=[self._make_text("settings", _list_settings(sections))]))
            found = _make_parameters(sections)
            if found is not None:
                self._put(step=step, summary=summary.FromString(found))
            self._file.flush()

    def _make_text(self, name: str, text: str) -> Any:
        compat = self._tf.compat.v1
        plugin = compat.SummaryMetadata(plugin_data=compat.SummaryMetadata.PluginData(plugin_name="text"))
        return compat.Summary.Value(tag=name, metadata=plugin, tensor=self._tf.make_tensor_proto([text.encode()]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _make_picture(summary: Any, name: str, png: bytes) -> Any:
    """Return a picture as a summary value. Its width and height are read from the header of the PNG file."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    image = summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    return summary.Value(tag=name, image=image)


def _flatten(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all sections in one dict."""
    parts = [section for section in sections.values() if isinstance(section, Mapping)]
    return {name: value for section in parts for name, value in section.items()}


def _list_settings(sections: Mapping[str, Any]) -> str:
    """Return the settings as a table in Markdown, which TensorBoard shows."""
    rows = [f"| {name} | `{json.dumps(value)}` |" for name, value in _flatten(sections).items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _make_parameters(sections: Mapping[str, Any]) -> bytes | None:
    """Return the summary of the HParams page, or None without the package tensorboard.

    Without this page nothing is lost, because `_list_settings` writes the same settings as a text.
    """
    try:
        from tensorboard.plugins.hparams import api
    except ImportError:
        return None
    return api.hparams_pb({name: _make_plain(value) for name, value in _flatten(sections).items()}).SerializeToString()


def _make_plain(value: Any) -> bool | float | str:
    """Return a setting in a form that the HParams page takes.

    The page stores numbers as float64. So a whole number that float64 cannot hold becomes a text.
    """
    if isinstance(value, str):
        return show_name(value)
    if not isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return str(value) if abs(value) > 2**53 else value
