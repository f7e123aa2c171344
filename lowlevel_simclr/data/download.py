"""One file from the network: resumed where it was cut off, checked against its SHA-256, whole or not there."""

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

TIMEOUT = 10  # seconds without a byte
_PIECE = 2**16  # bytes


def fetch(url: str, path: Path, sha256: str, remedy: str) -> None:
    """Downloads a file that has the given SHA-256; does nothing where it is there.

    What has come so far is kept as `path` + ".part", and asked for no more (HTTP Range). A transfer that is cut off is
    taken up again as long as it gets on.

    Args:
        url: http or https.
        path: where the file comes to lie; its folder is made.
        sha256: 64 hexadecimal digits.
        remedy: ends the sentence of every error: what to do without a network.

    Raises:
        DataError: no network, a transfer that does not get on, another hash (the file is removed), a full disk,
            or another process at the same download.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _find_partial(path) as part:
            _is_complete(url, part, remedy)
            _refuse_other(url, part, sha256, remedy)
            os.fsync(part.fileno())
            os.replace(part.name, path)
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror or error}): {remedy}") from error


@contextlib.contextmanager
def _find_partial(path: Path) -> Iterator[BinaryIO]:
    """The file with what has come so far, for one process at a time."""
    with open(path.with_name(path.name + ".part"), "a+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is downloading {path}: wait until it ends") from None
        yield part


def _is_complete(url: str, part: BinaryIO, remedy: str) -> None:
    """Asks for what is missing, again and again while something comes."""
    while True:
        before = part.seek(0, os.SEEK_END)
        try:
            if _transfer(url, part):
                return
            reason = "the transfer was cut off"
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                return  # nothing is missing; whether it is the right file, the hash tells
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        if part.seek(0, os.SEEK_END) <= before:
            raise DataError(f"cannot download {url} ({reason}): {remedy}")


def _transfer(url: str, part: BinaryIO) -> bool:
    """One request; whether all of the file is there now."""
    have = part.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if have and answer.status != http.client.PARTIAL_CONTENT:  # a server without ranges: from the start
            part.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=url.rpartition("/")[2]) as bar:
            _copy(answer, part, bar)
    return total is None or part.seek(0, os.SEEK_END) == total


def _copy(answer: Any, part: BinaryIO, bar: tqdm) -> None:
    """What comes, to the end of the file, so that it is there when the transfer is cut off."""
    try:
        while piece := answer.read(_PIECE):
            part.write(piece)
            bar.update(len(piece))
    except http.client.IncompleteRead as error:
        part.write(error.partial)
    finally:
        part.flush()


def _refuse_other(url: str, part: BinaryIO, sha256: str, remedy: str) -> None:
    """Removes what is not the file that was meant."""
    part.seek(0)
    digest = hashlib.sha256()
    while piece := part.read(2**20):
        digest.update(piece)
    if digest.hexdigest() != sha256:
        os.unlink(part.name)
        raise DataError(f"{url} gave a file with SHA-256 {digest.hexdigest()}, not {sha256}; it was removed: {remedy}")
