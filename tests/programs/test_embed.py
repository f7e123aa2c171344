"""Tests of python -m lowlevel_simclr.embed: it writes h and z of image files, and names unreadable files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr import embed
from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.data import catalog, image_file
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import embed_files, export, represent
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of resnet20 on views of 8 pixels, made without training."""
    out = tmp_path_factory.mktemp("runs") / "run"
    written = identity.replace(
        settings.Config(), image_size=8, projection_widths=(16, 8), input_mean=MEAN, input_std=STD
    )
    arrays = {name: variable.numpy() for name, variable in keras.name_variables("encoder", f_of_run()).items()}
    arrays |= {name: variable.numpy() for name, variable in keras.name_variables("projection", g_of_run()).items()}
    checkpoint.save(out / "checkpoints", 2, arrays, {}, keep=1)
    (out / "config.json").write_text(json.dumps(identity.to_dict(written)))
    (out / "data.json").write_text(json.dumps({"shape": [12, 12, 3]}))
    return out


def f_of_run() -> encoder.tf.keras.Model:
    return encoder.build_encoder("resnet20", "cifar", 8, seed=5)


def g_of_run() -> encoder.tf.keras.Model:
    return projection.build_projection_head(64, (16, 8), seed=5)


def pictures(folder: Path, count: int = 3, size: tuple[int, int] = (12, 12)) -> np.ndarray:
    """Write PNG files b0.png, b1.png ... and return their pixels."""
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
    """Test images that are not square. If their sizes differ, `embed` cuts a square from each image.

    If all images have one size, `embed` uses the whole images.
    """
    for place, size in enumerate((*sizes, sizes[0])):  # three images to train on, one held out
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
    monkeypatch.setattr(embed_files, "BATCH_SIZE", 2)
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
        ("bad.png", "None of the 1 images could be read"),
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
    assert not (tmp_path / "h.npz").exists()


def test_a_folder_without_a_run_or_a_place_to_write_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "folder")
    assert embed.main([str(tmp_path), str(tmp_path / "folder"), "--out", str(tmp_path / "h.npz")]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert embed.main([str(run), str(tmp_path / "folder"), "--out", str(tmp_path / "file" / "h.npz")]) == 1
    assert "Cannot write" in capsys.readouterr().err
