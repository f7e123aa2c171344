"""Tests reading and writing of files.

Only regular files up to a size limit may be read. A file must be written completely or not at all.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import BinaryIO

import pytest

from lowlevel_simclr.runtime.files import find_user_cache, read_regular_file, write_atomically


def read(path: Path, limit: int = 100) -> bytes:
    return read_regular_file(path, limit, "LIMIT")


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    (tmp_path / "link").symlink_to("file")
    assert read(tmp_path / "file") == read(tmp_path / "link") == bytes(100)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(tmp_path: Path, device: str) -> None:
    (tmp_path / "file").symlink_to(device)
    with pytest.raises(OSError, match="it is a device, not a regular file|No such device or address"):
        read(tmp_path / "file")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(OSError, match="it is a FIFO, not a regular file"):
        read(tmp_path / "file")


def test_a_socket_and_a_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # allows a relative path for the socket, whose path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("file")
        with pytest.raises(OSError, match="No such device or address|it is a socket"):
            read(Path("file"))
    with pytest.raises(OSError, match="it is a folder, not a regular file|Is a directory"):
        read(tmp_path)


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        file.truncate(200 * 2**30)
    with pytest.raises(OSError, match=r"it has 214748364800 bytes, more than LIMIT \(100 bytes\)"):
        read(tmp_path / "file")


def test_a_file_that_holds_more_than_it_says_is_refused() -> None:
    """Test a file in /proc. The file system states that its size is 0, but it has content."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("this system has no /proc")
    with pytest.raises(OSError, match="it has more bytes than LIMIT"):
        read(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_bytes() == b"old" and [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (told.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (told.append("rename"), rename(old, new)))
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    assert told == [str(tmp_path / "file.tmp"), "rename", str(tmp_path)]


def test_the_cache_folder_is_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_user_cache() == tmp_path / "cache" / "lowlevel_simclr"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_user_cache() == tmp_path / ".cache" / "lowlevel_simclr"

    def find_no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", find_no_home)
    assert find_user_cache() is None
