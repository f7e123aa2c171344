"""Times CUDA launchers without TensorFlow: python bench/ops/bench_launchers.py NEW.so [OLD.so] --json FILE.

A launcher is the C function that starts the CUDA kernels of an op. NEW.so is a library of launchers, which
`nvcc -shared` compiles from kernels/*/*.cu. OLD.so is a library of launchers from an older version of this package. If
OLD.so is given, the bench times both libraries on the same GPU, one after the other in each turn. CUDA events before
and after a call measure its time. Each row of the result has the median, the minimum and the maximum of ten calls,
after three warm-up calls. PyTorch allocates the arrays on the GPU. The bench also times a copy and a matrix product on
this GPU. It does not check the results of the kernels, because `tests/kernels/gpu_kernels.py` does that.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from lowlevel_simclr import reference  # noqa: E402
from lowlevel_simclr.config.settings import ViewRecipe  # noqa: E402
from tests.support import lars_launchers, nt_xent_launchers, view_launchers  # noqa: E402

TEMPERATURE, DIM = 0.1, 128
PAIRS, TYPES = (1024, 4096, 16384), ("bfloat16", "float32")
SIZES = ((16384, 32, 32, "bfloat16"), (16384, 32, 32, "float32"), (2048, 96, 96, "float32"), (256, 256, 224, "float32"))
RECIPES = {"default": ViewRecipe(), "blur half": ViewRecipe(blur_probability=0.5)}
DRAWN = 1024  # the number of images with parameters of their own; further images repeat these parameters
# Numbers of weights to update: those of ResNet-50's first convolution, of its 3x3 convolution with 512 channels, and of
# the whole network.
UPDATED = (9408, 2359296, 23500352)
Call = Callable[[], object]
Row = dict[str, Any]


def load_launchers(path: Path) -> ctypes.CDLL:
    """Load a library of launchers and declare the argument types of its functions."""
    library = ctypes.CDLL(str(path.resolve()))
    return lars_launchers.declared(view_launchers.declared(nt_xent_launchers.declared(library)))


def get_pointer(tensor: Any) -> ctypes.c_void_p:
    """Return the address of a PyTorch tensor on the device."""
    return ctypes.c_void_p(tensor.data_ptr())


def raise_failure(why: bytes | None) -> None:
    """Raise RuntimeError with the error message that a launcher returned, if it returned one."""
    if why is not None:
        raise RuntimeError(why.decode())


def time_call(torch: ModuleType, call: Call, repeats: int = 10) -> dict[str, float]:
    """Time a call with CUDA events. Return the median, the minimum and the maximum, in milliseconds."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times)}


def prepare_nt_xent(torch: ModuleType, library: ctypes.CDLL, pairs: int, dtype: str) -> dict[str, Call]:
    """Return two functions without arguments: the forward and the backward pass of NT-Xent, SimCLR's loss.

    Both read the same 2N random rows z (N = `pairs`).
    """
    stream, rows = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), 2 * pairs
    z = torch.randn(rows, DIM, device="cuda").to(getattr(torch, dtype))
    shape = (pairs, DIM, pairs, nt_xent_launchers.CODES[dtype])
    bytes_needed = library.lowlevel_simclr_nt_xent_cuda_workspace_bytes(*shape)
    workspace = torch.empty(bytes_needed, dtype=torch.uint8, device="cuda")
    tau = torch.tensor([TEMPERATURE], dtype=torch.float64, device="cuda")
    loss, normaliser, inverse_norm = (torch.empty(count, device="cuda") for count in (rows, 2 * rows, rows))
    top1, slope = torch.empty(rows, dtype=torch.bool, device="cuda"), torch.empty(1, dtype=torch.float64, device="cuda")
    weights, dz = torch.full((rows,), 1 / rows, device="cuda"), torch.empty_like(z)

    def run_forward() -> None:
        arrays = [get_pointer(each) for each in (workspace, loss, normaliser, inverse_norm, top1)]
        raise_failure(
            library.lowlevel_simclr_nt_xent_cuda_forward(
                stream, *shape, get_pointer(z), get_pointer(tau), None, *arrays
            )
        )

    def run_backward() -> None:
        given = [get_pointer(each) for each in (z, normaliser, inverse_norm, weights, tau)]
        made = [get_pointer(each) for each in (workspace, dz, slope)]
        raise_failure(library.lowlevel_simclr_nt_xent_cuda_backward(stream, *shape, *given, None, *made))

    return {"forward": run_forward, "backward": run_backward}


def prepare_views(
    torch: ModuleType, library: ctypes.CDLL, count: int, side: int, size: int, dtype: str, recipe: ViewRecipe
) -> tuple[Call, int]:
    """Prepare the launcher that makes the views of `count` random images.

    Returns:
        A function without arguments that makes two views of each image, and the smallest number of bytes that the
        function must read and write.
    """
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    shape = (count, side, side, 3, size, view_launchers.PIXELS["uint8"], view_launchers.TYPES[dtype])
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, device="cuda")
    few = min(count, DRAWN)
    drawn = reference.draw_view_params(3, 5, np.arange(few), recipe, side, side)
    fields = []
    for field, kind in zip(drawn, view_launchers.KINDS):
        halves = [np.resize(half, (count, *half.shape[1:])) for half in np.split(np.asarray(field, kind), 2)]
        fields.append(torch.from_numpy(np.concatenate(halves)).cuda())
    pointers = (ctypes.c_void_p * len(fields))(*(field.data_ptr() for field in fields))
    mean, inverse_std = torch.zeros(3, device="cuda"), torch.ones(3, device="cuda")
    bytes_needed = library.lowlevel_simclr_make_views_cuda_workspace_bytes(*shape)
    workspace = torch.empty(max(1, bytes_needed), dtype=torch.uint8, device="cuda")
    views = torch.empty((2 * count, size, size, 3), dtype=getattr(torch, dtype), device="cuda")
    held = (images, fields)  # `call` mentions `held`, which keeps the tensors alive; `pointers` has only addresses

    def call() -> None:
        arrays = [get_pointer(each) for each in (mean, inverse_std, workspace, views)]
        raise_failure(library.lowlevel_simclr_make_views_cuda(stream, *shape, get_pointer(held[0]), pointers, *arrays))

    return call, images.numel() + views.numel() * views.element_size()


def prepare_lars_update(torch: ModuleType, library: ctypes.CDLL, count: int) -> Call:
    """Return a function without arguments that updates `count` random weights in place, with LARS's trust ratio."""
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    weight, gradient, velocity = (torch.randn(count, device="cuda") for _ in range(3))
    scalars = torch.tensor([0.05, 0.9, 1e-4, 1e-3], device="cuda")
    sums = torch.empty(library.lowlevel_simclr_lars_update_cuda_partial_sums(count), dtype=torch.float64, device="cuda")
    arrays = (scalars, weight, gradient, velocity, sums, weight, velocity)

    def call() -> None:
        raise_failure(library.lowlevel_simclr_lars_update_cuda(stream, count, 1, *map(get_pointer, arrays)))

    return call


def time_problems(torch: ModuleType, libraries: dict[str, ctypes.CDLL], turns: int) -> Iterator[Row]:
    """Time every problem. Yield a row for each problem, turn and library.

    A problem is an op with its sizes. In each turn, every library is timed once on it.
    """
    yield from time_nt_xent(torch, libraries, turns)
    yield from time_views(torch, libraries, turns)
    yield from time_lars_update(torch, libraries, turns)


def time_nt_xent(torch: ModuleType, libraries: dict[str, ctypes.CDLL], turns: int) -> Iterator[Row]:
    """Time the forward and the backward pass of NT-Xent. Yield a row for each problem, turn and library."""
    for dtype in TYPES:
        for pairs in PAIRS:
            made = {name: prepare_nt_xent(torch, library, pairs, dtype) for name, library in libraries.items()}
            for turn in range(turns):
                for name, calls in made.items():
                    times = {kind: time_call(torch, call) for kind, call in calls.items()}
                    yield {"what": "nt_xent", "library": name, "turn": turn, "pairs": pairs, "dtype": dtype, **times}


def time_views(torch: ModuleType, libraries: dict[str, ctypes.CDLL], turns: int) -> Iterator[Row]:
    """Time the launcher that makes views. Yield a row for each problem, turn and library."""
    for count, side, size, dtype in SIZES:
        for recipe, choices in RECIPES.items():
            problem = {"count": count, "side": side, "size": size, "dtype": dtype}
            made = {
                name: prepare_views(torch, library, count, side, size, dtype, choices)
                for name, library in libraries.items()
            }
            for turn in range(turns):
                for name, (call, least_bytes) in made.items():
                    times = time_call(torch, call)
                    rate = least_bytes / times["median_ms"] / 1e6
                    about = {"what": "make_views", "library": name, "turn": turn, **problem, "recipe": recipe}
                    yield {**about, "gb_s": rate, **times}


def time_lars_update(torch: ModuleType, libraries: dict[str, ctypes.CDLL], turns: int) -> Iterator[Row]:
    """Time the LARS update of one variable. Yield a row for each problem, turn and library."""
    for count in UPDATED:
        made = {name: prepare_lars_update(torch, library, count) for name, library in libraries.items()}
        for turn in range(turns):
            for name, call in made.items():
                times = time_call(torch, call)
                rate = 28 * count / times["median_ms"] / 1e6
                yield {"what": "lars_update", "library": name, "turn": turn, "count": count, "gb_s": rate, **times}


def measure_ceilings(torch: ModuleType) -> dict[str, float]:
    """Return the rates of a large copy (GB/s, read plus written) and of a large bfloat16 matrix product (TFLOP/s)."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target, a = torch.empty_like(source), torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    copy, product = time_call(torch, lambda: target.copy_(source)), time_call(torch, lambda: a @ a)
    return {
        "copy_gb_s": 2 * source.numel() / copy["median_ms"] / 1e6,
        "gemm_tflop_s": 2 * 8192**3 / product["median_ms"] / 1e9,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, store and print every row. Return the exit code, which is 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("new", type=Path, help="the library of launchers to time")
    parser.add_argument(
        "old", type=Path, nargs="?", help="a library of launchers from an older version, to compare with"
    )
    parser.add_argument("--turns", type=int, default=3, help="how often each library is timed on each problem")
    parser.add_argument("--json", type=Path, help="the file to store the result in")
    chosen = parser.parse_args(arguments)
    import torch  # imported here, so that --help and the tests need no PyTorch

    if not torch.cuda.is_available():
        print("PyTorch finds no GPU. Run this bench on a machine with a GPU.")
        return 2
    libraries = {name: load_launchers(path) for name in ("old", "new") if (path := getattr(chosen, name)) is not None}
    result: dict[str, Any] = {"benchmark": "launchers", "device": torch.cuda.get_device_name()}
    result |= {"date": time.strftime("%Y-%m-%d"), "ceilings": measure_ceilings(torch), "rows": []}
    for row in time_problems(torch, libraries, chosen.turns):
        result["rows"].append(row)
        print(json.dumps(row), flush=True)
        if chosen.json:
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
