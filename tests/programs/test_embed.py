"""Tests the program `embed`, which computes the outputs of a trained encoder for a user's image files.

It writes the encoder's output h or the projection z for each image. It can also find similar images.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr import embed
from lowlevel_simclr.api import embedding
from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.data import catalog, image_file
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import export, represent
from lowlevel_simclr.evaluation.embedding import job, parts, reading
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras

ROOT = Path(__file__).parents[2]
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


SMALL = encoder.Basic((1, 1, 1), 16, projects=False)  # a third of the layers of ResNet-20, so it is built faster


@pytest.fixture(autouse=True)
def small_encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `embed` build the encoder SMALL, as in the fixture `run`. Tests with `scenes` use the whole ResNet-20."""
    if "scenes" not in request.fixturenames:
        monkeypatch.setitem(encoder.BASIC, "resnet20", SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the folder of a run with an untrained ResNet-20, for images of 8x8 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(encoder.BASIC, "resnet20", SMALL)
        return write_run(tmp_path_factory.mktemp("runs") / "run", 8, 12)


def write_run(out: Path, image_size: int, side: int) -> Path:
    """Write the folder of a run with an untrained encoder, whose data set has images of `side` x `side` pixels."""
    written = identity.replace(
        settings.Config(), image_size=image_size, projection_widths=(16, 8), input_mean=MEAN, input_std=STD
    )
    f = f_of_run(image_size)
    arrays = {name: variable.numpy() for name, variable in keras.name_variables("encoder", f).items()}
    arrays |= {name: variable.numpy() for name, variable in keras.name_variables("projection", g_of_run()).items()}
    checkpoint.save(out / "checkpoints", 2, arrays, {}, keep=1)
    (out / "config.json").write_text(json.dumps(identity.to_dict(written)))
    (out / "data.json").write_text(json.dumps({"shape": [side, side, 3]}))
    return out


def f_of_run(image_size: int = 8) -> encoder.tf.keras.Model:
    return encoder.build_encoder("resnet20", "cifar", image_size, seed=5)


def g_of_run() -> encoder.tf.keras.Model:
    return projection.build_projection_head(64, (16, 8), seed=5)


def pictures(folder: Path, count: int = 3, size: tuple[int, int] = (12, 12)) -> np.ndarray:
    """Write PNG files b0.png, b1.png, ... and return their pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"b{place}.png")
    return pixels


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_h_of_files_and_folders_is_the_evaluations(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, out = pictures(tmp_path / "folder"), tmp_path / "new" / "h.npz"
    tall = pixels[0, :, :9]
    Image.fromarray(tall).save(tmp_path / "tall.bmp")
    (tmp_path / "folder" / "notes.txt").write_text("no image, by its name")
    assert embed.main([str(run), str(tmp_path / "tall.bmp"), str(tmp_path / "folder"), "--out", str(out)]) == 0
    found = np.load(out, allow_pickle=False)
    names = [tmp_path / "tall.bmp", *(tmp_path / "folder" / f"b{place}.png" for place in range(3))]
    assert found["paths"].tolist() == [name.as_posix() for name in names]
    f = f_of_run()
    assert_near(found["h"][1:], represent.compute_h(f, pixels, PixelScaling(MEAN, STD)))
    stored = image_file.read_pixels((tmp_path / "tall.bmp").read_bytes(), image_file.Shape(12, 12, 3))
    assert_near(found["h"][:1], represent.compute_h(f, stored[None], PixelScaling(MEAN, STD)))
    assert_near(found["h"][1:], export.add_preprocessing(f, PixelScaling(MEAN, STD)).predict(pixels, verbose=0))
    assert "Wrote the representation (h) of 4 images, 64 numbers each, to" in capsys.readouterr().out


@pytest.mark.parametrize("sizes", [((12, 20), (18, 10), (14, 14)), ((12, 20), (12, 20), (12, 20))], ids=["any", "wide"])
def test_an_image_of_the_runs_folder_has_the_h_of_its_evaluation(
    run: Path, tmp_path: Path, sizes: tuple[tuple[int, int], ...]
) -> None:
    """Test images that are not square. `embed` must give the same h as the evaluation of the run.

    If the images differ in size, both must cut a square from each image. If all images have one size, both must use the
    whole images.
    """
    for place, size in enumerate((*sizes, sizes[0])):  # three for training, one for testing
        folder = tmp_path / "images" / ("train" if place < 3 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures(tmp_path / "pixels", 1, size)[0]).save(folder / f"{place}.png")
    images = catalog.load_dataset("folder:images", str(tmp_path), largest_side=10)
    own = tmp_path / "run"
    shutil.copytree(run, own)
    (own / "data.json").write_text(json.dumps(catalog.describe_dataset(images)))
    assert embed.main([str(own), str(tmp_path / "images" / "train"), "--out", str(tmp_path / "h.npz")]) == 0
    h = represent.compute_h(f_of_run(), images.train.images, PixelScaling(MEAN, STD))
    assert_near(np.load(tmp_path / "h.npz")["h"], h)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({}, "has no data.json with the shape of its images. Run its training command again"),
        ({"shape": [12, 12, 4]}, "images with 4 channels, but image files have 1 or 3. Load its encoder.keras"),
    ],
)
def test_a_run_whose_images_no_file_is_like_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: dict[str, list[int]], sentence: str
) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    (own / "data.json").write_text(json.dumps(said))
    pictures(tmp_path / "folder")
    assert embed.main([str(own), str(tmp_path / "folder"), "--out", str(tmp_path / "h.npz")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_z_is_the_projection_of_h(run: Path, tmp_path: Path) -> None:
    pixels, out = pictures(tmp_path / "folder"), tmp_path / "z.npz"
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(out), "--output", "z"]) == 0
    h = represent.compute_h(f_of_run(), pixels, PixelScaling(MEAN, STD))
    assert_near(np.load(out)["z"], g_of_run()(h).numpy())


def test_many_images_go_in_batches(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, out = pictures(tmp_path / "folder", 5), tmp_path / "h.npz"
    monkeypatch.setattr(reading, "BATCH_SIZE", 2)
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(out)]) == 0
    assert_near(np.load(out)["h"], represent.compute_h(f_of_run(), pixels, PixelScaling(MEAN, STD)))


def test_every_kind_of_image_is_read_as_colour(run: Path, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    (tmp_path / "folder").mkdir()
    Image.fromarray(grey).save(tmp_path / "folder" / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "folder" / "deep.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "folder" / "palette.png")
    Image.fromarray(np.dstack([colour, np.full_like(grey, 255)])).save(tmp_path / "folder" / "alpha.png")
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(tmp_path / "h.npz")]) == 0
    expected = represent.compute_h(f_of_run(), colour[None], PixelScaling(MEAN, STD))
    assert_near(np.load(tmp_path / "h.npz")["h"], np.repeat(expected, 4, axis=0))


def test_bad_files_are_named_and_the_others_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, out = pictures(tmp_path / "folder"), tmp_path / "h.npz"
    (tmp_path / "folder" / "a.png").write_bytes(b"")
    whole = (tmp_path / "folder" / "b0.png").read_bytes()
    (tmp_path / "folder" / "b1.png").write_bytes(whole[:60])
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.err.splitlines()] == [
        f"Skipped {tmp_path / 'folder' / name}" for name in ("a.png", "b1.png")
    ]
    assert said.out.endswith("\n2 images could not be read, see above.\n")
    assert_near(np.load(out)["h"], represent.compute_h(f_of_run(), pixels[[0, 2]], PixelScaling(MEAN, STD)))


def test_a_bad_file_with_an_odd_name_is_named_in_one_printable_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "folder")
    (tmp_path / "folder" / "a\x1b]0;PWNED\x07\nerror: forged.png").write_bytes(b"")
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(tmp_path / "h\x1b.npz")]) == 0
    said = capsys.readouterr()
    assert said.err == f"Skipped {tmp_path / 'folder'}/a\\x1b]0;PWNED\\x07\\nerror: forged.png: empty file\n"
    assert said.out.endswith("h\\x1b.npz.\n1 image could not be read, see above.\n")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ("gone.png", "does not exist. Give image files"),
        ("empty", "There is no image in"),
        ("bad.png", "No image could be read. First problem: "),
    ],
)
def test_nothing_to_embed_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_text("text")
    assert embed.main([str(run), str(tmp_path / images), "--out", str(tmp_path / "h.npz")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "empty"]


def test_a_folder_without_a_run_or_a_place_to_write_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "folder")
    assert embed.main([str(tmp_path), str(tmp_path / "folder"), "--out", str(tmp_path / "h.npz")]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(tmp_path / "file" / "h.npz")]) == 1
    assert "Cannot write" in capsys.readouterr().err


def test_csv_and_parquet_hold_what_npz_holds(run: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures(tmp_path / "folder" / "cat", 3)
    pictures(tmp_path / "folder" / "dog", 2)
    (tmp_path / "folder" / "cat" / "b1.png").write_bytes(b"")
    for ending in ("npz", "csv", "parquet"):
        assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(tmp_path / f"h.{ending}")]) == 0
    expected = np.load(tmp_path / "h.npz", allow_pickle=False)
    assert expected["labels"].tolist() == ["cat", "cat", "dog", "dog"] and expected["h"].shape == (4, 64)
    header, *lines = csv.reader((tmp_path / "h.csv").read_text().splitlines())
    assert header == ["path", "label", *(f"h{place}" for place in range(64))]
    found = parquet.read_table(tmp_path / "h.parquet").to_pydict()
    assert [line[0] for line in lines] == found["path"] == expected["paths"].tolist()
    assert [line[1] for line in lines] == found["label"] == expected["labels"].tolist()
    for rows in (np.array([line[2:] for line in lines], np.float32), np.array(found["h"], np.float32)):
        np.testing.assert_array_equal(rows, expected["h"])


@pytest.mark.parametrize(
    "ending", ["npz", *(pytest.param(each, marks=pytest.mark.slow) for each in ("csv", "parquet"))]
)
def test_a_command_that_was_stopped_continues_and_writes_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    pictures(tmp_path / "folder", 10)
    (tmp_path / "folder" / "b4.png").write_bytes(b"")
    monkeypatch.setattr(parts, "PART", 3)
    monkeypatch.setattr(reading, "BATCH_SIZE", 2)
    computed, compute, stop_at = [], job.compute_part, 3

    def compute_or_stop(*given: Any) -> reading.Part:
        if len(computed) == stop_at:
            raise KeyboardInterrupt
        computed.append(compute(*given))
        return computed[-1]

    monkeypatch.setattr(job, "compute_part", compute_or_stop)
    command = [str(run), str(tmp_path / "folder"), "--out", str(tmp_path / f"h.{ending}")]
    assert embed.main(command) == 128 + 2 and not (tmp_path / f"h.{ending}").exists()
    stop_at, computed[:] = 4, computed[:0]
    assert embed.main(command) == 0 and len(computed) == 1
    stopped = (tmp_path / f"h.{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", f"h.{ending}"]
    computed.clear()
    assert embed.main(command) == 0 and len(computed) == 4
    assert (tmp_path / f"h.{ending}").read_bytes() == stopped


@pytest.mark.slow
def test_a_killed_command_leaves_no_half_file_and_continues(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    """Kill the program at many moments, and start it again. At last, the file must be the same as without kills."""
    pictures(tmp_path / "folder", 9000, (8, 8))
    out, whole = tmp_path / "h.npz", tmp_path / "whole.npz"
    start = [sys.executable, "-m", "lowlevel_simclr.embed", str(scenes[0]), str(tmp_path / "folder"), "--out"]
    subprocess.run([*start, str(whole)], cwd=ROOT, check=True, capture_output=True)
    kept = 0
    for _ in range(20):
        program = subprocess.Popen([*start, str(out)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        folder = tmp_path / "h.npz.parts"
        while program.poll() is None and len(list(folder.glob("part-??????.npz"))) <= kept:
            time.sleep(0.01)
        program.kill()
        program.communicate()
        kept = len(list(folder.glob("part-??????.npz")))
        if out.exists():
            break
    assert out.read_bytes() == whole.read_bytes()


def test_another_file_or_another_output_starts_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "folder")
    command = [str(run), str(tmp_path / "folder"), "--out", str(tmp_path / "h.npz")]

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    for change in (lambda: None, lambda: pictures(tmp_path / "folder", 4), lambda: command.extend(["--output", "z"])):
        change()
        with monkeypatch.context() as patch:
            patch.setattr(embedding, "write_table", stop)
            assert embed.main(command) == 128 + 2
    said = capsys.readouterr().out
    assert said.count("are of other images or settings, and are replaced.") == 2


def test_an_ending_without_a_format_is_refused_before_anything_is_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed.main([str(run), str(tmp_path / "gone"), "--out", str(tmp_path / "h.txt")]) == 1
    assert "h.txt names no format. Use a name that ends in .npz, .csv, .parquet." in capsys.readouterr().err


@pytest.mark.parametrize("threshold", ["0", "1.5", "nan", "much"])
def test_a_threshold_is_above_0_and_at_most_1(capsys: pytest.CaptureFixture[str], threshold: str) -> None:
    with pytest.raises(SystemExit):
        embed.main(["run", "a.png", "--out", "h.npz", "--duplicates", threshold])
    assert "argument --duplicates: " in capsys.readouterr().err


# Similar images

COPIES = {("03-again.jpg", "03.png"), ("07-cut.png", "07.png"), ("11-copy\x1b.png", "11.png")}


def draw_scene(seed: int) -> Image.Image:
    """Return a smooth random picture of 64 x 48 pixels."""
    random, pixels = np.random.default_rng(seed), np.full((48, 64, 3), 128.0)
    for points, amplitude in ((3, 60), (8, 40), (16, 15)):
        grid = random.normal(0, amplitude, (points, points, 3)).astype(np.float32)
        for channel in range(3):
            wave = Image.fromarray(grid[..., channel]).resize((64, 48), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(wave)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a run, and a folder of 40 pictures and three copies: a JPEG, one without its border, and an exact copy."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "folder").mkdir()
    for number in range(40):
        draw_scene(number).save(root / "folder" / f"{number:02d}.png")
    draw_scene(3).save(root / "folder" / "03-again.jpg", quality=85)
    draw_scene(7).crop((1, 1, 63, 47)).save(root / "folder" / "07-cut.png")
    shutil.copy(root / "folder" / "11.png", root / "folder" / "11-copy\x1b.png")
    return write_run(root / "run", 16, 32), root / "folder"


def find_threshold(out: Path) -> str:
    """Return a threshold: each copy is more similar to its original than this, and all other pairs are less similar.

    An untrained encoder gives similar h for all images. So the threshold is close to 1.
    """
    with np.load(out) as found:
        names, h = [Path(name).name for name in found["paths"]], found["h"].astype(np.float64)
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    pairs = {(names[i], names[j]): float(u[i] @ u[j]) for i, j in itertools.combinations(range(len(names)), 2)}
    copies, others = min(pairs[pair] for pair in COPIES), max(pairs[pair] for pair in set(pairs) - COPIES)
    assert copies - others > 1e-5  # rounding to float32 changes less than 1e-6
    return f"{(copies + others) / 2:.6f}"


def test_planted_copies_are_found_and_no_other_pair(
    scenes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = scenes
    out = tmp_path / "h.npz"
    assert embed.main([str(run), str(folder), "--out", str(out)]) == 0
    threshold = find_threshold(out)
    assert embed.main([str(run), str(folder), "--out", str(out), "--duplicates", threshold]) == 0
    header, *rows = csv.reader((tmp_path / "h-duplicates.csv").read_text().splitlines())
    assert header == ["first", "second", "similarity"]
    assert {tuple(Path(name).name for name in row[:2]) for row in rows} == COPIES and len(rows) == len(COPIES)
    assert rows[0][0].endswith("11-copy\x1b.png") and float(rows[0][2]) == pytest.approx(1, abs=1e-6)
    said = capsys.readouterr().out
    assert f"Found 3 pairs with a cosine similarity of h of at least {float(threshold)}, written to" in said
    assert "For comparison: of random pairs, half are above " in said
    assert "Drew 3 pairs, evenly spread from the most to the least similar" in said and "\x1b" not in said
    assert {"h-duplicates.png", "h-duplicates.svg"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "h.npz.parts").exists()
    assert (
        embed.main([str(run), str(folder / "00.png"), str(folder / "01.png"), "--out", str(out), "--duplicates", "1"])
        == 0
    )
    assert (tmp_path / "h-duplicates.csv").read_text() == "first,second,similarity\n"
    assert not (tmp_path / "h-duplicates.png").exists()


def test_neighbours_of_photographs_are_printed_and_drawn(
    scenes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = scenes
    draw_scene(5).save(tmp_path / "photo.jpg", quality=80)
    (tmp_path / "bad.png").write_bytes(b"")
    photos = [str(tmp_path / "photo.jpg"), str(tmp_path / "bad.png"), str(folder / "11.png")]
    assert embed.main([str(run), str(folder), "--out", str(tmp_path / "h.csv"), "--neighbours", *photos]) == 0
    said = capsys.readouterr()
    blocks = said.out.split("Nearest to ")[1:]
    assert [block.splitlines()[0] for block in blocks] == [
        f"{photo} (cosine similarity of h):" for photo in (photos[0], photos[2])
    ]
    lines = [[line.split(maxsplit=1) for line in block.splitlines()[1:6]] for block in blocks]
    assert lines[0][0][1] == str(folder / "05.png") and float(lines[0][0][0]) > 0.99
    assert lines[1][0] == ["1.0000", str(folder / "11-copy") + "\\x1b.png"]  # a neighbour is never the image itself
    assert all(float(one[0]) >= float(two[0]) for rows in lines for one, two in zip(rows, rows[1:]))
    assert f"Skipped {tmp_path / 'bad.png'}: empty file" in said.err
    assert f"Drew 2 photographs with their neighbours: {tmp_path / 'h-neighbours.png'} and .svg." in said.out
    assert (tmp_path / "h-neighbours.png").exists() and (tmp_path / "h-neighbours.svg").exists()


def test_a_picture_that_cannot_be_drawn_fails_nothing(
    scenes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = scenes

    def fail(*given: Any, **named: Any) -> None:
        raise ValueError("no font")

    monkeypatch.setattr("lowlevel_simclr.evaluation.embedding.pictures.draw_tiles", fail)
    similar = ["--duplicates", "0.99", "--neighbours", str(folder / "11.png")]
    images = [str(folder / "11.png"), str(folder / "11-copy\x1b.png")]
    assert embed.main([str(run), *images, "--out", str(tmp_path / "h.npz"), *similar]) == 0
    said = capsys.readouterr()
    assert said.err.count("could not be drawn (ValueError: no font)") == 2 and "Drew" not in said.out
    assert len((tmp_path / "h-duplicates.csv").read_text().splitlines()) == 2


def test_photographs_that_are_not_there_are_refused_before_the_work(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "folder")
    command = [str(run), str(tmp_path / "folder"), "--out", str(tmp_path / "h.npz"), "--neighbours"]
    assert embed.main([*command, str(tmp_path / "gone.png")]) == 1
    assert "gone.png does not exist" in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"")
    assert embed.main([*command, str(tmp_path / "bad.png")]) == 1
    assert "No image of --neighbours could be read. First problem:" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "folder"]


def test_images_in_an_array_have_the_h_of_their_pixels(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "images.npz", x_train=pixels[:15], x_test=pixels[15:])
    assert embed.main([str(run), f"npz:{tmp_path / 'images.npz'}", "--out", str(tmp_path / "h.npz")]) == 0
    with np.load(tmp_path / "h.npz") as found:
        assert_near(found["h"], represent.compute_h(f_of_run(), pixels, PixelScaling(MEAN, STD)))
        assert set(found) == {"h", "paths"}
