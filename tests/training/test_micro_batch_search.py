"""--micro-batch auto: which numbers are tried, what is taken, what a run keeps of it; memory is made believe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from lowlevel_simclr import train
from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.data import catalog, dataset
from lowlevel_simclr.model import encoder
from lowlevel_simclr.training import loop, plan, trial, workers
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.replicas import Replica

AUTO = identity.replace(settings.Config(), batch_size=24, micro_batch="auto", image_size=8, projection_widths=(8,))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 8, projects=False))
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)


def at_most(largest: int, tried: list[Plan]) -> Callable[[Plan, dataset.DataSet], bool]:
    """A memory that lasts for micro-batches of `largest` images."""

    def fits(chosen: Plan, images: dataset.DataSet) -> bool:
        tried.append(chosen)
        return chosen.micro_batch <= largest

    return fits


def resolve(config: settings.Config, largest: int = 100, replicas: int = 1, **changed: Any) -> settings.Config:
    """The configuration that comes of one, where the GPU's memory lasts for micro-batches of `largest` images."""
    given = {"fits": at_most(largest, []), "tell": lambda said: None, **changed}
    return plan.resolve(config, team_of(replicas), catalog.load_dataset("shapes"), **given)[0]


def team_of(count: int) -> workers.Team:
    return workers.Team(workers.Workers(), tuple(Replica(rank, count) for rank in range(count)))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is made believe, where the choice is made."""
    monkeypatch.setattr(plan, "has_gpu", lambda: True)


ON_HOST = identity.replace(AUTO, xla="off", data_on="host")


@pytest.mark.parametrize(("largest", "taken"), [(100, "24"), (23, "12"), (7, "6"), (1, "1")])
def test_the_largest_divisor_that_fits_is_taken(gpu: None, largest: int, taken: str) -> None:
    tried: list[Plan] = []
    said: list[str] = []
    found = resolve(ON_HOST, fits=at_most(largest, tried), tell=said.append)
    assert found == resolve(identity.replace(ON_HOST, micro_batch=taken))
    assert found.train.micro_batch == taken
    expected = [size for size in (24, 12, 8, 6, 4, 3, 2, 1) if size >= int(taken)]
    assert [one.micro_batch for one in tried] == expected
    assert said[-1] == f"micro-batches of {taken} images fit into the memory" and len(said) == len(expected)


def test_what_fits_nowhere_is_told(gpu: None) -> None:
    with pytest.raises(settings.ConfigError, match="not even 1 images fit"):
        resolve(ON_HOST, largest=0)


def test_a_given_number_is_left_alone() -> None:
    given = identity.replace(AUTO, micro_batch="3")
    assert resolve(given, fits=lambda *_: pytest.fail("tried")).train.micro_batch == "3"


@pytest.mark.parametrize(
    ("replicas", "changed", "sizes"),
    [(4, {}, [24, 12, 8, 4]), (2, {"batch_norm": "ghost", "ghost_batch": 3}, [24, 12, 6])],
)
def test_sizes_come_out_even_for_replicas_and_ghost_groups(
    gpu: None, replicas: int, changed: dict[str, Any], sizes: list[int]
) -> None:
    tried: list[Plan] = []
    with pytest.raises(settings.ConfigError, match=f"not even {sizes[-1]} images fit"):
        resolve(identity.replace(ON_HOST, **changed), replicas=replicas, fits=at_most(0, tried))
    assert [replicas * one.micro_batch for one in tried] == sizes  # one replica tries its share of each


def test_a_batch_without_equal_shares_is_refused_before_anything_is_tried(gpu: None) -> None:
    with pytest.raises(settings.ConfigError, match="no equal shares for 5 replicas"):
        resolve(ON_HOST, replicas=5, fits=lambda *_: pytest.fail("tried"))


def test_one_replica_tries_its_share(gpu: None) -> None:
    tried: list[Plan] = []
    resolve(identity.replace(ON_HOST, xla="auto"), replicas=2, fits=at_most(6, tried))
    assert [(one.batch_size, one.micro_batch, one.replicas, one.jit_compile) for one in tried] == [
        (12, 12, 1, False),
        (12, 6, 1, False),
    ]


def trial_of(micro_batch: str) -> tuple[Plan, dataset.DataSet]:
    images = catalog.load_dataset("shapes")
    return plan.make_plan(identity.replace(AUTO, micro_batch=micro_batch), images), images


def test_a_step_that_fits_is_taken_and_one_without_memory_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trial_of("12")
    assert trial.fits_memory(*tried)

    def without_memory(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(loop, "make_steps", lambda *_, **__: without_memory)
    assert not trial.fits_memory(*tried)


def test_any_other_error_of_a_step_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise tf.errors.InvalidArgumentError(None, None, "wrong")

    monkeypatch.setattr(loop, "make_steps", lambda *_, **__: wrong)
    with pytest.raises(tf.errors.InvalidArgumentError):
        trial.fits_memory(*trial_of("12"))


def test_a_run_keeps_the_number_that_it_found(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed where less memory is left, it is still the same run."""
    flags = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "8", "--knn-every", "0"]
    flags += ["--warmup-epochs", "0", "--out", str(tmp_path / "run"), "--micro-batch", "auto", "--steps", "2"]
    flags += ["--xla", "off", "--data-on", "host"]
    monkeypatch.setattr(train, "fits_memory", at_most(8, []))
    assert train.main(flags) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["micro_batch"] == "8"
    monkeypatch.setattr(train, "fits_memory", lambda *_: pytest.fail("tried again"))
    assert train.main(flags) == 0


def test_several_workers_are_refused_even_where_one_has_a_number(tmp_path: Path) -> None:
    """Only the chief has the folder: it alone would go on, and wait for the others."""
    (tmp_path / "config.json").write_text(json.dumps(identity.to_dict(identity.replace(AUTO, micro_batch="8"))))
    two = workers.Team(workers.Workers(2, 0, ("a:1", "b:1")), workers.LONE.local)
    for folder in (tmp_path, tmp_path / "none"):
        earlier = plan.read_earlier(AUTO, folder)
        assert (earlier is None) == (folder != tmp_path)
        with pytest.raises(settings.ConfigError, match="there are several workers: give all of them the same number"):
            plan.refuse_early(AUTO, two, earlier)


def test_without_a_gpu_there_is_no_memory_to_fill() -> None:
    with pytest.raises(settings.ConfigError, match="there is no GPU whose memory could be filled"):
        plan.refuse_early(AUTO, workers.LONE)


def test_a_picture_of_views_tries_nothing_and_refuses_what_a_run_would(
    gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "fits_memory", lambda *_: pytest.fail("tried"))
    flags = ["--image-size", "8", "--batch-size", "16", "--xla", "off", "--data-on", "host", "--preview"]
    assert train.main([*flags, "--micro-batch", "auto", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "plots" / "views.png").is_file()
    flags += ["--batch-norm", "ghost", "--ghost-batch", "5", "--out", str(tmp_path / "other")]
    assert train.main(flags) == 1 and "--ghost-batch is 5" in capsys.readouterr().err
