"""Tests the download of files, from a server that the tests start.

A file must be complete and have the right hash. After an interruption, a download must continue where it stopped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import download
from lowlevel_simclr.data.dataset import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REMEDY = "Put the file into the folder."


class Server(http.server.ThreadingHTTPServer):
    """A server that sends CONTENT.

    If `cuts` is [a, b, ...], the first answer ends after a bytes, the second one after b bytes, and so on.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges = True
        self.status = 200
        self.content = CONTENT
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        first = int(wanted[len("bytes=") : -1]) if wanted and server.ranges else 0
        if server.status != 200 or first >= len(server.content):
            self.send_error(server.status if server.status != 200 else 416)
            return
        body = server.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, path: Path, sha256: str = SHA256) -> None:
    download.fetch(server.url, path, sha256, REMEDY)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "file.tar.gz"
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT and server.asked == [None] and names(path.parent) == [path.name]


def test_a_file_that_was_there_is_checked_and_left(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(DataError, match=f"file is damaged, or is another file: its SHA-256 is .* instead of {SHA256}"):
        fetch(server, path)
    assert server.asked == [] and names(tmp_path) == ["file"]
    path.write_bytes(CONTENT)
    fetch(server, path)
    assert server.asked == []


def test_a_fifo_in_its_place_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(DataError, match="Cannot read .*/file .it is a FIFO, not a regular file.. Remove it"):
        fetch(server, tmp_path / "file")


def send_for_ever(handler: Handler, piece: bytes, pause: float) -> None:
    """Send data without end, in an answer that announces no length."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):  # ends when the client closes the connection
        while True:
            handler.wfile.write(piece)
            time.sleep(pause)


def test_an_endless_body_is_left_after_so_many_bytes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST_DOWNLOAD", 10**6)
    monkeypatch.setattr(Handler, "do_GET", lambda handler: send_for_ever(handler, bytes(10**5), 0))
    with pytest.raises(DataError, match=f"Stopped downloading {server.url} after 1000000 bytes .LARGEST_DOWNLOAD"):
        fetch(server, tmp_path / "file")
    assert names(tmp_path) == []


def test_an_endless_drip_is_left_after_so_long(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a server that sends single bytes for ever.

    The pauses between the bytes are short enough to be allowed. So only the limit on the total time can end the
    download.
    """
    monkeypatch.setattr(download, "LONGEST_DOWNLOAD", 0.5)
    monkeypatch.setattr(Handler, "do_GET", lambda handler: send_for_ever(handler, b"x", 0.01))
    started = time.monotonic()
    with pytest.raises(DataError, match=f"Stopped downloading {server.url} after 0.5 seconds .LONGEST_DOWNLOAD. with"):
        fetch(server, tmp_path / "file")
    assert time.monotonic() - started < 5 and names(tmp_path) == ["file.part"]


@pytest.fixture(params=["the status", "a header", "headers", "redirections"])
def endless_headers(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the address of a server that sends HTTP headers for ever: a line without end, or lines without end."""
    begin, piece = {
        "the status": (b"HTTP/1.1 200 O", b"K"),
        "a header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        "redirections": (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nX: ", b"x"),
    }[request.param]
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        with listening.accept()[0] as connection, contextlib.suppress(OSError):
            connection.sendall(begin)
            while not ended.wait(0.1):
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/file.tar.gz"
        ended.set()
        thread.join()


def test_endless_headers_are_left_after_so_long(
    endless_headers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test headers without end. The pauses between the bytes are short enough to be allowed."""
    monkeypatch.setattr(download, "LONGEST_ANSWER", 0.5)
    started = time.monotonic()
    with pytest.raises(DataError, match=f"Cannot download {endless_headers} .the headers .* 0.5 seconds.*{REMEDY}"):
        download.fetch(endless_headers, tmp_path / "file", SHA256, REMEDY)
    assert time.monotonic() - started < 5


def test_a_transfer_that_is_cut_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_what_came_is_kept_and_the_next_call_asks_for_the_rest(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 0]  # the second answer is empty
    with pytest.raises(DataError, match=f"Cannot download {server.url} .the transfer was cut off.. {REMEDY}"):
        fetch(server, tmp_path / "file")
    assert names(tmp_path) == ["file.part"] and (tmp_path / "file.part").stat().st_size == 100_000
    server.cuts, server.asked = [], []
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT and server.asked == ["bytes=100000-"]


def test_a_server_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_all_there_but_the_name_needs_no_byte(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT and server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("before", [b"", b"of another file"])
def test_another_hash_is_refused_and_the_file_removed(server: Server, tmp_path: Path, before: bytes) -> None:
    """Test that a file with a wrong hash is removed, also if an earlier download wrote the wrong bytes.

    Otherwise the next download would keep these bytes and only append the rest of the file.
    """
    if before:
        (tmp_path / "file.part").write_bytes(before)
    else:
        server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(DataError, match=f"was removed, because its SHA-256 is [0-9a-f]{{64}} instead of {SHA256}"):
        fetch(server, tmp_path / "file")
    assert names(tmp_path) == []
    server.content = CONTENT
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_the_server_answers_is_told(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match=f"the server answers 404 Not Found.. {REMEDY}"):
        fetch(server, tmp_path / "file")


def test_no_network_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"Cannot download http://127.0.0.1:1/x .*Connection refused.*. {REMEDY}"):
        download.fetch("http://127.0.0.1:1/x", tmp_path / "file", SHA256, REMEDY)


def test_a_server_that_falls_silent_is_not_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda handler: released.wait(20))
    with pytest.raises(DataError, match=f"Cannot download .*timed out.*. {REMEDY}"):
        fetch(server, tmp_path / "file")
    released.set()


def test_a_full_disk_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=f"Cannot write .*/file .No space left on device.. {REMEDY}"):
        fetch(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_two_processes_do_not_write_into_one_file(server: Server, tmp_path: Path) -> None:
    with open(tmp_path / "file.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="Another process is downloading .*/file. Wait until it ends"):
            fetch(server, tmp_path / "file")
