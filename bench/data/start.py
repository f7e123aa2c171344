"""Times how long a run takes to load a folder of images, and prints JSON. Arguments: FOLDER SIDE [CACHE].

This is a separate program, so that it can also run the code of an older version of this package. An older version may
not know the argument `cache` of its functions, so this program passes `cache` only if CACHE is given.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any


def main(folder: str, side: int, cache: str | None) -> None:
    """Load the data set, but keep no image in memory. Print the times and the growth of the memory."""
    from lowlevel_simclr.data import catalog

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used, started = time.process_time(), time.perf_counter()
    more: dict[str, Any] = {} if cache is None else {"cache": cache}
    catalog.load_dataset(f"folder:{folder}", largest_side=side, memory_limit=0, **more)
    times = {"seconds": time.perf_counter() - started, "processor seconds": time.process_time() - used}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({**times, "memory bytes": grown * 1024}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
