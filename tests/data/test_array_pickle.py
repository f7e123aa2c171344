"""Tests reading pickle files of arrays: the package examines a file before Python's pickle module loads it.

Otherwise a small malicious file could make Python compute for ever, fill the memory or crash.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import array_pickle
from lowlevel_simclr.data.dataset import DataError

REMEDY = "Unpack it again."
SOUND = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2], b"names": [b"a"] * 2}


def read(folder: Path, content: bytes) -> dict[str, object]:
    (folder / "batch").write_bytes(content)
    return array_pickle.read_pickle(folder / "batch", REMEDY)


def make_doubled_key(times: int) -> bytes:
    """Return the pickle of a dictionary whose key is a tuple of depth `times`. Each level has the next level twice."""
    twice = b"".join(b"q" + bytes([place]) + b"h" + bytes([place]) + b"\x86" for place in range(times))
    return b"\x80\x02}K\x01" + twice + b"K\x02s."


@pytest.mark.parametrize("protocol", range(6))
def test_a_flat_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    """Test arrays of every protocol. Once, an array of protocol 5 was taken for code and refused."""
    cube = np.arange(24, dtype=">i4").reshape(2, 3, 4)
    frozen = np.arange(3)
    frozen.flags.writeable = False
    kinds: dict[bytes, np.ndarray] = {b"columns": np.asfortranarray(cube), b"axes": cube.transpose(1, 0, 2)}
    kinds |= {b"cut": cube[:, ::2], b"frozen": frozen}
    found = read(tmp_path, pickle.dumps({**SOUND, **kinds}, protocol))
    for name, array in kinds.items():
        np.testing.assert_array_equal(found[name.decode()], array, strict=True)
    np.testing.assert_array_equal(found["data"], SOUND[b"data"])
    assert found["labels"] == [1, 2] and found["names"] == [b"a", b"a"]


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_an_array_of_protocol_5_has_the_names_of_either_numpy(tmp_path: Path, module: str) -> None:
    content = pickle.dumps(SOUND, 5)
    at = content.index(b".numeric")
    start = content.rindex(b"\x8c", 0, at)  # SHORT_BINUNICODE, and the length of the name of the module
    name = f"{module}.numeric".encode()
    whole = content[:start] + b"\x8c" + bytes([len(name)]) + name + content[at + len(".numeric") :]
    frame = whole.index(b"\x95") + 1  # the length of the frame, which the name has changed
    whole = whole[:frame] + struct.pack("<Q", len(whole) - frame - 8) + whole[frame + 8 :]
    np.testing.assert_array_equal(read(tmp_path, whole)["data"], SOUND[b"data"])


@pytest.mark.parametrize(
    "change", [("O", (2, 3), "C"), ("u1", (2, 2), "C"), ("u1", (6,), "C", (0, 1)), ("u1", "2", "C")]
)
def test_a_wrong_array_of_protocol_5_is_one_sentence(tmp_path: Path, change: tuple[Any, ...]) -> None:
    code, *rest = change
    call, *_ = np.arange(3).__reduce_ex__(5)

    class Wrong:
        def __reduce__(self) -> Any:
            return call, (b"123456", np.dtype(code), *rest)

    with pytest.raises(DataError, match="batch is damaged or truncated .*. Unpack it again."):
        read(tmp_path, pickle.dumps({b"data": Wrong()}, 5))


def test_lists_may_be_as_long_as_those_of_cifar(tmp_path: Path) -> None:
    names = [f"image {number}.png".encode() for number in range(50_000)]
    for protocol in (0, 2, 4):
        content = {b"labels": list(range(50_000)), b"filenames": names}
        assert read(tmp_path, pickle.dumps(content, protocol))["labels"] == list(range(50_000))


def test_doubled_tuples_end_at_once(tmp_path: Path) -> None:
    """Test a dictionary whose key is a nested tuple. Each level has the next level twice. It must be refused at once.

    Computing the hash of this key would take 2^31 steps, which is a minute.
    """
    started = time.monotonic()
    with pytest.raises(DataError, match="batch was not read, because its objects are too many or nested too deeply"):
        read(tmp_path, make_doubled_key(31))
    assert time.monotonic() - started < 5


def test_a_small_number_of_doubled_tuples_is_only_a_wrong_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="batch is damaged or truncated .TypeError: text was expected, not tuple"):
        read(tmp_path, make_doubled_key(3))


def test_wide_tuples_that_hold_one_another_end_at_once(tmp_path: Path) -> None:
    wide = b"".join(b"q" + bytes([place]) + b"(" + b"h" + bytes([place]) + (b"h" + bytes([place])) * 999 + b"t"
                    for place in range(5))  # fmt: skip
    with pytest.raises(DataError, match="too many or nested"):
        read(tmp_path, b"\x80\x02}K\x01" + wide + b"K\x02s.")


def test_a_deep_tuple_does_not_overflow_the_stack(tmp_path: Path) -> None:
    """Test a deeply nested tuple. It must be refused.

    Computing its hash makes one recursive call for each level. At this depth, the calls would overflow the stack and
    crash the process.
    """
    with pytest.raises(DataError, match="too many or nested"):
        read(tmp_path, b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x02s.")


def test_a_deep_list_does_not_overflow_the_stack(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too many or nested"):
        read(tmp_path, b"\x80\x02}U\x01a" + b"]" * 100_000 + b"a" * 99_999 + b"s.")


def test_no_room_is_made_for_objects_that_are_not_there(tmp_path: Path) -> None:
    """Test a pickle that stores an object under the index 2^31 - 1, for which Python's pickle would allocate 32 GiB."""
    with pytest.raises(DataError, match="batch was not read, because it numbers an object 2147483647"):
        read(tmp_path, b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b".")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "batch")
    with pytest.raises(DataError, match="Cannot read .*batch .it is a FIFO, not a regular file"):
        array_pickle.read_pickle(tmp_path / "batch", REMEDY)


def test_a_file_without_an_end_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "batch", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="it has 1099511627776 bytes, more than LARGEST_PICKLE"):
        array_pickle.read_pickle(tmp_path / "batch", REMEDY)
