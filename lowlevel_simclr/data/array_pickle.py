"""Reads a pickle of containers, numbers, text and arrays of numbers. A harmful file can neither run code nor take long.

Unpickling can run code. It can also compute for hours: if each of thirty tuples holds the previous one twice, a hash of
the last one takes 2^30 steps. So a file is first scanned without building any of its objects.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.runtime.files import read_regular_file

LARGEST_PICKLE = 2**30  # bytes of a file; the largest file of CIFAR has 155 MB
MOST_OBJECTS = 10_000_000  # objects in a pickle, each counted as often as it is used; CIFAR-100 has 200,000
DEEPEST_OBJECT = 32  # containers inside one another; in the files of CIFAR there are at most 7


def read_pickle(path: Path, remedy: str) -> dict[str, Any]:
    """Return the dictionary in a pickle file. Its keys are returned as text (str).

    Args:
        path: the file.
        remedy: a sentence that says what the user can do about a damaged file. Error messages end with it.

    Raises:
        DataError: if the file cannot be read, is too large or damaged, does not hold a dictionary, needs code that is
            not allowed, or nests its objects too deeply.
    """
    try:
        data = read_regular_file(path, LARGEST_PICKLE, "LARGEST_PICKLE")
    except OSError as error:
        raise DataError(f"Cannot read {path} ({error.strerror}). Check the file and its permissions.") from error
    try:
        _refuse_bomb(data, path.name)
        content = _ArrayUnpickler(io.BytesIO(data), path.name).load()
        if not isinstance(content, dict):
            raise DataError(
                f"{path} is not a CIFAR batch: it contains {type(content).__name__} instead of a dictionary. {remedy}"
            )
        return {_to_text(key): _unwrap(value) for key, value in content.items()}
    except DataError:
        raise
    except Exception as error:  # pickle does not document what a damaged file raises
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is damaged or truncated ({what}). {remedy}") from error


# The scan


class _Size(NamedTuple):
    """The size of an object on the pickle's stack.

    Attributes:
        objects: number of objects in it. An object that is used twice counts twice.
        depth: number of containers inside one another.
    """

    objects: int
    depth: int


def _refuse_bomb(data: bytes, name: str) -> None:
    """Check that a pickle has few objects, and that they are not deeply nested. The scan builds none of these objects.

    Args:
        data: the pickle.
        name: the name of its file.

    Raises:
        DataError: if there are too many objects, or if they are nested too deeply.
        Exception: of many types, if the pickle is damaged.
    """
    stack: list[_Size | None] = []  # None stands for pickle's MARK
    memo: dict[int, _Size | None] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name == "MEMOIZE" or opcode.name.endswith("PUT"):
            place = len(memo) if argument is None else int(argument)
            if place > count + 1:  # pickle would allocate memory for all smaller places
                raise DataError(f"{name} was not read, because it numbers an object {place}. {_SOURCE}")
            memo[place] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[int(argument or 0)])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            made = _measure(_take(stack, opcode), opcode)
            stack += [made] * len(opcode.stack_after)
            if made.objects > MOST_OBJECTS or made.depth > DEEPEST_OBJECT:
                raise DataError(
                    f"{name} was not read, because its objects are too many or nested too deeply (more than "
                    f"MOST_OBJECTS, {MOST_OBJECTS}, or DEEPEST_OBJECT, {DEEPEST_OBJECT}). {_SOURCE}"
                )


_SOURCE = "A CIFAR batch is flat. Get the file from a source that you trust."


def _take(stack: list[_Size | None], opcode: pickletools.OpcodeInfo) -> list[_Size]:
    """Remove from the stack the objects that an opcode uses. Return their sizes in the order of the stack."""
    used: list[_Size] = []
    before = list(opcode.stack_before)
    if pickletools.markobject in before:
        while (size := stack.pop()) is not None:
            used.append(size)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        used.append(stack.pop() or _Size(0, 0))
    return used[::-1]


def _measure(used: Sequence[_Size], opcode: pickletools.OpcodeInfo) -> _Size:
    """Return the size of the object that an opcode builds from other objects."""
    first = used[0].depth if used else 0
    # Whether the opcode adds to an existing container. This container is then the first object in `used`.
    grows = opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
    inside = max((size.depth for size in (used[1:] if grows else used)), default=0)
    return _Size(1 + sum(size.objects for size in used), max(first if grows else 0, inside + bool(used)))


# The unpickler


class _StoredType:
    """The dtype of a pickled array. `__init__` gets its code such as "u1", `__setstate__` gets its byte order."""

    def __init__(self, code: bytes | str, *flags: Any) -> None:
        self.dtype = np.dtype(_to_text(code))

    def __setstate__(self, state: Sequence[Any]) -> None:
        order: Any = _to_text(state[1])
        self.dtype = self.dtype.newbyteorder(order)


class _StoredArray:
    """A pickled array. `__setstate__` gets its shape, dtype, memory order and bytes."""

    def __init__(self, *arguments: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _version, shape, stored, columns_first, raw = state
        self.array = np.frombuffer(raw, stored.dtype).reshape(shape, order="F" if columns_first else "C")


def _read_flat_array(
    raw: bytes | bytearray, stored: _StoredType, shape: Sequence[int], order: str, axes: Sequence[int] | None = None
) -> _StoredArray:
    """Return an array that protocol 5 stores as bytes, with the arguments of NumPy's `_frombuffer`."""
    made = _StoredArray()
    flat = np.frombuffer(raw, stored.dtype)
    made.array = flat.reshape(shape, order="F" if order == "F" else "C")
    if axes is not None:
        made.array = made.array.transpose(axes)
    return made


def _read_stored_bytes(text: str, encoding: str) -> bytes:
    """Return the bytes that a pickle stores as text.

    Python 3 writes bytes, such as the content of an array, as text in the pickle protocols of Python 2.
    """
    if encoding != "latin1":
        raise ValueError(f"bytes are stored as latin1, not {encoding}")
    return text.encode("latin1")


# A pickled array names these functions and types. The definitions above replace them, so NumPy's own functions, which
# trust their input, are never called. NumPy 2 moved both functions to other modules, so there are two names of each.
_ADMITTED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _StoredArray,
    "numpy._core.multiarray._reconstruct": _StoredArray,
    "numpy.core.numeric._frombuffer": _read_flat_array,
    "numpy._core.numeric._frombuffer": _read_flat_array,
    "numpy.ndarray": _StoredArray,
    "numpy.dtype": _StoredType,
    "_codecs.encode": _read_stored_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler for containers, numbers, text and arrays of numbers. Text of Python 2 becomes bytes."""

    def __init__(self, file: io.BytesIO, name: str) -> None:
        super().__init__(file, encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the replacement for a function or type that a pickled array names. Nothing is imported or called.

        Raises:
            DataError: if the pickle contains any other name.
        """
        wanted = f"{module}.{name}"
        if wanted not in _ADMITTED:
            raise DataError(
                f"{self._name} was not read, because it asks for {wanted}. A CIFAR batch contains only NumPy "
                "arrays. Get the file from a source that you trust."
            )
        return _ADMITTED[wanted]


def _unwrap(value: Any) -> Any:
    return value.array if isinstance(value, _StoredArray) else value


def _to_text(value: bytes | str) -> str:
    """Return text as str.

    Raises:
        TypeError: if the value is not text. It is not converted with `str`, which takes long for a nested container.
    """
    if not isinstance(value, (bytes, str)):
        raise TypeError(f"text was expected, not {type(value).__name__}")
    return value.decode() if isinstance(value, bytes) else value
