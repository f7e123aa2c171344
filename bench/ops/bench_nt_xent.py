"""Times NT-Xent, loss and gradient: python -m bench.ops.bench_nt_xent [--pairs 256 1024 4096] [--compare old.json].

Against the native op stand: the stock formula as a graph and under XLA, the four-block form with a large number on
two diagonals (as the code of the paper's authors computes it), and where PyTorch is installed its plain form. GFLOP/s
count the native algorithm's 4 (2N)^2 d operations for everyone; the autodiff forms do 6 (2N)^2 d and pass over the
matrix besides.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import harness
from lowlevel_simclr import ops, stock
from lowlevel_simclr.ops import _library, _route

TEMPERATURE = 0.1
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
SGEMM = 1024


def four_blocks(z: tf.Tensor, temperature: float) -> tf.Tensor:
    """Losses from the blocks aa, ab, ba, bb, the diagonals of aa and bb pushed down: (2N,)."""
    first, second = tf.split(tf.math.l2_normalize(z, axis=1), 2)
    pairs = tf.shape(first)[0]
    diagonal = tf.one_hot(tf.range(pairs), pairs, dtype=z.dtype) * 1e9
    labels = tf.one_hot(tf.range(pairs), 2 * pairs, dtype=z.dtype)
    aa = tf.matmul(first, first, transpose_b=True) / temperature - diagonal
    bb = tf.matmul(second, second, transpose_b=True) / temperature - diagonal
    ab = tf.matmul(first, second, transpose_b=True) / temperature
    ba = tf.matmul(second, first, transpose_b=True) / temperature
    of_first = tf.nn.softmax_cross_entropy_with_logits(labels, tf.concat([ab, aa], axis=1))
    of_second = tf.nn.softmax_cross_entropy_with_logits(labels, tf.concat([ba, bb], axis=1))
    return tf.concat([of_first, of_second], axis=0)


def in_tensorflow(loss: Callable[..., tf.Tensor], z: np.ndarray, dtype: str, jit: bool = False) -> Callable[[], Any]:
    """A call that computes the mean loss and its gradient: (), (2N, d)."""

    @tf.function(jit_compile=jit)
    def step(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(z)
            mean = tf.reduce_mean(loss(z, TEMPERATURE))
        return mean, tape.gradient(mean, z)

    tensor = tf.cast(tf.constant(z), dtype)

    def call() -> list[Any]:
        for _ in range(harness.in_a_row()):
            mean, dz = step(tensor)
        return [mean.numpy(), dz]  # on a GPU the mean's copy waits for both; dz stays there until somebody compares

    return call


def in_torch(z: np.ndarray) -> Callable[[], Any]:
    """The plain form in PyTorch."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tensor = torch.tensor(z, requires_grad=True)
    target = torch.arange(len(z)).roll(len(z) // 2)

    def step() -> list[np.ndarray]:
        tensor.grad = None
        u = torch.nn.functional.normalize(tensor, dim=1)
        s = (u @ u.T / TEMPERATURE).fill_diagonal_(float("-inf"))
        mean = torch.nn.functional.cross_entropy(s, target)
        mean.backward()
        return [mean.detach().numpy(), tensor.grad.numpy()]

    return step


def forms(z: np.ndarray, dtype: str, others: bool) -> list[harness.Alternative]:
    """Every alternative that runs here; where the others' do not fit in memory the native op alone."""
    made: list[tuple[str, Callable[[], Any]]] = [("native", lambda: in_tensorflow(ops.nt_xent, z, dtype))]
    if others and _route.find_route_error() is None:
        made.append(("native jit", lambda: in_tensorflow(ops.nt_xent, z, dtype, True)))
    if others:
        made.append(("stock graph", lambda: in_tensorflow(stock.nt_xent, z, dtype)))
        made.append(("stock XLA", lambda: in_tensorflow(stock.nt_xent, z, dtype, True)))
    if others and dtype in ("float32", "float64"):
        made.append(("four blocks graph", lambda: in_tensorflow(four_blocks, z, dtype)))
    on_gpu = tf.config.list_physical_devices("GPU")
    if others and dtype == "float32" and importlib.util.find_spec("torch") and not on_gpu:
        made.append(("torch plain", lambda: in_torch(z)))
    return [harness.Alternative(name, prepare) for name, prepare in made]


def projections(pairs: int, dim: int) -> np.ndarray:
    """Z (2N, d) float32, pairs that resemble one another."""
    z = np.random.default_rng(0).normal(size=(2 * pairs, dim)).astype(np.float32)
    z[pairs:] += z[:pairs]
    return z


def measure_memory(started: Callable[[], None], name: str, pairs: int, dim: int, dtype: str) -> None:
    """What `harness.peak_memory` runs in a process of its own."""
    small = {form.name: form for form in forms(projections(8, dim), dtype, True)}[name].prepare()
    small()
    z = projections(pairs, dim)
    call = {form.name: form for form in forms(z, dtype, True)}[name].prepare()
    started()
    call()


def sgemm() -> tuple[Callable[[], Any], float]:
    """A square matrix product and its operations."""
    a = tf.constant(np.random.default_rng(1).normal(size=(SGEMM, SGEMM)).astype(np.float32))
    product = tf.function(lambda: tf.matmul(a, a))
    product()
    return lambda: product().numpy(), 2.0 * SGEMM**3


def measure(pairs: int, dim: int, dtype: str, arguments: argparse.Namespace) -> list[harness.Row]:
    """All rows of one problem."""
    matrix = (2 * pairs) ** 2 * (8 if dtype == "float64" else 4)
    others = matrix * 6 <= arguments.others_gigabytes * 2**30
    z, operations = projections(pairs, dim), 4.0 * (2 * pairs) ** 2 * dim
    product, product_operations = sgemm()
    problem = {"N": pairs, "d": dim, "dtype": dtype}
    rows = harness.compare(
        problem,
        forms(z, dtype, others),
        operations=operations,
        seconds=arguments.seconds,
        tolerance=TOLERANCE[dtype],
        sgemm=product,
        sgemm_operations=product_operations,
        in_a_row=harness.in_a_row(),
    )
    if not others:
        note = f"not run: each (2N)^2 matrix takes {matrix / 2**30:.1f} GiB, and several are alive at once"
        rows.append(harness.Row(problem, "stock graph", note=note))
    for row in rows if arguments.memory else []:
        if row.minimum is not None:
            found = harness.peak_memory(measure_memory, row.name, pairs, dim, dtype)
            row.peak_memory, row.note = (found, row.note) if isinstance(found, int) else (None, found)
    return rows


def versions() -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = {"tensorflow": tf.__version__, "library": _library.read_build_information()}
    found |= {"instruction_set": _library.find_instruction_set(), "threads": _library.count_threads()}
    if importlib.util.find_spec("torch"):
        found["torch"] = importlib.metadata.version("torch")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[64, 256, 1024, 4096], help="N, pairs of views")
    parser.add_argument("--dims", type=int, nargs="+", default=[128], help="d")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(TOLERANCE))
    parser.add_argument("--seconds", type=float, default=3.0, help="to measure each alternative of a problem")
    parser.add_argument("--others-gigabytes", type=float, default=8.0, help="memory that the other forms may need")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too, one process for each row")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / harness.device_name() / "nt_xent.json")
    parser.add_argument("--tf32", action="store_true", help="a GPU may round the stock forms' factors to 11 bits")
    parser.add_argument("--compare", type=Path, help="an older result to set beside this one")
    chosen = parser.parse_args(arguments)
    tf.config.experimental.enable_tensor_float_32_execution(chosen.tf32)
    rows: list[harness.Row] = []
    for dtype in chosen.dtypes:
        for dim in chosen.dims:
            for pairs in chosen.pairs:
                rows += measure(pairs, dim, dtype, chosen)
                harness.store(chosen.out, rows, versions())
    print(harness.text(rows, harness.load(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
