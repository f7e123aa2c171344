"""Tests the C++ op for SimCLR's loss (NT-Xent): threads, equal bits in each call, XLA, error messages, random shapes.

tests/ops/test_nt_xent.py tests its numbers more closely.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr import ops, reference
from lowlevel_simclr.ops import _route
from lowlevel_simclr.verification import nt_xent
from lowlevel_simclr.verification.bound import (
    compute_gradient_scale,
    compute_loss_scale,
    compute_temperature_scale,
)
from tests.support.closeness import assert_close
from tests.support.host import on_the_host
from tests.support.nt_xent_calls import loss_and_gradient, rows
from tests.support.op_modes import needs_xla
from tests.support.other_process import output_of

IMPORTED = "from tests.support import nt_xent_calls as t\n"


def test_the_threads_sleep_between_calls_and_a_forked_child_computes_too() -> None:
    """Test both in one separate process, with two threads."""
    program = """
import os, time, numpy as np
t.loss_and_gradient(t.rows(600, 64), 0.1)
time.sleep(0.3)
used = time.process_time()
time.sleep(1.0)
print(time.process_time() - used)
z = t.rows(300, 16)
before = t.ops.nt_xent(z, 0.1).numpy()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(t.ops.nt_xent(z, 0.1).numpy(), before) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    # CUDA itself does not survive a fork.
    used, code = output_of(IMPORTED + program, LOWLEVEL_SIMCLR_THREADS="2", CUDA_VISIBLE_DEVICES="-1").splitlines()
    # A thread that waits without sleeping would use 1.0 s of processor time in this second.
    assert float(used) < 0.5 and code == "0"


def test_several_threads_at_once_get_the_same_bits() -> None:
    z = rows(300, 16)
    expected = [tensor.numpy() for tensor in loss_and_gradient(z, 0.1)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            found = loss_and_gradient(z, 0.1)
            if not all(np.array_equal(a.numpy(), b) for a, b in zip(found, expected)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    case=st.builds(
        nt_xent.NtXentCase,
        rows=st.sampled_from(["random", "duplicates", "zeros", "huge", "tiny", "near"]),
        pairs=st.integers(1, 130),
        dim=st.integers(1, 70),
        dtype=st.sampled_from(["float32", "float64"]),
        temperature=st.sampled_from([0.001, 0.01, 0.031, 0.032, 0.1, 1.0, 10.0]),
        loss_scale=st.sampled_from([1.0, 2.0**15, 2.0**-15]),
        mode=st.just("eager"),
        own=st.none(),
    )
)
def test_any_shape_is_within_the_bound(case: nt_xent.NtXentCase) -> None:
    assert [finding for finding in nt_xent.judge_nt_xent(case, ops) if not finding.holds] == []


def test_replicas_add_up_to_the_whole() -> None:
    z, c, tau = rows(30, 12, "float64"), tf.constant(np.random.default_rng(1).normal(size=60)), 0.2
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = ops.nt_xent(z, tau)
    dz = tape.gradient(loss, z, output_gradients=c)
    shares = [(0, 11), (11, 4), (15, 15)]
    forward = [ops.nt_xent_rows_forward(z, *share, tau) for share in shares]
    gathered = [np.zeros(60), np.zeros((60, 2))]
    for share, (own_loss, state) in zip(shares, forward):
        own = reference.list_own_rows(60, *share)
        gathered[0][own], gathered[1][own] = own_loss.numpy(), state.normaliser.numpy()
    states = ops.RowsState(tf.constant(gathered[1]), forward[0][1].inverse_norm)
    backward = [ops.nt_xent_rows_backward(z, states, c, *share, tau) for share in shares]
    assembled, slope = np.zeros_like(z), 0.0
    for share, (own_dz, own_slope) in zip(shares, backward):
        assembled[reference.list_own_rows(60, *share)] = own_dz.numpy()
        slope += float(own_slope)
    assert_close(gathered[0], loss.numpy(), None, dtype="float64", scale=compute_loss_scale(tau))
    assert_close(assembled, dz.numpy(), None, dtype="float64", scale=2 * compute_gradient_scale(z, c, tau))
    truth = reference.nt_xent_temperature_gradient(z.numpy(), tau, c.numpy())
    assert_close(slope, truth, None, dtype="float64", scale=compute_temperature_scale(c, tau))


@needs_xla
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_jit_gives_the_bits_that_the_graph_gives(dtype: str) -> None:
    z = rows(70, 20, dtype)
    graph = tf.function(loss_and_gradient)(z, 0.1)
    compiled = tf.function(loss_and_gradient, jit_compile=True)(z, 0.1)
    for a, b in zip(graph, compiled):
        assert np.array_equal(a.numpy(), b.numpy())


@needs_xla
def test_a_plain_function_inside_a_compiled_one_takes_the_xla_route() -> None:
    z = rows(20, 8)
    inner = tf.function(loss_and_gradient)
    compiled = tf.function(lambda z: inner(z, 0.1)[1] * 2, jit_compile=True)
    assert np.array_equal(compiled(z).numpy(), 2 * loss_and_gradient(z, 0.1)[1].numpy())


@needs_xla
def test_keras_trains_with_jit_compile() -> None:
    """Train a Keras model in a separate process.

    In this process, an earlier test may have turned on op determinism, and Keras then ignores jit_compile.
    """
    program = """
import numpy as np, tensorflow as tf
dense = tf.keras.layers.Dense(8)
model = tf.keras.Sequential([tf.keras.layers.Input((16,)), dense])
model.compile(optimizer="sgd", loss=lambda _, z: t.ops.nt_xent(z, 0.5), jit_compile=True)
before = dense.kernel.numpy()
x, y = t.rows(32, 16).numpy(), np.zeros((64, 8), np.float32)
history = model.fit(x, y, batch_size=32, epochs=1, verbose=0)
print(model.jit_compile, np.isfinite(history.history["loss"][0]), np.array_equal(dense.kernel.numpy(), before))
"""
    assert output_of(IMPORTED + program) == "True True False"


@needs_xla
def test_jit_refuses_an_unknown_batch_with_a_sentence() -> None:
    compiled = tf.function(
        lambda z: ops.nt_xent(z, 0.1), jit_compile=True, input_signature=[tf.TensorSpec([None, 4], tf.float32)]
    )
    with pytest.raises(ValueError, match="static shapes.*drop_remainder"):
        compiled(rows(2, 4))


@pytest.mark.skipif(_route.find_route_error() is None, reason="this TensorFlow's XLA can call the native library")
def test_jit_without_a_route_is_an_error_that_names_versions() -> None:
    with pytest.raises(Exception, match=f"TensorFlow {tf.__version__}.*2.18 or later"):
        tf.function(lambda z: ops.nt_xent(z, 0.1), jit_compile=True)(rows(2, 4))


@on_the_host
def test_an_unknown_batch_works_in_a_graph() -> None:
    signature = [tf.TensorSpec([None, 8], tf.float32)]
    graph = tf.function(lambda z: loss_and_gradient(z, 0.1), input_signature=signature)
    for pairs in (1, 30, 120):
        z = rows(pairs, 8)
        for a, b in zip(graph(z), loss_and_gradient(z, 0.1)):
            assert np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=needs_xla)])
def test_there_is_no_second_derivative(jit: bool) -> None:
    def second(z: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(z)
            gradient = loss_and_gradient(z, 0.1)[1]
        return outer.gradient(gradient, z)

    with pytest.raises(LookupError, match="second derivative"):
        (tf.function(second, jit_compile=True, autograph=False) if jit else second)(rows(4, 3))


def test_the_gradient_op_checks_its_inputs() -> None:
    with tf.device("/CPU:0"):  # on a GPU, TensorFlow cannot check the values before the op runs
        z = rows(4, 3)
        state = ops.nt_xent_rows_forward(z, 0, 4, 0.1)[1]
        with pytest.raises(tf.errors.InvalidArgumentError, match="cotangent has shape .7.*8 rows"):
            ops.nt_xent_rows_backward(z, state, tf.ones([7]), 0, 4, 0.1)
        with pytest.raises(tf.errors.InvalidArgumentError, match="do not lie within the 4 pairs"):
            tf.function(lambda first: ops.nt_xent_rows_forward(z, first, 2, 0.1)[0])(tf.constant(3))


def test_no_row_is_compared_with_itself_where_all_are_equal() -> None:
    for pairs in (1, 5, 60):
        loss, dz = loss_and_gradient(tf.ones([2 * pairs, 6]), 0.5)
        right = np.full(2 * pairs, np.log(2 * pairs - 1))
        assert_close(loss.numpy(), right, None, dtype="float32", scale=compute_loss_scale(0.5))
        scale = 2 * compute_gradient_scale(np.ones((2 * pairs, 6)), np.ones(2 * pairs), 0.5)
        assert_close(dz.numpy(), np.zeros((2 * pairs, 6)), None, dtype="float32", scale=scale)
        assert np.all(ops.contrastive_top1(tf.ones([2 * pairs, 6])).numpy() == (pairs == 1))


@pytest.mark.slow
def test_memory_is_linear() -> None:
    program = """
import resource
z = t.rows(16384, 128)
t.loss_and_gradient(t.rows(64, 128), 0.1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
t.loss_and_gradient(z, 0.1)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / (2 * 16384 * 128 * 4))
"""
    assert float(output_of(IMPORTED + program)) <= 5.0
