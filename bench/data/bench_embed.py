"""Times the program `embed` and its encoder alone: python -m bench.data.bench_embed [--files 60000].

`embed` computes h, the output of the encoder, for all image files in a folder. It finds the files, decodes them,
computes h and writes one file. For comparison, the encoder alone computes h of the same number of images in memory, in
batches of the same size. Half of these batches are timed before `embed` and half after it. So other work on the machine
slows both measurements alike. The image files are PNG images of CIFAR's size, and most of them are hard links to a few
files. The encoder was not trained, because its weights do not change the time.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import hardware, harness, versions
from bench.data.many_files import write_files
from lowlevel_simclr.api.embedding import EmbedOptions, embed_into_file
from lowlevel_simclr.api.networks import make_run_embedder
from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.evaluation.embedding.reading import BATCH_SIZE
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras

WIDTHS = (16, 8)  # widths of the projection head; `embed` does not use the head here


def write_run(folder: Path, name: str, side: int) -> None:
    """Write the folder of a run whose encoder was not trained."""
    written = identity.replace(settings.Config(), encoder=name, image_size=side, projection_widths=WIDTHS)
    f = encoder.build_encoder(name, written.model.stem, side)
    g = projection.build_projection_head(f.output_shape[-1], WIDTHS)
    variables = {**keras.name_variables("encoder", f), **keras.name_variables("projection", g)}
    arrays = {key: variable.numpy() for key, variable in variables.items()}
    checkpoint.save(folder / "checkpoints", 1, arrays, {}, keep=1)
    (folder / "config.json").write_text(json.dumps(identity.to_dict(written)), encoding="utf-8")
    (folder / "data.json").write_text(json.dumps({"shape": [side, side, 3]}), encoding="utf-8")


def time_encoder(run: Path, side: int, batches: int) -> dict[str, float]:
    """Return the times of the encoder alone. The first batch, which includes the compilation, is not timed."""
    embed = make_run_embedder(run, 3, "h").embed
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, side, side, 3), np.uint8)
    embed(images)
    wall, used = time.perf_counter(), time.process_time()
    for _ in range(batches):
        embed(images)
    return {"wall seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - used}


def time_program(run: Path, images: Path, out: Path) -> dict[str, float]:
    """Return the times of `embed` from its start to its end. They include the compilation."""
    wall, used = time.perf_counter(), time.process_time()
    embed_into_file(EmbedOptions(run, [images], out))
    return {"wall seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - used}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--side", type=int, default=32, help="pixels (default: 32)")
    parser.add_argument("--encoder", default="resnet18", help="(default: resnet18)")
    parser.add_argument("--format", choices=("npz", "csv", "parquet"), default="parquet", help="(default: parquet)")
    parser.add_argument("--work", type=Path, help="a folder on the disk to use (default: the temporary one)")
    parser.add_argument("--out", type=Path, help="result file (default: embed.json in the folder of this device)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.work) as temporary:
        root = Path(temporary)
        write_files(root, chosen.files, chosen.side)
        write_run(root / "run", chosen.encoder, chosen.side)
        batches = -(-chosen.files // BATCH_SIZE)
        halves = [time_encoder(root / "run", chosen.side, batches // 2)]
        program = time_program(root / "run", root / "data", root / f"h.{chosen.format}")
        halves.append(time_encoder(root / "run", chosen.side, batches - batches // 2))
    alone = {name: halves[0][name] + halves[1][name] for name in program}
    result = {
        "problem": {name: getattr(chosen, name) for name in ("files", "side", "encoder", "format")},
        "embed": program,
        "encoder alone": alone,
        "embed / encoder alone": {name: program[name] / alone[name] for name in program},
    }
    heading = {"device": hardware.name_training_device(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    path = chosen.out or harness.choose_result_path("embed.json")
    harness.write_result(
        path,
        {**result, **heading, "versions": versions.read_package_versions(["tensorflow", "numpy", "pillow", "pyarrow"])},
    )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
