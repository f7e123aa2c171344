"""Values for tests of the settings: for every setting, a value that no preset has."""

from __future__ import annotations

import dataclasses

from lowlevel_simclr.config import settings as configuration

SETTINGS = {
    field.name: section for section, kind in configuration.SECTIONS.items() for field in dataclasses.fields(kind)
}


# The name of each setting, and a value that no preset has
OTHER = {
    "crop_area": (0.3, 0.9), "crop_aspect": (0.5, 2.0), "flip_probability": 0.25,
    "jitter_probability": 0.5, "brightness": (0.9, 1.1), "contrast": (0.1, 0.9), "saturation": (0.0, 3.0),
    "hue": (-0.5, 0.5), "brightness_shift": (-0.25, 0.25), "clip": False, "grey_probability": 0.1,
    "blur_probability": 0.5, "blur_sigma": (0.1, 1 / 3), "dataset": "cifar10", "data_dir": "/some where",
    "splits": "none", "labels": "my labels.csv", "split": "./split.csv",
    "stored_side": 64, "memory_limit": 0.5, "cache": "/some cache", "data_on": "host",
    "train_on": "all", "encoder": "resnet50", "stem": "imagenet", "weights": "./f.keras",
    "projection_widths": (2048, 512, 64), "projection_batch_norm": "hidden", "loss_reduction": "google",
    "image_size": 224, "image_sizes": ("10:0.5", "20:0.5"), "evaluation_size": 40, "input_mean": (0.49, 0.48, 0.45),
    "input_std": (0.25, 0.24, 0.26), "temperature": 0.3, "optimizer": "lars", "learning_rate": 1.5,
    "learning_rate_scaling": "linear", "momentum": 0.0, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3,
    "weight_decay": 0.0, "trust_coefficient": 0.02, "warmup_epochs": 0.5, "batch_size": 512,
    "micro_batch": "64", "devices": "cpu:2", "engine": "strategy", "batch_norm": "local", "ghost_batch": 16,
    "epochs": 1000, "steps": 7, "seed": 2**64 - 1, "precision": "bfloat16", "xla": "on", "ops": "stock",
    "deterministic": False, "steps_per_call": 1, "checkpoint_every": 5, "keep_checkpoints": 1,
    "knn_every": 0, "budget": "90s", "pairs_per_second": 123.5,
    "worker_timeout": 5.0,
}  # fmt: skip
