"""Makes files that a program must not read, because it would wait for ever or fill its memory."""

from __future__ import annotations

import os
from pathlib import Path

SPARSE = 200 * 2**30  # size in bytes of a sparse file (a file with holes), which takes no room on the disk


def make_odd_files(folder: Path, ending: str) -> dict[str, str]:
    """Make a FIFO, links to endless devices and a sparse file.

    Return a dict from the name of each file to the message that a program must print about it.
    """
    os.mkfifo(folder / f"fifo{ending}")
    (folder / f"random{ending}").symlink_to("/dev/urandom")
    (folder / f"zero{ending}").symlink_to("/dev/zero")
    with open(folder / f"sparse{ending}", "wb") as file:
        file.truncate(SPARSE)
    return {
        f"fifo{ending}": "it is a FIFO, not a regular file",
        f"random{ending}": "it is a device, not a regular file",
        f"zero{ending}": "it is a device, not a regular file",
        f"sparse{ending}": f"it has {SPARSE} bytes, more than ",
    }
