"""Tests the CUDA kernels without a GPU: their source is compiled for the CPU, with an emulation of CUDA.

The emulation (kernels/cuda/cuda_on_host.h) runs every thread of a kernel, with all indices, masks, schedules and
barriers. It cannot show two things of a GPU: its speed, and how its tensor cores round. The kernels of an op are
started by a C function, its launcher. On a GPU, `make test-kernels-gpu` runs the same checks.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, reference
from lowlevel_simclr.ops import _library, _route
from tests.support import device_arrays
from tests.support import lars_launchers as updates
from tests.support import nt_xent_launchers as losses
from tests.support import view_launchers as views
from tests.support.closeness import assert_close

ROOT = Path(__file__).parents[2]
MEMORY = device_arrays.Memory()
built = _library.read_build_information()["cuda"]
needs_cuda = pytest.mark.skipif(not built, reason="the library was built without CUDA kernels")
needs_no_driver = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")),
    reason="this machine has a GPU: make test-kernels-gpu calls the launchers on it",
)
needs_gpu = pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="TensorFlow sees no GPU")

# One case for each path through the kernels. The other cases of small_cases() are in tests with the mark `slow`.
QUICK = (
    losses.Case(37, 20, "bfloat16"),
    losses.Case(37, 20, "float16", 0.005),
    losses.Case(75, 20, "float32", 0.1),  # the columns are divided into two shares of three tiles
    losses.Case(75, 12, "bfloat16", 0.005),
    losses.Case(75, 12, "float64", 0.005, own=(40, 35)),
    losses.Case(33, 24, "float32", 0.05, "duplicates"),
    losses.Case(33, 24, "bfloat16", 0.05, "zeros"),
    losses.Case(20, 24, "bfloat16", 0.05, "huge"),
    losses.Case(33, 24, "bfloat16", 0.05, "spread"),
    losses.Case(33, 35, "float64", 0.005),
    losses.Case(33, 131, "bfloat16"),
    losses.Case(33, 300, "float64", 0.01),
    losses.Case(1, 1),
    losses.Case(33, 24, "float16", 0.07, loss_scale=2.0**15),
    losses.Case(40, 24, "float32", 0.01, own=(13, 20)),
)


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    return updates.declared(views.declared(losses.declared(library)))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return a library of the launchers and kernels, compiled for the CPU with the emulation."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: it compiles the kernels for the CPU")
    return declared(device_arrays.emulated(tmp_path_factory.mktemp("emulated")))


@pytest.fixture()
def reversed_threads(library: ctypes.CDLL) -> Iterator[None]:
    library.lowlevel_simclr_reverse_threads(1)
    yield
    library.lowlevel_simclr_reverse_threads(0)


# ---- Kernels under emulation


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_nt_xent_is_within_the_bound(library: ctypes.CDLL, case: losses.Case) -> None:
    losses.check_case(library, MEMORY, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", losses.small_cases(), ids=str)
def test_every_path_of_nt_xent_is_within_the_bound(library: ctypes.CDLL, case: losses.Case) -> None:
    losses.check_case(library, MEMORY, case)


@pytest.mark.parametrize("case", views.small_cases(), ids=str)
def test_views_are_the_references(library: ctypes.CDLL, case: views.Case) -> None:
    views.check_views(library, MEMORY, case)


def test_faulty_views_are_nan_and_touch_nothing(library: ctypes.CDLL) -> None:
    views.check_faulty_views(library, MEMORY)


def test_no_view_shows_the_padding(library: ctypes.CDLL) -> None:
    views.check_padding(library, MEMORY)


def test_draws_are_the_references(library: ctypes.CDLL) -> None:
    views.check_draws(library, MEMORY, 150)


@pytest.mark.parametrize("case", updates.small_cases(), ids=str)
def test_lars_updates_are_the_references(library: ctypes.CDLL, case: updates.Case) -> None:
    updates.check_case(library, MEMORY, case)


def test_many_variables_share_launches_and_keep_their_bits(library: ctypes.CDLL) -> None:
    cases = updates.together()
    assert sum(0 not in case.shape for case in cases) > 56, "one launch would be enough for these cases"
    updates.check_all(library, MEMORY, cases)


def test_a_variable_of_rank_1_needs_no_sums(library: ctypes.CDLL) -> None:
    case = updates.Case((70,))
    given, choices = updates.numbers(case), list(updates.choices_of(case).values())
    w, g, v, new_w, new_v, scalars = (
        updates.Buffer(MEMORY, array) for array in (*given, 280, 280, np.array(choices, np.float32))
    )
    pointers = [scalars.pointer, w.pointer, g.pointer, v.pointer, None, new_w.pointer, new_v.pointer]
    assert library.lowlevel_simclr_lars_update_cuda(None, 70, 0, *pointers) is None
    found = updates.run(library, MEMORY, case, given)
    assert np.array_equal(new_w.read(np.float32, (70,)), found[0])


def test_the_sums_of_an_update_are_few(library: ctypes.CDLL) -> None:
    """Test the number of partial sums that a kernel writes for the two norms.

    Each block writes two sums, and there are at most four blocks. An empty variable has no partial sums.
    """
    sums = library.lowlevel_simclr_lars_update_cuda_partial_sums
    assert [sums(count) for count in (0, 1, updates.PIECE, updates.PIECE + 1, 10**9)] == [0, 2, 2, 4, 8]


def outcome(library: ctypes.CDLL) -> list[bytes]:
    """Compute a small loss, some views and an optimizer's update. Return the bits of all results."""
    case, picture = losses.Case(33, 20, "bfloat16"), views.Case(2, 20, 20, size=25)
    found = losses.run(library, MEMORY, case, losses.projections(case))
    seen = views.make_views(library, MEMORY, picture, views.images_of(picture), views.params_of(picture))
    variable = updates.Case((99, 131))
    moved = updates.run(library, MEMORY, variable, updates.numbers(variable))
    return [array.tobytes() for array in (*found, seen, *moved)]


def test_no_result_depends_on_the_order_of_threads(library: ctypes.CDLL, reversed_threads: None) -> None:
    backwards = outcome(library)
    library.lowlevel_simclr_reverse_threads(0)
    assert outcome(library) == backwards, "a barrier is missing"


def test_nan_and_infinity_reach_every_row(library: ctypes.CDLL) -> None:
    for bad in (np.nan, np.inf):
        for dtype in ("float32", "float16"):
            case = losses.Case(5, 4, dtype)
            z = losses.projections(case)
            z[3, 1] = bad
            found = losses.run(library, MEMORY, case, z)
            assert np.all(np.isnan(found.loss)) and np.all(np.isnan(found.dz.astype(np.float64)))
            assert not np.any(found.top1)


def test_wrong_scalars_give_nan(library: ctypes.CDLL) -> None:
    case = losses.Case(6, 4)
    z = losses.projections(case)
    for wrong in (case._replace(temperature=0.0), case._replace(temperature=np.nan), case._replace(own=(3, 4))):
        found = losses.run(library, MEMORY, wrong, z)
        assert np.all(np.isnan(found.loss)) and np.all(np.isnan(found.dz)) and np.isnan(found.dtemperature)


def test_shapes_are_refused_with_a_sentence(library: ctypes.CDLL) -> None:
    nothing = [None] * 8
    forward = library.lowlevel_simclr_nt_xent_cuda_forward
    assert b"type must be" in forward(None, 4, 3, 4, 7, *nothing)
    assert b"N >= 1, d >= 1" in forward(None, 4, 0, 4, 0, *nothing)
    assert b"1 <= own_pairs <= N" in forward(None, 4, 3, 5, 0, *nothing)
    assert b"is null" in forward(None, 4, 3, 4, 0, *nothing)
    assert library.lowlevel_simclr_nt_xent_cuda_workspace_bytes(4, 3, 5, 0) == -1
    make = library.lowlevel_simclr_make_views_cuda
    assert b"pixels must be" in make(None, 1, 8, 8, 3, 8, 5, 0, *[None] * 6)
    assert b"type must be" in make(None, 1, 8, 8, 3, 8, 0, 1, *[None] * 6)
    assert b"1 to 32767" in make(None, 1, 8, 40000, 3, 8, 0, 0, *[None] * 6)
    assert b"1 to 4 channels" in make(None, 1, 8, 8, 5, 8, 0, 0, *[None] * 6)
    assert b"is null" in make(None, 1, 8, 8, 3, 8, 0, 0, *[None] * 6)
    draw = library.lowlevel_simclr_draw_view_params_cuda
    assert b"is null" in draw(None, 2, None, None, 1, *[None] * 4)
    assert b"one for each image" in draw(None, 3, None, None, 2, *[None] * 4)
    update = library.lowlevel_simclr_lars_update_cuda
    assert b"fewer than 0" in update(None, -1, 1, *[None] * 7)
    assert update(None, 0, 1, *[None] * 7) is None
    for missing in range(7):
        assert b"is null" in update(None, 4, 1, *[None if i == missing else ctypes.c_void_p(256) for i in range(7)])


def test_the_workspace_is_linear_in_the_batch(library: ctypes.CDLL) -> None:
    def bytes_of(pairs: int, dim: int) -> int:
        return library.lowlevel_simclr_nt_xent_cuda_workspace_bytes(pairs, dim, pairs, losses.CODES["bfloat16"])

    for dim in (64, 128, 512):
        z = 2 * 65536 * dim * 2
        assert bytes_of(65536, dim) < 4 * z  # a copy of z, sums as large as two z, and a few vectors
        assert bytes_of(131072, dim) < 2.1 * bytes_of(65536, dim)
        assert bytes_of(8, dim) < 2 * 1024 * 64 * dim * 4  # sums of at most 512 blocks of 64 rows, and some vectors


# ---- The native library of this installation


def launchers() -> ctypes.CDLL:
    _library.load_library()
    return declared(ctypes.CDLL(str(_library.PATH)))


@needs_cuda
@needs_no_driver
def test_the_built_launchers_say_that_there_is_no_driver() -> None:
    library, somewhere = launchers(), ctypes.c_void_p(256)
    why = library.lowlevel_simclr_nt_xent_cuda_forward(None, 4, 3, 4, 0, *[somewhere] * 8)
    assert re.search(b"driver|no CUDA-capable device", why)
    params = (ctypes.c_void_p * 11)(*[256] * 11)
    arrays = [somewhere, params, *[somewhere] * 4]
    assert re.search(
        b"driver|no CUDA-capable", library.lowlevel_simclr_make_views_cuda(None, 1, 8, 8, 3, 8, 0, 0, *arrays)
    )
    draw = library.lowlevel_simclr_draw_view_params_cuda
    assert re.search(b"driver|no CUDA-capable", draw(None, 2, somewhere, somewhere, 1, *[somewhere] * 3, params))
    for adapts in (0, 1):
        why = library.lowlevel_simclr_lars_update_cuda(None, 4, adapts, *[somewhere] * 7)
        assert re.search(b"driver|no CUDA-capable", why)


@needs_cuda
def test_the_built_launchers_refuse_shapes_too() -> None:
    assert b"1 <= own_pairs <= N" in launchers().lowlevel_simclr_nt_xent_cuda_forward(None, 4, 3, 5, 0, *[None] * 8)


@needs_cuda
def test_no_cuda_symbol_is_left_to_tensorflow() -> None:
    """Test that the library contains all functions of the CUDA runtime (cudart) that it calls.

    TensorFlow exports functions of cudart too, but of another version. If the library called them, it would fail on
    machines with a GPU.
    """
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    table = subprocess.run(["objdump", "-T", str(_library.PATH)], check=True, capture_output=True, text=True).stdout
    undefined = [line.split()[-1] for line in table.splitlines() if "*UND*" in line]
    assert undefined and not [name for name in undefined if "cuda" in name.lower()]


@needs_cuda
def test_the_library_holds_cuda_code() -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    listed = subprocess.run(["objdump", "-h", str(_library.PATH)], check=True, capture_output=True, text=True).stdout
    assert ".nv_fatbin" in listed


@needs_cuda
def test_the_library_holds_machine_code_and_ptx() -> None:
    program = shutil.which("cuobjdump")
    if program is None:
        pytest.skip("cuobjdump is not installed")
    listed = subprocess.run([program, "-lelf", "-lptx", str(_library.PATH)], capture_output=True, text=True).stdout
    assert all(f"{architecture}.cubin" in listed for architecture in built)
    assert "sm_90.ptx" in listed


# ---- How a graph calls a native op: as a TensorFlow op on a CPU, and through XLA (XlaCallModule) on a GPU


def test_a_module_for_two_platforms_takes_the_platform_first() -> None:
    specs = [([4, 2], tf.float32)], [((4,), tf.float32)]
    assert "%platform: tensor<i32>, %a0: tensor<4x2xf32>" in _route._write_module("target", *specs, ("CPU", "CUDA"))
    assert "%platform" not in _route._write_module("target", *specs, ("CPU",))


@pytest.fixture()
def visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has a GPU. Functions that TensorFlow traces from now on call the ops as on a GPU."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["a GPU"])


def traced(function: object, *specs: tf.TensorSpec) -> set[str]:
    graph = tf.function(function).get_concrete_function(*specs).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.skipif(_route.find_route_error() is not None, reason=str(_route.find_route_error()))
@needs_cuda
def test_where_a_gpu_is_visible_graphs_take_the_custom_call(visible_gpu: None) -> None:
    z = tf.TensorSpec([8, 4], tf.float32)
    assert "XlaCallModule" in traced(lambda z: ops.nt_xent(z, 0.1), z)

    def on_the_host(z: tf.Tensor) -> tf.Tensor:
        with tf.device("/CPU:0"):
            return ops.nt_xent(z, 0.1)

    found = traced(on_the_host, z)
    assert "LowlevelSimclr>NtXent" in found and "XlaCallModule" not in found
    with tf.device("/CPU:0"):  # the device is set outside the traced function, as in lowlevel_simclr.check
        found = traced(lambda z: ops.nt_xent(z, 0.1), tf.TensorSpec([None, 4], tf.float32))
    assert "LowlevelSimclr>NtXent" in found and "XlaCallModule" not in found


@pytest.mark.skipif(_route.find_route_error() is not None, reason=str(_route.find_route_error()))
@needs_cuda
def test_where_a_gpu_is_visible_updates_take_the_custom_call(visible_gpu: None) -> None:
    def update(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return ops.lars_update(w, w, w, learning_rate=0.1, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001)

    def on_the_host(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("/CPU:0"):
            return update(w)

    for spec in (tf.TensorSpec([8, 4], tf.float32), tf.TensorSpec([], tf.float32)):
        assert "XlaCallModule" in traced(update, spec)
        found = traced(on_the_host, spec)
        assert "LowlevelSimclr>LarsUpdate" in found and "XlaCallModule" not in found


@pytest.mark.skipif(_route.find_route_error() is not None, reason=str(_route.find_route_error()))
@needs_cuda
def test_an_unknown_batch_on_a_gpu_is_refused_with_a_sentence(visible_gpu: None) -> None:
    with pytest.raises(ValueError, match="on a GPU.*static shapes.*drop_remainder.*CPU:0"):
        traced(lambda z: ops.nt_xent(z, 0.1), tf.TensorSpec([None, 4], tf.float32))


def test_a_gpu_without_kernels_is_refused_with_a_sentence(visible_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "read_build_information", lambda: {"xla": True, "cuda": False})
    with pytest.raises(NotImplementedError, match="LOWLEVEL_SIMCLR_CUDA=1.*CPU:0.*--ops stock"):
        traced(lambda z: ops.nt_xent(z, 0.1), tf.TensorSpec([8, 4], tf.float32))


# ---- On a GPU


@needs_gpu
@pytest.mark.parametrize("jit", [False, True])
def test_tensorflow_runs_the_kernels_on_the_gpu(jit: bool) -> None:
    z = tf.constant(np.random.default_rng(0).normal(size=(96, 20)), tf.float32)

    @tf.function(jit_compile=jit)
    def step(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(ops.nt_xent(z, 0.1))
        return loss, tape.gradient(loss, z)

    with tf.device("/GPU:0"):
        loss, dz = step(z)
    assert "GPU" in dz.device
    expected = reference.nt_xent_gradient(z.numpy(), 0.1, np.ones(96))
    np.testing.assert_allclose(float(loss), np.sum(reference.nt_xent(z.numpy(), 0.1)), rtol=1e-5)
    np.testing.assert_allclose(dz.numpy(), expected, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("jit", [False, True])
def test_tensorflow_updates_on_the_gpu(jit: bool) -> None:
    case = updates.Case((67, 71))
    given, choices = updates.numbers(case), updates.choices_of(case)
    update = tf.function(lambda *arrays: ops.lars_update(*arrays, **choices), jit_compile=jit)
    with tf.device("/GPU:0"):
        found = update(*map(tf.constant, given))
    assert all("GPU" in tensor.device for tensor in found)
    expected = updates.reference(*given, **choices)
    for tensor, right, scale in zip(found, expected, updates.sizes(case, given)):
        assert_close(tensor.numpy(), right, None, dtype="float32", scale=scale)


@needs_gpu
@pytest.mark.parametrize("jit", [False, True])
def test_tensorflow_updates_all_variables_on_the_gpu_at_once(jit: bool) -> None:
    """Test one call for all variables. The bits must equal those of one call for each, and no argument may change."""
    cases = [updates.Case(shape) for shape in ((67, 71), (70,), (), (3, 3, 64, 128))]
    given, choices = [updates.numbers(case) for case in cases], updates.choices_of(cases[0])
    update = tf.function(lambda *arrays: ops.lars_update_all(*arrays, **choices), jit_compile=jit)
    alone = tf.function(lambda *arrays: ops.lars_update(*arrays, **choices), jit_compile=jit)
    with tf.device("/GPU:0"):
        tensors = [[tf.constant(array) for array in arrays] for arrays in zip(*given)]
        found = update(*tensors)
        expected = [alone(*each) for each in zip(*tensors)]
    for arrays, kept in zip(zip(*given), tensors):
        assert all(np.array_equal(array, tensor.numpy()) for array, tensor in zip(arrays, kept))
    for moved, right in zip(zip(*found), expected):
        assert all(one.numpy().tobytes() == other.numpy().tobytes() for one, other in zip(moved, right))


def test_the_gpu_program_says_that_there_is_no_gpu() -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU: make test-kernels-gpu")
    command = [sys.executable, str(ROOT / "tests" / "kernels" / "gpu_kernels.py"), "--small"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "No GPU can be reached" in done.stdout
