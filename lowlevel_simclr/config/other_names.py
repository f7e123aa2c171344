"""Names that other programs use for our settings. With this list, the error for an unknown name can suggest ours."""

from __future__ import annotations

from collections.abc import Collection

from lowlevel_simclr.config.fields import suggest_nearest

OTHER_NAMES = {
    "amp": "precision",
    "arch": "encoder",
    "architecture": "encoder",
    "augmentation-strength": "jitter-strength",
    "b": "batch-size",
    "backbone": "encoder",
    "batch": "batch-size",
    "bs": "batch-size",
    "color-jitter": "jitter-strength",
    "color-jitter-strength": "jitter-strength",
    "data": "dataset",
    "data-path": "data-dir",
    "dtype": "precision",
    "fp16": "precision",
    "gpus": "devices",
    "grad-accum": "micro-batch",
    "head": "projection-widths",
    "img-size": "image-size",
    "iterations": "steps",
    "jit": "xla",
    "lr": "learning-rate",
    "max-epochs": "epochs",
    "max-steps": "steps",
    "max-time": "budget",
    "minutes": "budget",
    "mixed-precision": "precision",
    "model": "encoder",
    "network": "encoder",
    "num-epochs": "epochs",
    "num-gpus": "devices",
    "num-steps": "steps",
    "opt": "optimizer",
    "optim": "optimizer",
    "out-dim": "projection-widths",
    "output-dir": "out",
    "proj-dim": "projection-widths",
    "projection-dim": "projection-widths",
    "random-seed": "seed",
    "resolution": "image-size",
    "root": "data-dir",
    "save-dir": "out",
    "size": "image-size",
    "t": "temperature",
    "tau": "temperature",
    "temp": "temperature",
    "time": "budget",
    "warmup": "warmup-epochs",
    "wd": "weight-decay",
}


def suggest_name(word: str, known: Collection[str]) -> str:
    """Return " Did you mean X?" for an unknown name, or "" if no known name is similar.

    Args:
        word: the unknown name that was given, a flag ("--lr") or a setting ("lr").
        known: the flags, or the settings, that exist.
    """
    flag = word.startswith("-")
    ours = OTHER_NAMES.get(word.lstrip("-").replace("_", "-").lower())
    if ours is not None:
        name = f"--{ours}" if flag else ours.replace("-", "_")
        if name in known:
            return f" Did you mean {name}?"
    return suggest_nearest(word, known)
