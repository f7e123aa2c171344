"""Tests checkpoints, the files in which training saves its state: writing, reading, and deleting old ones.

Also tests which checkpoints can still be used after damage to a file, a full disk or SIGKILL.
"""

from __future__ import annotations

import errno
import io
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.run.checkpoint import CheckpointError, load, load_latest, save
from lowlevel_simclr.runtime import files
from tests.support.permissions import obey_permissions


def state(step: int, size: int = 40) -> dict[str, np.ndarray]:
    """Return a made-up state of training after `step` steps: weights (size,), a counter () and a text ()."""
    weights = np.random.default_rng(step).normal(size=size).astype(np.float32)
    return {"encoder/kernel": weights, "count": np.array(step, np.int64), "scheme": np.array("cosine")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(found: dict[str, np.ndarray], saved: dict[str, np.ndarray]) -> bool:
    """Return whether two states have equal names, in equal order, and equal dtypes, shapes and bits."""
    return list(found) == list(saved) and all(
        found[name].dtype == saved[name].dtype
        and found[name].shape == saved[name].shape
        and found[name].tobytes() == saved[name].tobytes()
        for name in saved
    )


# Restoring


def test_arrays_and_meta_come_back_to_the_bit_and_in_order(tmp_path):
    arrays = {
        "z": np.array([[np.nan, -0.0, np.inf]], np.float32),
        "a/b:0": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "file": np.zeros((0, 3), np.float16),
        "flags": np.array([True, False]),
        "words": np.array([2**32 - 1], np.uint32),
        "scalar": np.array(-7, np.int64),
        "every other": np.arange(10, dtype=np.int32)[::2],
    }
    meta = {"seed": 2**63, "config": "0f", "loss_scale": 32768.0, "nested": {"é": [1, None]}}
    path = save(tmp_path / "checkpoints", 123, arrays, meta, keep=1)
    found = load(path)
    assert path.name == "step-00000123.npz" and found.step == 123 and found.meta == meta
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)
    assert np.signbit(found.arrays["z"][0, 1]) and found.arrays["z"].flags.writeable


def test_numpy_opens_the_file_without_pickles(tmp_path):
    path = save(tmp_path, 3, state(3), {}, keep=1)
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["encoder/kernel"], state(3)["encoder/kernel"])


def test_the_same_content_gives_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    first = save(tmp_path / "a", 3, state(3), {"seed": 1}, keep=1)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    second = save(tmp_path / "b", 3, state(3), {"seed": 1}, keep=1)
    assert first.read_bytes() == second.read_bytes()


def test_no_folder_and_an_empty_folder_hold_none(tmp_path):
    assert load_latest(tmp_path / "none") is None and load_latest(tmp_path) is None


@pytest.mark.parametrize(
    ("step", "arrays", "keep", "sentence"),
    [
        (-1, {}, 1, "step is -1"),
        (1, {}, 0, "keep is 0"),
        (1, {"x": np.array([{}], object)}, 1, "Array 'x' has dtype object"),
        (1, {"x": np.zeros(2, "V2")}, 1, "Array 'x' has dtype"),
        (1, {"__meta__": np.zeros(2)}, 1, "The name '__meta__' is reserved"),
    ],
)
def test_what_would_not_come_back_is_refused_before_anything_is_written(tmp_path, step, arrays, keep, sentence):
    with pytest.raises(ValueError, match=sentence):
        save(tmp_path / "checkpoints", step, arrays, {}, keep)
    assert not (tmp_path / "checkpoints").exists()


# Which checkpoints are kept


def test_the_newest_few_are_kept_and_what_a_kill_left_is_cleared_away(tmp_path):
    for step in (5, 10, 100):
        save(tmp_path, step, state(step), {}, keep=2)
    (tmp_path / "step-00000105.npz.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert load_latest(tmp_path).step == 100
    save(tmp_path, 110, state(110), {}, keep=2)
    assert names(tmp_path) == ["notes.txt", "step-00000100.npz", "step-00000110.npz"]


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (99999999, 100000000):
        save(tmp_path, step, state(step), {}, keep=2)
    assert load_latest(tmp_path).step == 100000000


def test_a_save_behind_a_damaged_checkpoint_keeps_itself_and_renames_the_damaged_one(tmp_path, capsys):
    save(tmp_path, 1, state(1), {}, keep=2)
    for number in ("", "-2"):  # the second damaged file must not replace the first one
        damaged = save(tmp_path, 9, state(9), {}, keep=2)
        content = damaged.read_bytes()[:-30]
        damaged.write_bytes(content)
        assert load_latest(tmp_path).step < 9 and "step-00000009.npz" in capsys.readouterr().err
        save(tmp_path, 5, state(5), {}, keep=1)
        assert (tmp_path / f"step-00000009.npz.unused{number}").read_bytes() == content
    assert "step-00000005.npz" in names(tmp_path) and load_latest(tmp_path).step == 5


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 4, state(4), {}, keep=2)
    save(tmp_path, 4, state(5), {}, keep=2)
    assert same(load_latest(tmp_path).arrays, state(5)) and names(tmp_path) == ["step-00000004.npz"]


# Damage


@pytest.fixture
def two(tmp_path) -> Path:
    """Save the checkpoints of steps 1 and 2. Return the path of the newer one."""
    save(tmp_path, 1, state(1), {"seed": 1}, keep=2)
    return save(tmp_path, 2, state(2), {"seed": 2}, keep=2)


def test_a_newest_file_cut_anywhere_is_named_and_the_one_before_it_used(two, capsys):
    whole = two.read_bytes()
    for length in [*range(0, len(whole), 13), *range(len(whole) - 30, len(whole))]:
        two.write_bytes(whole[:length])
        found = load_latest(two.parent)
        assert found.step == 1 and same(found.arrays, state(1)), length
        printed = capsys.readouterr()
        assert str(two) in printed.err and printed.err.count("\n") == 1 and printed.out == "", length


def test_a_flipped_bit_is_noticed_or_changes_nothing(two, capsys):
    whole = two.read_bytes()
    start = whole.index(state(2)["encoder/kernel"].tobytes())
    weights = range(start, start + state(2)["encoder/kernel"].nbytes)
    drawn = random.Random(0)
    for place in drawn.sample(range(len(whole)), 500):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << drawn.randrange(8)
        two.write_bytes(flipped)
        found = load_latest(two.parent)
        noticed = str(two) in capsys.readouterr().err
        assert found.step == (1 if noticed else 2), place
        assert same(found.arrays, state(found.step)) and found.meta == {"seed": found.step}, place
        assert noticed or place not in weights, place


def test_an_array_that_reads_short_is_noticed_though_its_checksum_is_right(tmp_path):
    """Test an array with a wrong header. It states too few numbers, so NumPy would read only a part of the array."""
    path = save(tmp_path, 1, state(1), {}, keep=1)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["encoder/kernel.npy"] = members["encoder/kernel.npy"].replace(b"(40,)", b"(30,)")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=r"kernel.npy has \d+ bytes, but float32 \(30,\) needs 120"):
        load(path)


def test_a_missing_and_a_foreign_array_are_noticed(tmp_path, capsys):
    path = save(tmp_path, 1, state(1), {}, keep=1)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for changed in (
        {**members, "more.npy": members["count.npy"]},
        {k: members[k] for k in list(members)[:-1]},
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in changed.items():
                archive.writestr(name, data)
        with pytest.raises(CheckpointError, match="None of the 1 checkpoints in .* can be used. Nothing was changed"):
            load_latest(tmp_path)
        assert path.name in capsys.readouterr().err


def test_all_damaged_is_refused_and_each_is_named(two, capsys):
    for path in two.parent.iterdir():
        path.write_bytes(b"not an archive")
    with pytest.raises(CheckpointError, match="None of the 2 checkpoints in .* can be used.*use --fresh"):
        load_latest(two.parent)
    assert capsys.readouterr().err.count("cannot be used (BadZipFile") == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "complex64"])
def test_numbers_that_are_not_finite_lead_to_the_one_before_it(tmp_path, capsys, value, kind):
    save(tmp_path, 1, state(1), {}, keep=2)
    array = np.ones(5, kind)
    array[3] = value
    save(tmp_path, 2, {**state(2), "weights/of/conv": array}, {}, keep=2)
    assert load_latest(tmp_path).step == 1
    assert "its array 'weights/of/conv' contains NaN or infinite values" in capsys.readouterr().err


def test_finite_numbers_whose_sum_overflows_are_finite(tmp_path):
    save(tmp_path, 1, {"large": np.full(9, 3e38, np.float32)}, {}, keep=1)
    assert load_latest(tmp_path).step == 1


# Files that cannot be read, although they are not damaged


def unreadable(error):
    def read_bytes(path, *limit):
        raise error

    return read_bytes


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (MemoryError(), "MemoryError"),
        (InterruptedError(4, "Interrupted system call"), "Interrupted system call"),
        (OSError(116, "Stale file handle"), "Stale file handle"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_and_everything_stays(two, monkeypatch, error, reason):
    before = {path.name: path.read_bytes() for path in two.parent.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read_regular_file", unreadable(error))
        with pytest.raises(CheckpointError, match=f"Cannot read the checkpoints in .*: {reason}. Nothing was changed"):
            load_latest(two.parent)
    assert {path.name: path.read_bytes() for path in two.parent.iterdir()} == before


def test_an_older_file_that_cannot_be_read_is_an_error_too(two, monkeypatch):
    two.write_bytes(b"damaged")
    read = checkpoint.read_regular_file

    def read_newest_only(path, *limit):
        if path.name != two.name:
            raise OSError(5, "Input/output error")
        return read(path, *limit)

    monkeypatch.setattr(checkpoint, "read_regular_file", read_newest_only)
    with pytest.raises(CheckpointError, match="Input/output error"):
        load_latest(two.parent)


def test_a_folder_that_cannot_be_listed_is_an_error(two, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CheckpointError, match="Permission denied. Nothing was changed"):
        load_latest(two.parent)


def test_whether_a_folder_has_a_checkpoint_is_an_error_where_it_cannot_be_listed(two, tmp_path):
    folder = two.parent
    assert checkpoint.has_any(folder) and not checkpoint.has_any(tmp_path / "nowhere")
    folder.chmod(0)
    try:
        with obey_permissions(), pytest.raises(CheckpointError, match="Permission denied. Nothing was changed"):
            checkpoint.has_any(folder)
    finally:
        folder.chmod(0o755)


def test_a_checkpoint_that_is_a_folder_or_a_dead_link_is_an_error(tmp_path):
    save(tmp_path, 1, state(1), {}, keep=1)
    (tmp_path / "step-00000002.npz").mkdir()
    with pytest.raises(CheckpointError, match="Is a directory"):
        load_latest(tmp_path)
    (tmp_path / "step-00000002.npz").rmdir()
    (tmp_path / "step-00000002.npz").symlink_to(tmp_path / "none")
    with pytest.raises(CheckpointError, match="No such file"):
        load_latest(tmp_path)


def test_a_renamed_checkpoint_is_not_taken_for_another_step(two, capsys):
    two.rename(two.with_name("step-00000777.npz"))
    assert load_latest(two.parent).step == 1
    assert "step-00000777.npz cannot be used (it contains step 2)" in capsys.readouterr().err


class _Trap:
    """An object that creates a folder when it is loaded from a pickle. The folder shows that the pickle was loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_a_checkpoint_is_never_loaded(two, tmp_path, capsys):
    trap = io.BytesIO()
    np.save(trap, np.array([_Trap(tmp_path / "sprung")], object), allow_pickle=True)
    with zipfile.ZipFile(two) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(two, "w") as archive:
        for name, data in {**members, "count.npy": trap.getvalue()}.items():
            archive.writestr(name, data)
    assert load_latest(two.parent).step == 1 and "Object arrays cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


# A full disk


class _FullDisk(io.FileIO):
    """A file on a disk that has room for only 500 bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 500:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def full_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "open", lambda path, mode: _FullDisk(path, mode), raising=False)


def full_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("full", [full_write, full_sync])
def test_a_full_disk_is_told_and_the_checkpoints_before_it_stay(two, monkeypatch, full):
    before = {path.name: path.read_bytes() for path in two.parent.iterdir()}
    with monkeypatch.context() as patch:
        full(patch)
        with pytest.raises(CheckpointError, match=r"step 3 in .*: No space left on device. .* Free some disk space"):
            save(two.parent, 3, state(3), {}, keep=1)
    assert {path.name: path.read_bytes() for path in two.parent.iterdir()} == before
    save(two.parent, 3, state(3), {}, keep=1)
    assert load_latest(two.parent).step == 3


def test_a_place_that_is_no_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot save the checkpoint of step 1 in .*: Not a directory"):
        save(tmp_path / "file" / "checkpoints", 1, state(1), {}, keep=1)


# SIGKILL

SAVES_FOR_EVER = """
import sys
from pathlib import Path
import numpy as np
from lowlevel_simclr.run.checkpoint import load_latest, save
folder = Path(sys.argv[1])
found = load_latest(folder)
step = found.step if found else 0
print("ready", flush=True)
while True:
    step += 1
    weights = np.random.default_rng(step).normal(size=30000).astype(np.float32)
    save(folder, step, {"weights": weights}, {"step": step}, keep=2)
    print(step, flush=True)
"""


def test_killed_at_any_moment_the_newest_whole_checkpoint_is_there(tmp_path):
    """Kill a process that saves one checkpoint after another. Only the checkpoint that it is writing may be lost."""
    drawn, reached, kills, kept = random.Random(0), 0, 0, 2
    while kills < 5 or (reached == 0 and kills < 50):  # more kills if all came before the first save
        kills += 1
        command = [sys.executable, "-c", SAVES_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(checkpoint.__file__).parents[1]) as child:
            first = child.stdout.readline()
            time.sleep(drawn.uniform(0, 0.15))
            child.kill()
            told = [int(line) for line in child.stdout.read().split(b"\n")[:-1]]
        assert first == b"ready\n"
        reached = max([reached, *told])
        found = load_latest(tmp_path)
        assert (found.step if found else 0) in (reached, reached + 1)
        if found:
            reached = found.step
            wanted = np.random.default_rng(reached).normal(size=30000).astype(np.float32)
            np.testing.assert_array_equal(found.arrays["weights"], wanted)
            assert found.meta == {"step": reached}
        whole = [path for path in tmp_path.iterdir() if path.suffix == ".npz"]
        assert len(whole) <= kept + 1 and all(
            load(path) for path in whole
        )  # one more than `kept` remains if the kill comes after a save, but before the oldest is deleted
        kept = max(2, len(whole))
    assert reached > 0


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_looked_for_again(two, monkeypatch, capsys):
    """Test reading the newest checkpoint while training saves new checkpoints and deletes (prunes) old ones.

    The checkpoint is deleted just before it is read, but there is a newer one by then.
    """
    read = checkpoint.load

    def pruned_before(path):
        monkeypatch.setattr(checkpoint, "load", read)
        save(two.parent, 3, state(3), {}, keep=1)
        return read(path)

    monkeypatch.setattr(checkpoint, "load", pruned_before)
    found = load_latest(two.parent)
    assert found.step == 3 and same(found.arrays, state(3)) and capsys.readouterr().err == ""


def test_a_checkpoint_that_is_a_broken_link_is_told(two):
    two.unlink()
    two.symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="Cannot read the checkpoints in .*: No such file or directory. Nothing"):
        load_latest(two.parent)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """Test a checkpoint with a compressed array. It must be refused, because checkpoints are never compressed.

    A small compressed file could fill the memory when it is unpacked.
    """
    path = save(tmp_path, 1, state(1), {}, keep=1)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(2**24))
    with pytest.raises(ValueError, match=r"its arrays take \d+ bytes, more than the file .\d+ bytes"):
        load(path)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "step-00000001.npz")
    with pytest.raises(CheckpointError, match="Cannot read the checkpoints in .*: it is a FIFO, not a regular file"):
        load_latest(tmp_path)
