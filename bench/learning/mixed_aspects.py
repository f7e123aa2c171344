"""Compares training on whole pictures and on squares cut from them: python -m bench.learning.mixed_aspects --seeds 0.

An aspect is height divided by width. If a folder has pictures with several aspects, earlier versions of this package
cut all of them to squares, before they drew any view (random crop). Today views are drawn from the whole picture. The
program measures what this changes: the share of the pixels that the views show during training, and the accuracy of a
k-nearest-neighbour classifier (k-NN). To get the pictures, it cuts the images of a data set, which are square, at
random places to the aspects of photographs.

For each seed, the program trains twice with the same settings: once on the whole pictures, and once on the squares. It
evaluates both encoders on the squares in the middle of the pictures. If a training is finished already, the program
only reads its results. It stores all results in bench/results/<device>/mixed_aspects.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import hardware, harness
from lowlevel_simclr import reference
from lowlevel_simclr.config.presets import PRESETS
from lowlevel_simclr.data import catalog

ASPECTS = ((3, 4), (4, 3), (2, 3), (3, 2), (9, 16), (16, 9), (1, 1))  # height : width of the pictures
WATCHED = 100  # the number of pictures whose pixels are counted


def write_pictures(root: Path, dataset: str, data_dir: str | None, train: int, test: int) -> Path:
    """Write labelled pictures of mixed aspects as PNG, unless the folder exists. Return the folder."""
    if root.exists():
        return root
    images, random = catalog.load_dataset(dataset, data_dir, seed=5), np.random.default_rng(5)
    for name, split, count in (("train", images.train, train), ("test", images.test, test)):
        for number, row in enumerate(random.permutation(len(split.labels))[:count]):
            image, label = split.images[row], split.labels[row]
            aspect = np.array(ASPECTS[random.integers(len(ASPECTS))])
            height, width = np.rint(len(image) * aspect / aspect.max()).astype(int).tolist()
            y, x = random.integers(0, [len(image) - height + 1, len(image) - width + 1]).tolist()
            path = root / name / images.classes[label] / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[y : y + height, x : x + width]).save(path)
    return root


def write_squares(root: Path, squares: Path) -> Path:
    """Cut the pictures of a folder to squares as older versions did, and write them unless their folder exists."""
    if squares.exists():
        return squares
    known = {**catalog.load_dataset(f"folder:{root}").record}
    del known["frames"]
    images = catalog.load_dataset(f"folder:{root}", before=known)
    for split, name in ((images.train, "train"), (images.test, "test")):
        paths = sorted(path.relative_to(root) for path in (root / name).rglob("*.png"))
        for path, pixels in zip(paths, split.images, strict=True):
            (squares / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(squares / path)
    return squares


def read_sizes(paths: Sequence[Path]) -> np.ndarray:
    """Return the height and width of each picture, (n, 2)."""
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size[::-1])
    return np.array(sizes)


def count_shown(root: Path, seed: int, epochs: int, recipe: Any, cut: bool) -> float:
    """Return the share of a picture's pixels that at least one view of a run shows, as the mean over WATCHED pictures.

    Args:
        root: the folder of whole pictures.
        seed: the seed of the run.
        epochs: how often the run uses each picture.
        recipe: the settings of the views.
        cut: whether the pictures are cut to squares first.
    """
    paths = sorted((root / "train").rglob("*.png"))[:WATCHED]
    sizes = read_sizes(paths)
    frames = np.repeat(sizes.min(axis=1, keepdims=True), 2, axis=1) if cut else sizes
    shown = [np.zeros(size, bool) for size in sizes]
    height, width = sizes.max(axis=0).tolist()
    for epoch in range(epochs):
        drawn = reference.draw_view_params(seed, epoch, np.arange(len(paths)), recipe, height, width, frames)
        for row, box in enumerate(drawn.box):
            place = row % len(paths)
            y, x = box[:2] + (sizes[place] - frames[place]) // 2
            shown[place][y : y + box[2], x : x + box[3]] = True
    return float(np.mean([each.mean() for each in shown]))


def train_or_read(preset: str, root: Path, folder: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Train on a folder of pictures, unless this training is finished already. Return the accuracies."""
    if not (folder / "evaluation.json").exists():
        command = [sys.executable, "-m", "lowlevel_simclr.train", "--preset", preset, "--dataset", f"folder:{root}"]
        command += ["--seed", str(seed), "--epochs", str(epochs), "--knn-every", "0", "--out", str(folder)]
        subprocess.run(command, check=True)
    found = json.loads((folder / "evaluation.json").read_text())
    record = json.loads((folder / "data.json").read_text())
    noted = {name: found[name] for name in found if name.startswith(("knn", "linear"))}
    return {**noted, "shape": record["shape"], "frames": record.get("frames")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the pictures, train on the whole and on the cut ones with every seed, and store all results in one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="shapes", help="square images, see the train command")
    parser.add_argument("--data-dir", help="see the train command")
    parser.add_argument("--preset", default="shapes", help="the settings of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--train", type=int, default=5000, help="pictures to train on")
    parser.add_argument("--test", type=int, default=1000, help="pictures to test with")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--runs", type=Path, default=Path("runs/mixed-aspects"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    source = chosen.dataset, chosen.data_dir, chosen.train, chosen.test
    whole = write_pictures(chosen.runs / "pictures", *source)
    folders = {"whole": whole, "squares": write_squares(whole, chosen.runs / "squares")}
    recipe, rows = PRESETS[chosen.preset]().views, []
    for seed in chosen.seeds:
        for name, root in folders.items():
            found = train_or_read(chosen.preset, root, chosen.runs / f"{name}-{seed}", seed, chosen.epochs)
            shown = count_shown(whole, seed, chosen.epochs, recipe, cut=name == "squares")
            rows.append({"pictures": name, "seed": seed, "pixels_shown": shown, **found})
            print(json.dumps(rows[-1]), flush=True)
    path = chosen.json or harness.choose_result_path("mixed_aspects.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    given = [str(each) for each in (arguments if arguments is not None else sys.argv[1:])]
    stored = {
        "benchmark": "mixed_aspects",
        "command": shlex.join(["python", "-m", "bench.learning.mixed_aspects", *given]),
        "device": hardware.name_results_folder(),
        "dataset": chosen.dataset,
        "train": chosen.train,
        "test": chosen.test,
        "epochs": chosen.epochs,
        "preset": chosen.preset,
    }
    path.write_text(json.dumps({**stored, "ways": rows}, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
