"""Tests the pictures that training draws: each must show the right data, be a small file, and need no window system."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from lowlevel_simclr.evaluation import class_marks, plots
from tests.support.progress_lines import print_every_line

CLASSES = tuple(f"class {letter}" for letter in "abcdefghijkl")


def some_images(count: int, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def read(path: Path) -> np.ndarray:
    """Return the pixels of a PNG file, (height, width, 3)."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)


def place_of(picture: np.ndarray, tile: np.ndarray) -> tuple[int, int] | None:
    """Find an image of noise (h, w, 3) in a picture. Return the row and column of its corner, or None.

    More than half of the image's pixels must be equal. The others may differ, because drawing can shift a part of an
    image by a pixel. At any other place of the picture, far fewer pixels are equal.
    """
    height, width = tile.shape[:2]
    corners = np.argwhere((picture[: 1 - height, : 1 - width] == tile[0, 0]).all(axis=-1))
    for y, x in corners:
        if (picture[y : y + height, x : x + width] == tile).all(axis=-1).mean() > 0.5:
            return int(y), int(x)
    return None


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return a list to which every figure is added when it is saved."""
    seen: list[Figure] = []
    save = plots._save_figure

    def keep(figure: Figure, path: Path) -> None:
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save_figure", keep)
    return seen


# views.png


def test_views_show_every_pixel_of_every_image(tmp_path: Path) -> None:
    originals, first, second = some_images(3), some_images(3, seed=1), some_images(3, seed=2)
    plots.plot_views(tmp_path / "views.png", originals, first / 255, second / 255)
    picture = read(tmp_path / "views.png")
    for images in (originals, first, second):
        for image in images:
            tile = image.repeat(3, axis=0).repeat(3, axis=1)  # an image of 32 pixels is drawn three times as large
            assert place_of(picture, tile) is not None


def test_views_stand_below_their_original(tmp_path: Path) -> None:
    """Test images that have a single colour each. None is grey, because the text is grey.

    Each column of the picture must show an image, and below it the two views of this image.
    """
    originals, first, second = (np.full((2, 8, 8, 3), (red, 0, 90), np.uint8) for red in (40, 80, 120))
    originals[1, ..., 0] = 45
    plots.plot_views(tmp_path / "views.png", originals, first / 255, second / 255)
    picture = read(tmp_path / "views.png")
    corners = {red: np.argwhere((picture == (red, 0, 90)).all(axis=-1)) for red in (40, 45, 80, 120)}
    top = {red: where[:, 0].min() for red, where in corners.items()}
    assert top[40] == top[45] < top[80] < top[120]
    assert corners[40][:, 1].max() < corners[45][:, 1].min()


@pytest.mark.parametrize(("size", "channels"), [(224, 3), (28, 1), (20, 3), (20, 2), (20, 4)])
def test_views_of_other_sizes_are_drawn_and_small(tmp_path: Path, size: int, channels: int) -> None:
    images = some_images(8, size, channels)
    plots.plot_views(tmp_path / "plots" / "views.png", images, images / 255, images / 255)
    assert read(tmp_path / "plots" / "views.png").shape[1] > 8 * 96
    assert (tmp_path / "plots" / "views.png").stat().st_size < plots.LARGEST_FILE
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["views.png", "views.svg"]


@pytest.mark.parametrize("size", [(96, 96), (40, 40), (60, 45), (45, 60), (500, 375), (1, 3), (97, 200)])
def test_images_of_all_sizes_are_drawn_at_one_scale(size: tuple[int, int]) -> None:
    """Test that the longer side of every image fills its tile, and that the ratio of its sides does not change."""
    tile = plots._make_tile(np.zeros((*size, 3), np.uint8), 96)
    drawn = (tile < 200).all(axis=-1)
    extents = [int(drawn.any(axis=axis).sum()) for axis in (1, 0)]
    assert extents == [round(96 * extent / max(size)) for extent in size]


def test_views_have_the_names_of_their_images_above_them(tmp_path: Path, figures: list[Figure]) -> None:
    images = some_images(3)
    plots.plot_views(tmp_path / "v.png", images, images / 255, images / 255, ["$x$", "_b", "c" * 40])
    words = [text.get_text() for text in figures[0].axes[0].texts]
    assert words[3:] == ["$x$", "_b", "c" * 10 + "..."]


def test_every_picture_is_also_an_svg_whose_text_is_text(tmp_path: Path) -> None:
    images = some_images(2)
    for name in ("one", "two"):
        plots.plot_views(tmp_path / f"{name}.png", images, images / 255, images / 255, ["<a&b>", "cat"])
    one, two = ((tmp_path / f"{name}.svg").read_text() for name in ("one", "two"))
    texts = [each.text for each in ElementTree.fromstring(one).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["original", "view 1", "view 2", "<a&b>", "cat"]
    assert one == two


def test_two_channels_are_red_and_green() -> None:
    image = some_images(1, 8, 2)[0]
    np.testing.assert_array_equal(plots._make_tile(image, 8), np.dstack([image, np.zeros((8, 8), np.uint8)]))


def test_values_outside_0_1_are_clipped() -> None:
    tile = plots._make_tile(np.array([[[-0.5, 0.5, 1.5]]]), 1)
    np.testing.assert_array_equal(tile[0, 0], [0, 128, 255])


def test_large_pictures_are_stored_in_256_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_images(4)
    plots.plot_views(tmp_path / "whole.png", images, images / 255, images / 255)
    monkeypatch.setattr(plots, "LARGEST_FILE", 1000)
    plots.plot_views(tmp_path / "few.png", images, images / 255, images / 255)
    with Image.open(tmp_path / "few.png") as few:
        assert few.mode == "P"
        assert few.size[::-1] == read(tmp_path / "whole.png").shape[:2]


# neighbours.png


def doubled(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)  # neighbours of 32 pixels are drawn with 64


def test_neighbours_are_framed_right_or_wrong(tmp_path: Path, figures: list[Figure]) -> None:
    queries, found = some_images(2), some_images(10, seed=1).reshape(2, 5, 32, 32, 3)
    labels = np.array([[0, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
    plots.plot_neighbours(tmp_path / "n.png", queries, found, np.array([0, 1]), labels, CLASSES)
    picture = read(tmp_path / "n.png")
    for number in range(2):
        assert place_of(picture, doubled(queries[number])) is not None
        for place in range(5):
            corner = place_of(picture, doubled(found[number, place]))
            assert corner is not None
            colour = rgb(plots.RIGHT if labels[number, place] == number else plots.WRONG)
            np.testing.assert_array_equal(picture[corner[0] - 2, corner[1] + 32], colour)  # the frame above the image
            np.testing.assert_array_equal(picture[corner[0] + 32, corner[1] - 2], colour)  # the frame left of the image
    words = [text.get_text() for text in figures[0].axes[0].texts]
    assert (words.count("class a"), words.count("class b")) == (1, 1)
    assert [sum(word.startswith(mark) for word in words) for mark in "\u2713\u2717"] == [8, 2]


@pytest.mark.parametrize(("labels", "classes"), [(-1, CLASSES), (0, ()), (0, CLASSES[:1])])
def test_without_labels_or_names_nothing_is_marked(
    tmp_path: Path, figures: list[Figure], labels: int, classes: Any
) -> None:
    queries, found = some_images(1), some_images(5, seed=1)[None]
    plots.plot_neighbours(tmp_path / "n.png", queries, found, np.full(1, labels), np.full((1, 5), labels), classes)
    picture = read(tmp_path / "n.png")
    for colour in (plots.RIGHT, plots.WRONG):
        assert not (picture == rgb(colour)).all(axis=-1).any()
    assert not any(text.get_text()[:1] in "\u2713\u2717" for text in figures[0].axes[0].texts if text.get_text())


@pytest.mark.parametrize("neighbours", [2, 3, 4, 5])
@pytest.mark.parametrize("queries", [1, 2])
def test_the_titles_of_neighbours_lie_in_the_picture_and_apart(
    tmp_path: Path, figures: list[Figure], queries: int, neighbours: int
) -> None:
    """Test the few neighbours of a small data set. Once, the title was cut off with fewer than four of them."""
    found = some_images(queries * neighbours).reshape(queries, neighbours, 32, 32, 3)
    labels = np.zeros((queries, neighbours), np.int64)
    plots.plot_neighbours(tmp_path / "n.png", some_images(queries), found, labels[:, 0], labels, CLASSES)
    figures[0].draw_without_rendering()
    titles = [text.get_window_extent() for text in figures[0].axes[0].texts if text.get_weight() == "bold"]
    assert len(titles) == 2 * queries
    assert all(figures[0].bbox.x0 <= box.x0 and box.x1 <= figures[0].bbox.x1 for box in titles)
    assert not any(one.overlaps(other) for one in titles for other in titles if one is not other)


# learning.png


def run(steps: int, knn_every: int = 0) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [
        {"step": step, "loss": 6 / step, "top1": 1 - 1 / step, "learning_rate": 1e-3 * step}
        for step in range(1, steps + 1)
    ]
    for row in rows[knn_every - 1 :: knn_every] if knn_every else []:
        row["knn"] = 0.5 + row["step"] / (4 * steps)
    return rows


def test_learning_shows_the_run_its_chance_and_its_baselines(tmp_path: Path, figures: list[Figure]) -> None:
    rows, chance = run(40, knn_every=10), math.log(511)
    plots.plot_learning(tmp_path / "l.png", rows, chance, {"pixels": 0.49, "untrained encoder": 0.47})
    loss, top1, knn, rate = figures[0].axes
    for axes, key in ((loss, "loss"), (top1, "top1"), (rate, "learning_rate")):
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [row[key] for row in rows])
        np.testing.assert_allclose(axes.lines[0].get_xdata(), [row["step"] for row in rows])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), chance)
    np.testing.assert_allclose(knn.lines[0].get_xdata(), [10, 20, 30, 40])
    np.testing.assert_allclose(knn.lines[0].get_ydata(), [row["knn"] for row in rows if "knn" in row])
    assert [line.get_ydata()[0] for line in knn.lines[1:]] == [0.49, 0.47]
    assert ["pixels, 0.490" in line.get_label() for line in knn.lines] == [False, True, False]
    assert all(axes.get_xlabel() == "step" and axes.get_title(loc="left") for axes in figures[0].axes)


def test_learning_without_knn_has_three_panels(tmp_path: Path, figures: list[Figure]) -> None:
    plots.plot_learning(tmp_path / "l.png", run(5), 6.2, {})
    assert len(figures[0].axes) == 3


@pytest.mark.parametrize(("knn_every", "above"), [(10, 4), (0, 3)])
def test_learning_shows_the_measures_of_the_check_ups(
    tmp_path: Path, figures: list[Figure], knn_every: int, above: int
) -> None:
    rows = run(40, knn_every)
    for place, row in enumerate(rows[9::10]):
        row.update(rank_h=2.0 + place, rank_z=3.0, alignment=0.5, uniformity=-1.0, std_z=0.1, dead_h=0.0)
        row.update(update_ratio=1e-3 * place, gradient_norm=1.0)
    plots.plot_learning(tmp_path / "l.png", rows, 6.2, {})
    rank, aligned, collapse, step = figures[0].axes[above:]
    assert [len(axes.lines) for axes in (rank, aligned, collapse, step)] == [2, 2, 2, 2]
    assert rank.lines[0].get_xdata().tolist() == [10, 20, 30, 40]
    assert rank.lines[0].get_ydata().tolist() == [2, 3, 4, 5]
    assert rank.get_legend().get_texts()[0].get_text() == "effective rank of h, 5"
    assert (step.get_yscale(), rank.get_yscale()) == ("log", "linear")
    assert all(axes.get_xlabel() == "step" and axes.get_title(loc="left") for axes in figures[0].axes)


def test_a_step_that_changed_nothing_is_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [{**row, "update_ratio": 0.0} for row in run(3)]
    plots.plot_learning(tmp_path / "l.png", rows, 6.2, {})
    assert figures[0].axes[-1].get_yscale() == "linear"


@pytest.mark.parametrize("steps", [1, 3, 40, 300])
def test_no_legend_lies_on_a_panel(tmp_path: Path, figures: list[Figure], steps: int) -> None:
    plots.plot_learning(tmp_path / "l.png", run(steps, knn_every=1), 6.2, {"pixels": 0.49, "untrained encoder": 0.47})
    boxes = [axes.get_window_extent() for axes in figures[0].axes]
    legends = [axes.get_legend().get_window_extent() for axes in figures[0].axes if axes.get_legend()]
    assert len(legends) >= 2
    assert not any(box.overlaps(legend) for box in boxes for legend in legends)
    assert not any(one.overlaps(other) for one in legends for other in legends if one is not other)


def test_a_long_run_is_thinned_and_smoothed(tmp_path: Path, figures: list[Figure]) -> None:
    rows = run(9000)
    plots.plot_learning(tmp_path / "l.png", rows, 6.2, {})
    every, mean = figures[0].axes[0].lines[:2]
    assert len(every.get_xdata()) <= plots.DRAWN_AT_MOST
    np.testing.assert_allclose(mean.get_ydata()[0], np.mean([row["loss"] for row in rows[:180]]))
    np.testing.assert_allclose(mean.get_xdata()[0], np.mean([row["step"] for row in rows[:180]]))
    assert (tmp_path / "l.png").stat().st_size < plots.LARGEST_FILE


@pytest.mark.parametrize("top1", [0.0, None])
def test_a_run_that_went_nowhere_is_drawn(tmp_path: Path, top1: float | None) -> None:
    rows = [{"step": step, "loss": None, "top1": top1, "learning_rate": 0.0} for step in range(1, 4)]
    plots.plot_learning(tmp_path / "l.png", rows, 6.2, {})
    assert read(tmp_path / "l.png").size > 0


# embedding.png


def clouds(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (3 * random.standard_normal((classes, 8))[labels] + random.standard_normal((count, 8))), labels


def points(figure: Figure) -> list[list[np.ndarray]]:
    """Return the points of each class, for each panel of a figure."""
    return [
        [np.asarray(part.get_offsets()) for part in axes.collections if isinstance(part, PathCollection)]
        for axes in figure.axes
    ]


def test_an_embedding_shows_all_images_twice_by_class(tmp_path: Path, figures: list[Figure]) -> None:
    h, labels = clouds(60, 3)
    plots.plot_embedding(tmp_path / "e.png", {"untrained": h[::-1], "trained": h}, labels, CLASSES[:3], seed=0)
    assert [[len(part) for part in panel] for panel in points(figures[0])] == [[20] * 3] * 2
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == list(CLASSES[:3])
    assert ["untrained" in axes.get_title(loc="left") for axes in figures[0].axes] == [True, False]
    trained = points(figures[0])[1]
    centres = np.array([part.mean(axis=0) for part in trained])
    for number, part in enumerate(trained):  # h separates the classes, so the map must too
        nearest = np.linalg.norm(part[:, None] - centres, axis=-1).argmin(axis=1)
        assert (nearest == number).mean() > 0.9


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_labels_colour_and_move_nothing(tmp_path: Path, figures: list[Figure]) -> None:
    h, labels = clouds(40, 2)
    for given in (labels, 1 - labels):
        plots.plot_embedding(tmp_path / "e.png", {"untrained": h, "trained": h}, given, CLASSES[:2], seed=0)
    (one, _), (other, _) = points(figures[0]), points(figures[1])
    np.testing.assert_array_equal(one[0], other[1])
    np.testing.assert_array_equal(one[1], other[0])


def test_twenty_classes_have_their_own_mark(tmp_path: Path, figures: list[Figure]) -> None:
    """Test 25 classes. 20 get a mark and a name: the five with the most images (the last five), and the first 15."""
    classes = [f"class {number}" for number in range(25)]
    labels = np.concatenate([np.arange(25), np.arange(20, 25)])
    h = np.random.default_rng(0).normal(size=(30, 4))
    plots.plot_embedding(tmp_path / "e.png", {"untrained": h, "trained": h}, labels, classes, seed=0)
    assert legend_of(figures[0]) == ["5 other classes", *classes[:15], *classes[20:]]
    marks = [class_marks.choose_mark(place) for place in range(class_marks.NAMED_AT_MOST)]
    assert len(set(marks)) == class_marks.NAMED_AT_MOST


def test_unlabelled_images_are_drawn_pale(tmp_path: Path, figures: list[Figure]) -> None:
    h, _ = clouds(20, 2)
    plots.plot_embedding(tmp_path / "e.png", {"untrained": h, "trained": h}, np.full(20, -1), (), seed=0)
    assert [[len(part) for part in panel] for panel in points(figures[0])] == [[20], [20]]
    assert legend_of(figures[0]) == []


def test_images_without_a_label_are_named_beside_classes(tmp_path: Path, figures: list[Figure]) -> None:
    h, labels = clouds(20, 2)
    labels[:3] = -1
    plots.plot_embedding(tmp_path / "e.png", {"trained": h}, labels, CLASSES[:2], seed=0)
    assert legend_of(figures[0]) == ["no label", *CLASSES[:2]]
    plots.plot_embedding(tmp_path / "one.png", {"trained": h}, np.zeros(20, int), CLASSES[:1], seed=0)
    assert figures[1].legends == []


@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_few_or_collapsed_rows_are_drawn(tmp_path: Path, figures: list[Figure], count: int) -> None:
    plots.plot_embedding(
        tmp_path / "e.png", {"a": np.ones((count, 8)), "b": np.zeros((count, 8))}, np.zeros(count), CLASSES[:1], seed=0
    )
    for panel in points(figures[0]):
        np.testing.assert_allclose(panel[0], 0, atol=1e-6)  # all rows are equal, so all points are in one place


# Without a window system, and on a full disk


def test_no_window_system_is_touched(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from lowlevel_simclr.evaluation import plots\n"
        "x = np.zeros((2, 8, 8, 3), np.uint8)\n"
        f"plots.plot_views(Path({str(tmp_path / 'v.png')!r}), x, x / 255, x / 255)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"MPLBACKEND": "TkAgg"}
    done = subprocess.run([sys.executable, "-c", script], cwd=root, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert read(tmp_path / "v.png").size > 0


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, path = some_images(1), tmp_path / "v.png"
    plots.plot_views(path, images, images / 255, images / 255)
    before = path.read_bytes()

    def full(path: Path, write: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        plots.plot_views(path, images[:, ::-1], images / 255, images / 255)
    assert path.read_bytes() == before


def test_a_map_shows_its_iterations_and_prints_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_every_line(monkeypatch)
    h = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    plots.plot_embedding(tmp_path / "map.png", {"untrained": h, "trained": h + 1}, np.zeros(40, int), CLASSES, seed=0)
    printed = capsys.readouterr()
    assert printed.out == ""
    for kind in ("untrained", "trained"):
        assert f"t-SNE of the {kind} encoder: 250 of 500 iterations, " in printed.err


# Names that come from files


ODD_NAMES = {
    "a$x^2$b": "a$x^2$b",
    r"$\frac$": r"$\frac$",
    "_hidden": "_hidden",
    "two\nlines\x1b[31m": r"two\nlines\x1b[31m",
    "x" * 100: "x" * 37 + "...",
    r"\$": r"\$",
    "\udcff": r"\xff",
    "\u732b": "\u732b",
}


def test_the_names_of_classes_are_drawn_as_they_are(tmp_path: Path, figures: list[Figure]) -> None:
    r"""Test class names with a special meaning in Matplotlib.

    By default, Matplotlib raises an error for `$\frac$`, draws x^2 as mathematics, hides `_hidden`, and warns about a
    character that its font lacks.
    """
    rows = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    plots.plot_embedding(tmp_path / "e.png", {"a": rows, "b": rows}, np.arange(32) % 8, [*ODD_NAMES], 0)
    texts = figures[0].legends[0].get_texts()
    assert [text._preprocess_math(text.get_text()) for text in texts] == [(name, False) for name in ODD_NAMES.values()]
    assert (tmp_path / "e.png").stat().st_size > 1000
