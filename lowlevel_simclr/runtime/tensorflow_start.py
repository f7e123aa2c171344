"""Starts TensorFlow in a program, quietly unless there is a problem that the user can solve."""

from __future__ import annotations

import os
import sys

from lowlevel_simclr.runtime import gpu_problem, start_refusals
from lowlevel_simclr.runtime.start_up_lines import hide_start_up_lines


def start_tensorflow() -> None:
    """Import TensorFlow and look for GPUs, without TensorFlow's start-up lines.

    Only this package's own programs call this function. In other programs that import the package, standard error is
    not changed. If the machine has an NVIDIA GPU and TensorFlow sees none, a line on standard error says why.

    Raises:
        StartError: if TensorFlow or Keras cannot start here.
    """
    if "tensorflow" in sys.modules:  # too late to hide anything
        return
    start_refusals.refuse_other_backend()
    start_refusals.refuse_small_address_space()
    # Pictures become files, whatever MPLBACKEND is. Keras 3 imports Matplotlib, which refuses an unknown backend.
    os.environ["MPLBACKEND"] = "agg"
    with hide_start_up_lines():
        try:
            import tensorflow as tf
        except ImportError as error:
            raise start_refusals.StartError(
                f"TensorFlow cannot be loaded ({' '.join(str(error).split())}). Install it again, and check that this "
                "process has enough memory."
            ) from error
        gpus = tf.config.list_physical_devices("GPU")
    if not gpus and gpu_problem.has_nvidia_gpu():
        built = tf.test.is_built_with_cuda()
        lines = gpu_problem.ask_for_reason() if built else ""
        print(f"warning: {gpu_problem.explain(lines, built)}", file=sys.stderr, flush=True)
