"""Tests the files that training writes for TensorBoard: each number appears once, even if training was resumed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lowlevel_simclr.run import tensorboard
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import open_run
from tests.support.open_runs import CONFIG, compare_temperature, make_row


def read_events(run_folder: Path) -> list:
    """Return all TensorBoard events of a run. Its event files are read in the order of their names."""
    import tensorflow as tf

    files = sorted(os.fsencode(path) for path in (run_folder / "tensorboard").iterdir())
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]


def test_every_number_of_a_row_becomes_a_scalar_of_its_step(run):
    run.append([make_row(4, knn=None), make_row(5, knn=0.75)])
    version, start, _, _, fourth, fifth = read_events(run.folder)
    assert version.file_version == "brain.Event:2" and (start.step, start.session_log.status) == (
        4,
        tensorboard.START,
    )
    assert (fourth.step, fifth.step) == (4, 5)
    assert {value.tag: value.simple_value for value in fourth.summary.value} == {"loss": 5.5, "top1": 0.25}
    assert {value.tag: value.simple_value for value in fifth.summary.value} == {
        "loss": 5.375,
        "top1": 0.25,
        "knn": 0.75,
    }


@pytest.mark.skipif(os.name != "posix", reason="only there can a name hold any bytes")
def test_a_run_folder_of_any_bytes_has_its_events(tmp_path):
    config = {**CONFIG, "data": {"data_dir": os.fsdecode(b"data-\xff")}}
    with open_run(tmp_path / os.fsdecode(b"run-\xff"), config, compare_temperature()) as run:
        run.append([make_row(1, knn=None)])
        assert [event.step for event in read_events(run.folder)][-1] == 1


def test_the_settings_and_a_picture_are_shown(run, tmp_path):
    """Read the files with TensorBoard's own code, including the code of its page of hyperparameters (HParams)."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    metadata = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    path = tmp_path / "views.png"
    Image.new("RGB", (30, 20), "red").save(path)
    run.append([make_row(1)])
    run.log_picture(path, 1)
    run.log_picture(tmp_path / "missing.png", 1)
    shown = accumulator.EventAccumulator(str(run.tensorboard)).Reload()
    image = shown.Images("views")[0]
    assert (image.step, image.width, image.height, image.encoded_image_string) == (1, 30, 20, path.read_bytes())
    assert shown.Tags()["images"] == ["views"]
    text = shown.Tensors("settings")[0].tensor_proto.string_val[0].decode()
    assert "| temperature | `0.2` |" in text and "| data_dir | `null` |" in text
    content = shown.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    assert found["temperature"].number_value == 0.2 and found["data_dir"].string_value == "null"


def test_a_picture_after_the_last_step_removes_no_number(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "map.png")
    with open_run(tmp_path / "run", CONFIG, compare_temperature()) as run:
        run.append([make_row(step) for step in (1, 2, 3)])
    with open_run(tmp_path / "run", CONFIG, compare_temperature()) as run:
        run.log_picture(tmp_path / "map.png", 3)
    shown = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [point.step for point in shown.Scalars("loss")] == [1, 2, 3] and shown.Images("map")[0].step == 3


def test_whole_numbers_that_do_not_fit_become_text():
    assert tensorboard._make_plain(2**64 - 1) == str(2**64 - 1)
    plain = [tensorboard._make_plain(value) for value in (True, 3, 0.5, "a", [1, 2], None)]
    assert plain == [True, 3, 0.5, "a", "[1, 2]", "null"]


def test_nothing_is_written_where_nothing_is_logged(run):
    run.append([])
    assert not run.tensorboard.exists()


def test_tensorboard_shows_a_resumed_run_once(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        run.append([make_row(step) for step in range(1, 7)])
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        run.cut_metrics(4)
        run.append([make_row(5), make_row(6), make_row(7)])
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in shown] == [(step, make_row(step)["loss"]) for step in range(1, 8)]


def test_an_error_of_tensorflow_while_logging_is_told_like_one_of_the_system(run, monkeypatch):
    import tensorflow as tf

    class Full:
        def __init__(self, path: str) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", Full)
    with pytest.raises(RunError, match="Cannot write the metrics of .*: No space left on device"):
        run.append([make_row(1)])
