"""Times the loss NT-Xent and its gradient: python -m bench.ops.bench_nt_xent [--pairs 256 4096] [--compare old.json].

NT-Xent is SimCLR's loss. Its input z has 2N rows of d numbers: the outputs of the projection head for two views
(randomly changed versions) of each of N images. The bench compares the native op with three alternatives:

- the formula in TensorFlow's own ops (stock), as a graph and under XLA;
- the formula with the similarities in four blocks, as in the code of the paper's authors, which subtracts a large
  number from the similarity of a view with itself, to exclude it from the sum;
- the formula in PyTorch's ops, if PyTorch is installed.

The rows named `native jit` are the native op in a function that XLA compiles.

For every alternative, GFLOP/s are computed from the 4 (2N)^2 d operations of the native algorithm. The alternatives
that use automatic differentiation compute more: 6 (2N)^2 d operations, and further ones on the matrix of similarities.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import ceiling, harness, versions
from lowlevel_simclr import ops, stock
from lowlevel_simclr.ops import _route

TEMPERATURE = 0.1
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
NtXent = Callable[[tf.Tensor, float], tf.Tensor]  # z (2N, d), temperature -> losses (2N,)


def compute_in_four_blocks(z: tf.Tensor, temperature: float) -> tf.Tensor:
    """Return the losses (2N,) from four blocks of similarities: aa, ab, ba and bb (a: first views, b: second views).

    1e9 is subtracted on the diagonals of aa and bb. This excludes the similarity of a view with itself.
    """
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


def prepare_tensorflow(loss: NtXent, z: np.ndarray, dtype: str, jit: bool = False) -> harness.Call:
    """Return a function without arguments that computes the mean loss (a scalar) and its gradient (2N, d)."""

    @tf.function(jit_compile=jit)
    def step(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(z)
            mean = tf.reduce_mean(loss(z, TEMPERATURE))
        return mean, tape.gradient(mean, z)

    tensor = tf.cast(tf.constant(z), dtype)

    def call() -> list[Any]:
        for _ in range(harness.choose_calls_in_a_row()):
            mean, dz = step(tensor)
        return [mean.numpy(), dz]  # copying the mean from a GPU also waits for dz, which stays on the GPU

    return call


def prepare_torch(z: np.ndarray) -> harness.Call:
    """Return a function without arguments that computes the mean loss and its gradient in PyTorch's ops."""
    import torch  # imported here, because PyTorch is optional

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


def list_alternatives(z: np.ndarray, dtype: str, others: bool) -> list[harness.Alternative]:
    """Return the native op and, if `others` is true, every other alternative that can run here.

    Args:
        z: the projections (2N, d).
        dtype: the type to compute in.
        others: whether the memory is large enough for the alternatives that store the whole matrix of similarities.
    """
    made: list[tuple[str, Callable[[], harness.Call]]] = [("native", lambda: prepare_tensorflow(ops.nt_xent, z, dtype))]
    if others and _route.find_route_error() is None:
        made.append(("native jit", lambda: prepare_tensorflow(ops.nt_xent, z, dtype, True)))
    if others:
        made.append(("stock graph", lambda: prepare_tensorflow(stock.nt_xent, z, dtype)))
        made.append(("stock XLA", lambda: prepare_tensorflow(stock.nt_xent, z, dtype, True)))
    if others and dtype in ("float32", "float64"):
        made.append(("four blocks graph", lambda: prepare_tensorflow(compute_in_four_blocks, z, dtype)))
    on_gpu = tf.config.list_physical_devices("GPU")
    if others and dtype == "float32" and importlib.util.find_spec("torch") and not on_gpu:
        made.append(("torch plain", lambda: prepare_torch(z)))
    return [harness.Alternative(name, prepare) for name, prepare in made]


def draw_projections(pairs: int, dim: int) -> np.ndarray:
    """Return random projections z (2N, d) in float32. The two rows of a pair (i and i + N) are similar."""
    z = np.random.default_rng(0).normal(size=(2 * pairs, dim)).astype(np.float32)
    z[pairs:] += z[:pairs]
    return z


def run_small_then_large(started: Callable[[], None], name: str, pairs: int, dim: int, dtype: str) -> None:
    """Run one alternative on a small problem, call `started`, and run the alternative on a large problem.

    `measure_peak_growth` counts only the memory that is used after `started`. The small problem loads all libraries, so
    their memory is not counted.
    """
    small = {form.name: form for form in list_alternatives(draw_projections(8, dim), dtype, True)}[name].prepare()
    small()
    z = draw_projections(pairs, dim)
    call = {form.name: form for form in list_alternatives(z, dtype, True)}[name].prepare()
    started()
    call()


def measure(pairs: int, dim: int, dtype: str, arguments: argparse.Namespace) -> list[harness.Row]:
    """Time every alternative on one problem, and return one row for each alternative."""
    matrix = (2 * pairs) ** 2 * (8 if dtype == "float64" else 4)
    others = matrix * 6 <= arguments.others_gigabytes * 2**30
    z, operations = draw_projections(pairs, dim), 4.0 * (2 * pairs) ** 2 * dim
    problem = {"N": pairs, "d": dim, "dtype": dtype}
    rows = harness.time_alternatives(
        problem,
        list_alternatives(z, dtype, others),
        operations=operations,
        seconds=arguments.seconds,
        tolerance=TOLERANCE[dtype],
        products=ceiling.make_products(),
        in_a_row=harness.choose_calls_in_a_row(),
    )
    if not others:
        note = f"not run: it stores several (2N)^2 matrices at the same time, each of {matrix / 2**30:.1f} GiB"
        rows.append(harness.Row(problem, "stock graph", note=note))
    for row in rows if arguments.memory else []:
        if row.minimum is not None:
            found = harness.measure_peak_growth(run_small_then_large, row.name, pairs, dim, dtype)
            row.peak_memory, row.note = (found, row.note) if isinstance(found, int) else (None, found)
    return rows


def read_versions() -> dict[str, Any]:
    """Return the versions that the result records, including PyTorch's if it is installed."""
    return versions.read_native_versions() | versions.read_package_versions(("torch",))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every problem, store the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[64, 256, 1024, 4096], help="N, the number of pairs")
    parser.add_argument("--dims", type=int, nargs="+", default=[128], help="d, the length of a projection z")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(TOLERANCE))
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each alternative of a problem")
    parser.add_argument(
        "--others-gigabytes", type=float, default=8.0, help="if the alternatives need more GiB, only the native op runs"
    )
    parser.add_argument(
        "--memory", action="store_true", help="also measure the peak memory of each alternative in a new process"
    )
    parser.add_argument("--out", type=Path, default=harness.choose_result_path("nt_xent.json"))
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="allow TF32, in which a GPU rounds the factors of products in stock ops to 11 bits",
    )
    parser.add_argument("--compare", type=Path, help="an older result to compare with")
    chosen = parser.parse_args(arguments)
    tf.config.experimental.enable_tensor_float_32_execution(chosen.tf32)
    rows: list[harness.Row] = []
    for dtype in chosen.dtypes:
        for dim in chosen.dims:
            for pairs in chosen.pairs:
                rows += measure(pairs, dim, dtype, chosen)
                harness.store_rows(chosen.out, rows, read_versions())
    print(harness.format_rows(rows, harness.read_rows(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
