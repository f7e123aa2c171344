"""Tests locking a file, on Linux and on an imitated Windows.

No other process can lock a locked file, but all processes can still read it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowlevel_simclr.runtime import file_lock
from lowlevel_simclr.runtime.file_lock import lock_open_file
from tests.support.fake_platform import make_msvcrt


@pytest.fixture(params=["linux", "win32"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(sys.modules, "msvcrt", make_msvcrt())
    with monkeypatch.context() as moved:
        moved.setattr(sys, "platform", request.param)
        yield request.param


def test_a_locked_file_is_refused_until_it_is_closed(system: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "a+b") as first, open(path, "a+b") as second:
        lock_open_file(first, wait=False)
        with pytest.raises(BlockingIOError):
            lock_open_file(second, wait=False)
        first.truncate(0)
        first.write(b"process 7\n")
        first.flush()
        assert path.read_bytes() == b"process 7\n"
        first.close()
        lock_open_file(second, wait=False)
        second.seek(0)
        assert second.read() == b"process 7\n"


def test_who_waits_gets_the_lock_when_it_is_free(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lock, "POLL", 0.01)
    path = tmp_path / "lock"
    with open(path, "a+b") as first, open(path, "a+b") as second:
        lock_open_file(first, wait=False)
        threading.Timer(0.2, first.close).start()
        lock_open_file(second, wait=True)
        assert first.closed
