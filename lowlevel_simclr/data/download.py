"""The download of one file: resumed after an interruption, checked by SHA-256, and renamed when it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.runtime.progress_bar import open_bar

TIMEOUT = 10  # seconds without receiving a byte
_PIECE = 2**16  # bytes per read


def fetch(url: str, path: Path, sha256: str, remedy: str) -> None:
    """Download a file with the given SHA-256. Do nothing if `path` exists.

    The received bytes are kept in `path` + ".part", and later requests ask only for the rest (HTTP Range). An
    interrupted transfer is requested again as long as each request receives something.

    Args:
        url: http or https address.
        path: where the finished file is put. Its folder is created.
        sha256: 64 hexadecimal digits.
        remedy: a sentence that says what the user can do without a network. Error messages end with it.

    Raises:
        DataError: if there is no network, a request receives nothing, the hash differs (the file is removed), the disk
            is full, or another process is downloading the file.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_partial(path) as part:
            _receive_rest(url, part, remedy)
            _refuse_other(url, part, sha256, remedy)
            os.fsync(part.fileno())
            os.replace(part.name, path)
    except OSError as error:
        raise DataError(f"Cannot write {path} ({error.strerror or error}). {remedy}") from error


@contextlib.contextmanager
def _open_partial(path: Path) -> Iterator[BinaryIO]:
    """Open the file of the bytes received so far, and lock it for one process at a time."""
    with open(path.with_name(path.name + ".part"), "a+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"Another process is downloading {path}. Wait until it ends.") from None
        yield part


def _receive_rest(url: str, part: BinaryIO, remedy: str) -> None:
    """Request the missing bytes until the file is complete. Raise a DataError if a request receives nothing."""
    while True:
        before = part.seek(0, os.SEEK_END)
        try:
            if _transfer(url, part):
                return
            reason = "the transfer was cut off"
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                return  # nothing is missing; the hash tells whether it is the right file
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        if part.seek(0, os.SEEK_END) <= before:
            raise DataError(f"Cannot download {url} ({reason}). {remedy}")


def _transfer(url: str, part: BinaryIO) -> bool:
    """Make one request. Return whether the whole file is there afterwards."""
    have = part.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if have and answer.status != http.client.PARTIAL_CONTENT:  # the server sends the whole file
            part.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with open_bar(f"downloading {url.rpartition('/')[2]}", total, "B", have, scale=True) as bar:
            _copy(answer, part, bar)
    return total is None or part.seek(0, os.SEEK_END) == total


def _copy(answer: Any, part: BinaryIO, bar: tqdm) -> None:
    """Append the answer to the file. If the transfer is cut off, the file keeps what has arrived."""
    try:
        while piece := answer.read(_PIECE):
            part.write(piece)
            bar.update(len(piece))
    except http.client.IncompleteRead as error:
        part.write(error.partial)
    finally:
        part.flush()


def _refuse_other(url: str, part: BinaryIO, sha256: str, remedy: str) -> None:
    """Check the SHA-256 of the file. If it differs, remove the file and raise a DataError."""
    part.seek(0)
    digest = hashlib.sha256()
    while piece := part.read(2**20):
        digest.update(piece)
    if digest.hexdigest() != sha256:
        os.unlink(part.name)
        raise DataError(
            f"The file from {url} was removed, because its SHA-256 is {digest.hexdigest()} instead of {sha256}. "
            f"{remedy}"
        )
