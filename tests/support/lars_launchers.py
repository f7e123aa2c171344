"""Runs the CUDA kernels of the optimizer LARS without TensorFlow, and compares the results with the NumPy reference.

The kernels of an op are started by a C function, its launcher. In tests/kernels/test_cuda.py, the kernels are emulated
on the CPU. In tests/kernels/gpu_kernels.py, they run on a GPU. This module needs only NumPy.
"""

from __future__ import annotations

import ctypes
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.reference.lars_update import compute_trust_ratio
from lowlevel_simclr.reference.lars_update import lars_update as reference
from lowlevel_simclr.verification.bound import SMALLEST_NORMAL
from tests.support.closeness import assert_close
from tests.support.device_arrays import Buffer, Memory

Arrays = list[NDArray[np.float32]]

KEYS = ("learning_rate", "momentum", "weight_decay", "trust_coefficient")  # in the order of the launcher's arguments
NAMES = ("weight", "gradient", "velocity", "new_weight", "new_velocity")
PIECE = 2048  # a CUDA block processes a variable in pieces of this number of floats
ROOM = 8  # floats added before and after an array that must not be aligned to 16 bytes


class Case(NamedTuple):
    """One variable to update: its shape, its values, and the addresses of its arrays."""

    shape: tuple[int, ...]
    rows: str = "random"  # the kind of numbers, see the function `numbers`
    beside: str = ""  # the name of the array that must not be aligned to 16 bytes, or "all"
    takes: str = ""  # if set: the new weight overwrites the array of this name, and the new velocity the old one
    weight_decay: float = 0.02


class Variable(ctypes.Structure):
    """The C struct `LarsVariable` of lars_update_cuda.h."""

    _fields_ = [
        ("count", ctypes.c_int64),
        ("adapts", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in NAMES),
    ]


def small_cases() -> list[Case]:
    """Return cases for all paths of the kernels, small enough for the emulation.

    They cover variables of several ranks, lengths near the length of a vector or of a piece, aligned and unaligned
    arrays, results that overwrite arguments, and numbers whose squares float32 cannot hold.
    """
    ranks = [(), (0,), (1,), (3,), (4,), (5,), (PIECE + 3,), (2, 0), (1, 1), (1, 3), (2, 2), (5, 7), (3, 3, 2, 4)]
    lengths = [(1, PIECE - 1), (1, PIECE), (1, PIECE + 1), (99, 131), (5, PIECE), (3, 3 * PIECE + 7)]
    cases = [Case(shape) for shape in [*ranks, *lengths]]
    cases += [Case((67, 71), beside=name) for name in (*NAMES, "all")] + [Case((5,), beside="all")]
    cases += [Case((67, 71), takes=name) for name in ("weight", "gradient")] + [Case((70,), takes="gradient")]
    rows = ("zero weight", "zero gradient", "zeros", "huge", "tiny", "subnormal", "huge weight", "huge gradient")
    cases += [Case((67, 71), kind) for kind in rows] + [Case((70,), "zero weight"), Case((70,), "huge")]
    cases += [Case(shape, kind) for shape in ((67, 71), (70,)) for kind in ("NaN", "infinity", "infinite weight")]
    return [*cases, Case((67, 71), "zero gradient", weight_decay=0.0), Case((67, 71), weight_decay=0.0)]


def large_cases() -> list[Case]:
    """Return all cases for a GPU: the small ones, and large ones that would take too long in the emulation."""
    return [*small_cases(), Case((3, 3, 512, 512)), Case((1024, 1025)), Case((5000, 4099)), Case((4999, 4099), "huge")]


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the launcher's arguments, and return the library."""
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    library.lowlevel_simclr_lars_update_cuda_partial_sums.argtypes = [size]
    library.lowlevel_simclr_lars_update_cuda_partial_sums.restype = size
    library.lowlevel_simclr_lars_update_cuda.argtypes = [pointer, size, ctypes.c_int32, *[pointer] * 7]
    library.lowlevel_simclr_lars_update_cuda.restype = ctypes.c_char_p
    library.lowlevel_simclr_lars_update_all_cuda.argtypes = [pointer, size, ctypes.POINTER(Variable), pointer, pointer]
    library.lowlevel_simclr_lars_update_all_cuda.restype = ctypes.c_char_p
    return library


def choices_of(case: Case) -> dict[str, float]:
    """Return the scalar arguments (the learning rate and the others in KEYS), rounded to float32."""
    return {key: float(np.float32(number)) for key, number in zip(KEYS, (0.05, 0.9, case.weight_decay, 0.01))}


class Floats:
    """A float array on the device that begins `shift` floats after a multiple of 16 bytes."""

    def __init__(self, memory: Memory, content: NDArray[np.float32], shift: int) -> None:
        self.shape, self.begin = content.shape, shift and ROOM + shift
        self.outside = np.full(self.begin, 7, np.float32)
        self.buffer = Buffer(memory, np.concatenate([self.outside, content.ravel(), self.outside]))
        self.pointer = ctypes.c_void_p(self.buffer.pointer.value + 4 * self.begin)

    def read(self) -> NDArray[np.float32]:
        """Return the content.

        Raises:
            AssertionError: if a kernel wrote outside the array.
        """
        raw = self.buffer.read(np.float32, (self.buffer.size // 4,))
        end = len(raw) - self.begin
        assert np.all(raw[: self.begin] == 7) and np.all(raw[end:] == 7), "a kernel wrote outside its array"
        return raw[self.begin : end].reshape(self.shape)


def numbers(case: Case) -> Arrays:
    """Return weight w, gradient g and velocity v of a case."""
    random = np.random.default_rng(zlib.crc32(repr(case.shape).encode()))
    w, g, v = (np.asarray(random.normal(size=case.shape)) for _ in range(3))
    scale = {"huge": 1e30, "tiny": 1e-30, "subnormal": 1e-41}.get(case.rows, 1.0)
    w, g, v = scale * w, scale * g, scale * v
    if case.rows in ("zero weight", "zeros"):
        w *= 0
    if case.rows in ("zero gradient", "zeros"):
        g *= 0
    if case.rows == "huge weight":
        w *= 1e30
    if case.rows == "huge gradient":
        g *= 1e30
    if case.rows in ("NaN", "infinity"):
        g.reshape(-1)[g.size // 2] = np.nan if case.rows == "NaN" else np.inf
    if case.rows == "infinite weight":
        w.reshape(-1)[w.size // 3] = -np.inf
    return [np.asarray(each, np.float32) for each in (w, g, v)]


def place(memory: Memory, case: Case, given: Arrays) -> dict[str, Floats]:
    """Copy the arrays of a variable to the device. The arrays for the results are full of NaN."""
    shift = {name: int(case.beside in (name, "all")) for name in NAMES}
    fresh = [np.full(case.shape, np.nan, np.float32)] * 2
    held = {name: Floats(memory, array, shift[name]) for name, array in zip(NAMES, [*given, *fresh])}
    if case.takes:
        held["new_weight"], held["new_velocity"] = held[case.takes], held["velocity"]
    return held


def results(case: Case, given: Arrays, held: dict[str, Floats]) -> Arrays:
    """Return the new weight and velocity.

    Raises:
        AssertionError: if the launcher changed an argument whose memory it may not use for a result.
    """
    for name, array in zip(NAMES, given):
        taken = case.takes and name in (case.takes, "velocity")
        assert taken or held[name].read().tobytes() == array.tobytes(), f"{name} was changed"
    return [held["new_weight"].read(), held["new_velocity"].read()]


def run(library: ctypes.CDLL, memory: Memory, case: Case, given: Arrays) -> Arrays:
    """Run a case, and return the new weight and velocity. Before, the arrays for results and sums are full of NaN."""
    held = place(memory, case, given)
    scalars = Buffer(memory, np.array(list(choices_of(case).values()), np.float32))
    count, adapts = given[0].size, len(case.shape) > 1
    sums = Buffer(memory, 8 * library.lowlevel_simclr_lars_update_cuda_partial_sums(count))
    pointers = [held[name].pointer for name in NAMES]
    why = library.lowlevel_simclr_lars_update_cuda(
        memory.stream, count, adapts, scalars.pointer, *pointers[:3], sums.pointer, *pointers[3:]
    )
    assert why is None, why
    sums.read("u1", (sums.size,))
    return results(case, given, held)


def check_all(library: ctypes.CDLL, memory: Memory, cases: list[Case]) -> None:
    """Assert that updating all variables in one call gives the same bits as updating each of them alone."""
    given = [numbers(case) for case in cases]
    held = [place(memory, case, arrays) for case, arrays in zip(cases, given)]
    variables = (Variable * len(cases))()
    doubles = 0
    for variable, case, arrays, each in zip(variables, cases, given, held):
        variable.count, variable.adapts = arrays[0].size, len(case.shape) > 1
        doubles += library.lowlevel_simclr_lars_update_cuda_partial_sums(variable.count) * variable.adapts
        for name in NAMES:
            setattr(variable, name, each[name].pointer.value)
    scalars = Buffer(memory, np.array(list(choices_of(cases[0]).values()), np.float32))
    sums = Buffer(memory, 8 * doubles)
    why = library.lowlevel_simclr_lars_update_all_cuda(
        memory.stream, len(cases), variables, scalars.pointer, sums.pointer
    )
    assert why is None, why
    sums.read("u1", (sums.size,))
    for case, arrays, each in zip(cases, given, held):
        for name, one, alone in zip(NAMES[3:], results(case, arrays, each), run(library, memory, case, arrays)):
            assert one.tobytes() == alone.tobytes(), f"{name} of {case} has other bits in a call with others"


def together() -> list[Case]:
    """Return variables to update in one call. They need several launches. Some are empty, and all alignments occur."""
    cases = [case for case in small_cases() if case.weight_decay == Case(()).weight_decay]
    return [*cases, *cases[::-1]]


def sizes(case: Case, given: Arrays) -> Arrays:
    """Return the unit of errors for each element of the new weight w' and the new velocity v'.

    w' and v' are sums. The unit is the sum of the absolute values of the terms, plus the smallest normal float. In this
    unit, `verification.bound` allows an error of 16 roundings of eps / 2. w' needs at most 9 of them:

    - v' is m v + scale u, where u is the gradient plus weight decay, and scale is the learning rate times the trust
      ratio. Its roundings are: product and sum in u (2), scale (1), scale u (1), m v (1), and the sum of both (1).
    - The trust ratio is computed from two norms. The roundings of u in these norms add at most 2.
    - w' has one rounding more than v'.
    """
    w, g, v = (np.abs(np.asarray(each, np.float64)) for each in given)
    rate, momentum, decay, coefficient = choices_of(case).values()
    ratio = 1.0
    if len(case.shape) > 1:
        plain_w, plain_g = (np.asarray(each, np.float64) for each in given[:2])
        ratio, g = compute_trust_ratio(plain_w, plain_g + decay * plain_w, coefficient), g + decay * w
    of_velocity = momentum * v + rate * ratio * g + SMALLEST_NORMAL["float32"]
    return [w + of_velocity, of_velocity]


def check_case(library: ctypes.CDLL, memory: Memory, case: Case) -> Arrays:
    """Run a case twice, and a third time with aligned arrays and separate memory for the results.

    All three must give the same bits. The results must agree with the reference.
    """
    given = numbers(case)
    found = run(library, memory, case, given)
    for other in (case, case._replace(beside="", takes="")):
        for name, first, second in zip(NAMES[3:], found, run(library, memory, other, given)):
            assert first.tobytes() == second.tobytes(), f"{name} has other bits in a second run"
    with np.errstate(all="ignore"):
        expected, scales = reference(*given, **choices_of(case)), sizes(case, given)
        for actual, right, scale in zip(found, expected, scales):
            assert_close(actual, right, None, dtype="float32", scale=np.where(np.isfinite(scale), scale, 0))
    return found
