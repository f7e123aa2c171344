"""--micro-batch auto: which numbers are tried, what is taken, what a run keeps of it; memory is made believe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from lowlevel_simclr import assembly, config, data, distribute, encoder, micro_batch, train

AUTO = config.replace(config.Config(), batch_size=24, micro_batch="auto", image_size=8, projection_widths=(8,))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 8, projects=False))
    monkeypatch.setattr("lowlevel_simclr.data.SHAPES_TRAIN", 60)
    monkeypatch.setattr("lowlevel_simclr.data.SHAPES_TEST", 40)


def at_most(largest: int, tried: list[config.Config]) -> Callable[[config.Config, data.DataSet], bool]:
    """A memory that lasts for micro-batches of `largest` images."""

    def fits(chosen: config.Config, images: data.DataSet) -> bool:
        tried.append(chosen)
        return int(chosen.train.micro_batch) <= largest

    return fits


@pytest.mark.parametrize(("largest", "taken"), [(100, "24"), (23, "12"), (7, "6"), (1, "1")])
def test_the_largest_divisor_that_fits_is_taken(largest: int, taken: str) -> None:
    tried: list[config.Config] = []
    said: list[str] = []
    found = micro_batch.found(AUTO, data.load("shapes"), distribute.LONE, at_most(largest, tried), said.append)
    assert found == config.replace(AUTO, micro_batch=taken)
    expected = [size for size in (24, 12, 8, 6, 4, 3, 2, 1) if size >= int(taken)]
    assert [int(one.train.micro_batch) for one in tried] == expected
    assert said[-1] == f"micro-batches of {taken} images fit into the memory" and len(said) == len(expected)


def test_what_fits_nowhere_is_told() -> None:
    with pytest.raises(config.ConfigError, match="not even 1 images fit"):
        micro_batch.found(AUTO, data.load("shapes"), distribute.LONE, at_most(0, []), lambda _: None)


def test_a_given_number_is_left_alone() -> None:
    given = config.replace(AUTO, micro_batch="3")
    assert micro_batch.found(given, data.load("shapes"), distribute.LONE, at_most(0, [])) is given


def test_sizes_come_out_even_for_replicas_and_ghost_groups() -> None:
    assert list(micro_batch.sizes(AUTO, 4)) == [24, 12, 8, 4]
    assert list(micro_batch.sizes(config.replace(AUTO, batch_norm="ghost", ghost_batch=3), 2)) == [24, 12, 6]
    with pytest.raises(config.ConfigError, match="no equal shares for 5 replicas"):
        list(micro_batch.sizes(AUTO, 5))


def test_one_replica_tries_its_share() -> None:
    share = micro_batch.share_of_one(config.replace(AUTO, micro_batch="12", devices="2"), 2)
    assert share == config.replace(AUTO, batch_size=12, micro_batch="6", devices="1", xla="off")


def test_a_step_that_fits_is_taken_and_one_without_memory_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    images, chosen = data.load("shapes"), config.replace(AUTO, micro_batch="12")
    assert micro_batch.step_fits(chosen, images)

    def without_memory(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(assembly, "steps_function", lambda *_, **__: without_memory)
    assert not micro_batch.step_fits(chosen, images)


def test_any_other_error_of_a_step_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise tf.errors.InvalidArgumentError(None, None, "wrong")

    monkeypatch.setattr(assembly, "steps_function", lambda *_, **__: wrong)
    with pytest.raises(tf.errors.InvalidArgumentError):
        micro_batch.step_fits(config.replace(AUTO, micro_batch="12"), data.load("shapes"))


def test_a_run_keeps_the_number_that_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed where less memory is left, it is still the same run."""
    flags = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "8", "--knn-every", "0"]
    flags += ["--warmup-epochs", "0", "--out", str(tmp_path / "run"), "--micro-batch", "auto", "--steps", "2"]
    flags += ["--xla", "off", "--data-on", "host"]
    monkeypatch.setattr(assembly, "on_gpu", lambda: True)
    monkeypatch.setattr(micro_batch, "step_fits", at_most(8, []))
    assert train.main(flags) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["micro_batch"] == "8"
    monkeypatch.setattr(micro_batch, "step_fits", lambda *_: pytest.fail("tried again"))
    assert train.main(flags) == 0


def test_several_workers_are_refused_even_where_one_has_a_number(tmp_path: Path) -> None:
    """Only the chief has the folder: it alone would go on, and wait for the others."""
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(config.replace(AUTO, micro_batch="8"))))
    two = distribute.Team(distribute.Workers(2, 0, ("a:1", "b:1")), distribute.LONE.local)
    for folder in (tmp_path, None):
        with pytest.raises(config.ConfigError, match="there are several workers: give all of them the same number"):
            micro_batch.settled(AUTO, two, folder)


def test_a_picture_of_views_tries_nothing_and_refuses_what_a_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assembly, "on_gpu", lambda: True)
    monkeypatch.setattr(micro_batch, "step_fits", lambda *_: pytest.fail("tried"))
    flags = ["--image-size", "8", "--batch-size", "16", "--xla", "off", "--data-on", "host", "--preview"]
    assert train.main([*flags, "--micro-batch", "auto", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "plots" / "views.png").is_file()
    flags += ["--batch-norm", "ghost", "--ghost-batch", "5", "--out", str(tmp_path / "other")]
    assert train.main(flags) == 1 and "--ghost-batch is 5" in capsys.readouterr().err
