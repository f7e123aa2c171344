"""Downloads one file. An interrupted download is resumed, and the SHA-256 of the file is checked.

The file gets its final name only when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import queue
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.runtime.file_lock import lock_open_file
from lowlevel_simclr.runtime.files import open_regular_file
from lowlevel_simclr.runtime.progress_bar import open_bar

TIMEOUT = 10  # seconds without receiving a byte
LONGEST_ANSWER = 60  # seconds until the headers of an answer are complete, including redirections
LARGEST_DOWNLOAD = 2**30  # bytes, six times the larger archive of CIFAR
LONGEST_DOWNLOAD = 4 * 60 * 60  # seconds for one call of `fetch`; CIFAR arrives in time at 12 kB/s
_PIECE = 2**16  # bytes per read


def fetch(url: str, path: Path, sha256: str, remedy: str) -> None:
    """Download a file with the given SHA-256. If `path` exists, only check its SHA-256.

    The received bytes are kept in `path` + ".part", and later requests ask only for the rest (HTTP Range). An
    interrupted transfer is requested again as long as each request receives something.

    Args:
        url: http or https address.
        path: where the finished file is put. Its folder is created.
        sha256: 64 hexadecimal digits.
        remedy: a sentence that says what a user who has no network can do. Error messages end with it.

    Raises:
        DataError: in one of these cases. There is no network. A request receives nothing. An answer does not begin
            within LONGEST_ANSWER. The file is larger than LARGEST_DOWNLOAD. The transfer takes longer than
            LONGEST_DOWNLOAD. The hash differs: then a newly downloaded file is removed, but a file that existed before
            the call is kept. The disk is full. Another process is downloading the file.
    """
    if path.exists():
        _check_given(path, sha256)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_partial(path) as part:
            _receive_rest(url, part, remedy)
            _refuse_other(url, part, sha256, remedy)
            os.fsync(part.fileno())
            if sys.platform == "win32":  # Windows cannot rename an open file
                part.close()
            os.replace(part.name, path)
    except OSError as error:
        raise DataError(f"Cannot write {path} ({error.strerror or error}). {remedy}") from error


def _check_given(path: Path, sha256: str) -> None:
    """Check the SHA-256 of a file that was there before the call. It is the user's file, so it is never removed."""
    try:
        with open_regular_file(path, LARGEST_DOWNLOAD, "LARGEST_DOWNLOAD") as file:
            found = _hash_file(file)
    except OSError as error:
        raise DataError(f"Cannot read {path} ({error.strerror or error}). Remove it to download it again.") from error
    if found != sha256:
        raise DataError(
            f"{path} is damaged, or is another file: its SHA-256 is {found} instead of {sha256}. Remove it, and run "
            "the same command again to download it."
        )


@contextlib.contextmanager
def _open_partial(path: Path) -> Iterator[BinaryIO]:
    """Open the file of the bytes received so far, and lock it for one process at a time."""
    with open(path.with_name(path.name + ".part"), "a+b") as part:
        try:
            lock_open_file(part, wait=False)
        except BlockingIOError:
            raise DataError(f"Another process is downloading {path}. Wait until it ends.") from None
        yield part


def _receive_rest(url: str, part: BinaryIO, remedy: str) -> None:
    """Request the missing bytes until the file is complete.

    Raises:
        DataError: if a request receives nothing, or if the file is too large or takes too long.
    """
    deadline = time.monotonic() + LONGEST_DOWNLOAD
    while True:
        before = part.seek(0, os.SEEK_END)
        try:
            if _transfer(url, part, deadline):
                return
            reason = "the transfer was cut off"
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                return  # nothing is missing; the hash shows whether the file is the right one
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        if part.seek(0, os.SEEK_END) <= before:
            raise DataError(f"Cannot download {url} ({reason}). {remedy}")


def _transfer(url: str, part: BinaryIO, deadline: float) -> bool:
    """Make one request. Return whether the whole file is there afterwards."""
    have = part.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _ask(request) as answer:
        if have and answer.status != http.client.PARTIAL_CONTENT:  # the server sends the whole file
            part.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with open_bar(f"downloading {show_name(url.rpartition('/')[2])}", total, "B", have, scale=True) as bar:
            _copy(url, answer, part, bar, deadline)
    return total is None or part.seek(0, os.SEEK_END) == total


def _ask(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Make a request, and return the answer when its headers are complete.

    TIMEOUT limits only the time between two bytes. So a server could send headers for ever, a byte at a time. The
    request is therefore made in another thread, and this function stops waiting for that thread after LONGEST_ANSWER.

    Raises:
        TimeoutError: if the headers take longer than LONGEST_ANSWER.
        OSError, HTTPException: the errors of `urllib.request.urlopen`.
    """
    found: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()
    left = threading.Event()

    def ask() -> None:
        try:
            found.put(urllib.request.urlopen(request, timeout=TIMEOUT))
        except Exception as error:  # noqa: BLE001, raised again in the thread that asked
            found.put(error)
        if left.is_set():
            _close_answer(found)

    threading.Thread(target=ask, name="download", daemon=True).start()
    try:
        answer = found.get(timeout=LONGEST_ANSWER)
    except queue.Empty:
        left.set()
        _close_answer(found)
        raise TimeoutError(
            f"the headers of the answer were not complete after {LONGEST_ANSWER} seconds, LONGEST_ANSWER"
        ) from None
    try:
        if isinstance(answer, Exception):
            raise answer
        return answer
    finally:
        del answer  # otherwise the error and this stack frame refer to each other, and the connection stays open


def _close_answer(found: queue.SimpleQueue[http.client.HTTPResponse | Exception]) -> None:
    """Close the answer if there is one. No caller will read it."""
    with contextlib.suppress(queue.Empty):
        answer = found.get_nowait()
        if isinstance(answer, (http.client.HTTPResponse, urllib.error.HTTPError)):
            answer.close()


def _copy(url: str, answer: Any, part: BinaryIO, bar: tqdm, deadline: float) -> None:
    """Append the answer to the file. If the transfer is cut off, the file keeps the bytes that have arrived.

    `read1` returns the bytes that have arrived. `read` would wait for a whole piece, which takes for ever if the server
    sends the bytes very slowly.
    """
    try:
        while piece := answer.read1(_PIECE):
            part.write(piece)
            bar.update(len(piece))
            _refuse_endless(url, part, deadline)
    except http.client.IncompleteRead as error:
        part.write(error.partial)
    finally:
        part.flush()


def _refuse_endless(url: str, part: BinaryIO, deadline: float) -> None:
    """Check that a transfer has neither sent too many bytes nor taken too long."""
    if part.tell() > LARGEST_DOWNLOAD:
        _discard(part)
        raise DataError(
            f"Stopped downloading {url} after {LARGEST_DOWNLOAD} bytes (LARGEST_DOWNLOAD), because no known file is as "
            "large. Check the network for a proxy that answers in place of the server, then run the same command again."
        )
    if time.monotonic() > deadline:
        raise DataError(
            f"Stopped downloading {url} after {LONGEST_DOWNLOAD} seconds (LONGEST_DOWNLOAD) with {part.tell()} bytes. "
            "Run the same command again to continue, or download the file with another program."
        )


def _hash_file(file: BinaryIO) -> str:
    """Return the SHA-256 of a file from its current position to the end, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    while piece := file.read(2**20):
        digest.update(piece)
    return digest.hexdigest()


def _refuse_other(url: str, part: BinaryIO, sha256: str, remedy: str) -> None:
    """Check the SHA-256 of the file. If it differs, remove the file and raise a DataError."""
    part.seek(0)
    found = _hash_file(part)
    if found != sha256:
        _discard(part)
        raise DataError(
            f"The file from {url} was removed, because its SHA-256 is {found} instead of {sha256}. {remedy}"
        )


def _discard(part: BinaryIO) -> None:
    """Remove the file of the bytes received so far. Windows cannot remove an open file, so it is emptied there."""
    if sys.platform == "win32":
        part.truncate(0)
    else:
        os.unlink(part.name)
