"""A file is written whole or not at all, even if the process is killed or the disk is full."""

from __future__ import annotations

import os

import pytest

from lowlevel_simclr.run.atomic import RunError, read_json, write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def half(file) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_bytes() == b"old" and [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    told = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (told.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (told.append("rename"), rename(old, new)))
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    assert told == [str(tmp_path / "file.tmp"), "rename", str(tmp_path)]


def test_a_json_file_that_cannot_be_used_is_told_in_a_sentence(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(RunError, match="config.json is not valid JSON"):
        read_json(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match="config.json cannot be read: it is a FIFO, not a regular file. Repair it"):
        read_json(path)
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        RunError, match="config.json cannot be read: it has 1099511627776 bytes, more than LARGEST_JSON"
    ):
        read_json(path)
