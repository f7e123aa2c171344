"""Draws the pictures of a run from arrays, with Matplotlib.

Every function takes arrays and writes a PNG file, and beside it the same picture as an SVG file. Each file is written
either completely or not at all. No display is needed. Readers with any kind of colour blindness can tell the colours
apart. Up to twenty classes are shown by Petroff's ten colours, each with two markers. A neighbour of the right class is
blue, and one of a wrong class is vermilion.

The module `knn.py` searches for neighbours, and `run/folder.py` writes the other files of a run.
"""

from __future__ import annotations

import contextlib
import io
import operator
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.class_marks import PALE, PALETTE, choose_mark, choose_named_classes
from lowlevel_simclr.run.checkup import MEASURES, Series, collect_series
from lowlevel_simclr.runtime.files import write_atomically
from lowlevel_simclr.runtime.progress_bar import open_bar

DPI = 100
LARGEST_FILE = 300_000  # bytes; a larger picture is stored with only 256 colours
WIDTH = 9.0  # inches, so that a picture fills a README
LONGEST_LABEL = 40  # characters of the name of a class in a legend
LONGEST_CAPTION = 13  # characters of the name of a class below or above a small image
DRAWN_AT_MOST = 2000  # points of a curve
SMOOTHED_FROM = 100  # rows of metrics; a shorter curve is drawn without its running mean
TSNE_ITERATIONS = 500  # twice as many would make the final KL divergence of 1,000 points only 1.5 % smaller

MARKER_AREA = {"*": 36}  # points^2. A star is thin, so it is drawn larger.
RIGHT, WRONG = "#0072b2", "#d55e00"  # blue and vermilion of Okabe and Ito, 2008
INK = "#222222"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",  # text is stored as text, not as outlines
    "svg.hashsalt": "lowlevel_simclr",  # the same picture has the same bytes
}
# The panels of learning.png that show measures of h and z. A check-up takes these measures during training.
MEASURE_PANELS = {
    "effective rank (directions in use)": ("rank_h", "rank_z"),
    "normalised z of two views": ("alignment", "uniformity"),
    "collapse": ("std_z", "dead_h"),
    "one step of training": ("gradient_norm", "update_ratio", "loss_scale"),
}

Row = Mapping[str, Any]  # one line of metrics.jsonl


# views.png


def plot_views(
    path: Path,
    originals: Sequence[np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    names: Sequence[str] = (),
) -> None:
    """Draw images with their two views (random augmentations) below them, one column for each image.

    Originals and views are drawn in the same size.

    Args:
        path: the PNG file.
        originals: n images (H, W, C) uint8, whose sizes may differ.
        first: (n, S, S, C) float in [0, 1], the first views.
        second: (n, S, S, C) float in [0, 1], the second views.
        names: n texts to write above the images, such as the names of their classes. It can be empty.

    Raises:
        OSError: if a file cannot be written.
    """
    side, gap, left, top = 96, 6, 64, 16 if any(names) else 0  # pixels
    picture = _make_white(3 * (side + gap) - gap, len(originals) * (side + gap) - gap)
    for row, images in enumerate((originals, first, second)):
        for column, image in enumerate(images):
            _place_image(picture, image, column * (side + gap), row * (side + gap), side)
    with matplotlib.rc_context(STYLE):
        figure, axes = _make_canvas(picture, left=left, top=top, margin=8)
        for row, name in enumerate(("original", "view 1", "view 2")):
            _write_text(axes, -10, row * (side + gap) + side / 2, name, ha="right", va="center")
        for column, name in enumerate(names):
            caption = make_label(name, LONGEST_CAPTION)
            _write_text(axes, column * (side + gap) + side / 2, -6, caption, ha="center", va="bottom")
        _save_figure(figure, path)


# neighbours.png


def plot_neighbours(
    path: Path,
    queries: np.ndarray,
    found: np.ndarray,
    query_labels: np.ndarray,
    found_labels: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Draw images (queries), each with the images whose encoder output (h) is nearest, in two columns.

    Every neighbour is marked as right (the class of the query) or wrong.

    Args:
        path: the PNG file.
        queries: (q, H, W, C) uint8.
        found: (q, k, H, W, C) uint8, the k neighbours of each query, nearest first.
        query_labels: (q,) class numbers. A negative number means that there is no label.
        found_labels: (q, k) class numbers. A negative number means that there is no label.
        classes: the name of each class number. If there are fewer than two, nothing is marked, because every image
            would be right.

    Raises:
        OSError: if a file cannot be written.
    """
    # The side of an image, the distances from image to image and from row to row, and the gap between the two columns,
    # in pixels.
    side, pitch, line, apart = 64, 74, 92, 20
    rows, width = -(-len(queries) // 2), pitch * (1 + found.shape[1]) + 8
    picture = _make_white(rows * line, width if len(queries) == 1 else 2 * width + apart)
    captions = []
    for number, query in enumerate(queries):
        left, top = number // rows * (width + apart) + 4, number % rows * line + 4
        _place_image(picture, query, left, top, side)
        captions.append((left, top, *_write_caption(query_labels[number], None, classes)))
        for place, image in enumerate(found[number], 1):
            text, colour = _write_caption(found_labels[number][place - 1], query_labels[number], classes)
            _place_image(picture, image, left + place * pitch + 8, top, side, frame=colour)
            captions.append((left + place * pitch + 8, top, text, colour))
    with matplotlib.rc_context(STYLE):
        figure, axes = _make_canvas(picture, top=20, margin=6)
        for x, y, text, colour in captions:
            _write_text(axes, x + side / 2, y + side + 5, text, color=colour or INK, ha="center", va="top", size=7.5)
        for left in range(4, picture.shape[1], width + apart):
            axes.text(left, -5, "query", weight="bold")
            # Above fewer than four neighbours, the whole title would be cut off at the edge of the picture.
            title = "nearest in h, from left to right" if found.shape[1] > 3 else "nearest in h"
            axes.text(left + pitch + 8, -5, title, weight="bold")
        _save_figure(figure, path)


def _write_caption(label: int, wanted: int | None, classes: Sequence[str]) -> tuple[str, str | None]:
    """Return the text below an image, and its colour, which says whether a neighbour is right or wrong.

    `wanted` is the label of the query. The query itself has no colour: for it, pass `wanted=None`.
    """
    if not 0 <= label < len(classes):
        return "", None
    name = make_label(classes[label], LONGEST_CAPTION - 2)  # a mark and a space stand before the name
    if wanted is None or len(classes) < 2:
        return name, None
    return (f"\u2713 {name}", RIGHT) if label == wanted else (f"\u2717 {name}", WRONG)


# learning.png


def plot_learning(path: Path, metrics: Sequence[Row], chance: float, baselines: Mapping[str, float]) -> None:
    """Draw the loss, the contrastive top-1, the learning rate and, if measured, k-NN over the steps of a run.

    Contrastive top-1 is the share of views whose most similar other view is the other view of the same image. If h and
    z were measured during training (check-ups), four more panels show these measures.

    Args:
        path: the PNG file.
        metrics: at least one row of metrics.jsonl, with `step`, `loss`, `top1` and `learning_rate`. Some rows have
            `knn` and the measures of a check-up.
        chance: the loss of an encoder that cannot tell views apart, see `loss.compute_chance_loss`.
        baselines: a dict from names to k-NN accuracies in [0, 1], for pixels and for the untrained encoder.

    Raises:
        OSError: if the file cannot be written.
    """
    with_knn = [row for row in metrics if row.get("knn") is not None]
    series = collect_series(metrics)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, (5.9 if with_knn else 2.9) + 5.9 * bool(series)), dpi=DPI, layout="constrained")
        ratios = (1 if with_knn else 0.5, 1)
        parts: Any = figure.subfigures(2, 1, height_ratios=ratios) if series else (figure, None)
        upper, lower = parts
        panels = upper.subplots(2, 2).ravel() if with_knn else upper.subplots(1, 3)
        measured = lower.subplots(2, 2).ravel() if lower else []
        _plot_measures(measured, series)
        _plot_curve(panels[0], metrics, "loss", "NT-Xent loss (nats)")
        panels[0].axhline(chance, color=INK, linestyle="--", linewidth=1, label=f"chance level = {chance:.2f}")
        _plot_curve(panels[1], metrics, "top1", "contrastive top-1 (share of views)")
        if with_knn:
            _plot_knn(panels[2], with_knn, baselines)
        _plot_curve(panels[-1], metrics, "learning_rate", "learning rate", smooth=False)
        for axes in (*panels, *measured):
            axes.set_xlabel("step")
            axes.set_xlim(0, 1.02 * metrics[-1]["step"])
            axes.grid(True)
            axes.set_axisbelow(True)
            if axes.get_legend_handles_labels()[0]:  # below the panel, so that it never covers a curve
                axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), borderaxespad=0, fontsize=8)
        for axes in panels[1:-1]:
            axes.set_ylim(0, min(1.02, max(0.05, 1.25 * axes.dataLim.ymax)))  # also valid if all values are 0 or NaN
        panels[-1].set_ylim(bottom=0)
        _save_figure(figure, path)


def _plot_curve(axes: Axes, metrics: Sequence[Row], key: str, title: str, smooth: bool = True) -> None:
    """Draw the values of one quantity in a pale colour, and over them their running mean over 2 % of the run."""
    step = np.array([row["step"] for row in metrics], float)
    value = np.array([np.nan if row.get(key) is None else row[key] for row in metrics], float)
    axes.set_title(title)
    thin = slice(None, None, -(-len(step) // DRAWN_AT_MOST))
    if not smooth or len(step) < SMOOTHED_FROM:
        axes.plot(step[thin], value[thin], color=PALETTE[0])
        return
    window = len(step) // 50
    mean = np.convolve(value, np.full(window, 1 / window), "valid")
    middle = np.convolve(step, np.full(window, 1 / window), "valid")
    axes.plot(step[thin], value[thin], color=PALETTE[0], alpha=0.3, linewidth=0.8)
    axes.plot(middle[thin], mean[thin], color=PALETTE[0], label=f"mean of {window} steps" if window > 1 else None)


def _plot_knn(axes: Axes, rows: Sequence[Row], baselines: Mapping[str, float]) -> None:
    """Draw the k-NN accuracy on the held-out sample, and a horizontal line for each baseline."""
    axes.set_title("k-NN on held-out images (accuracy)")
    last = rows[-1]["knn"]
    steps, values = [row["step"] for row in rows], [row["knn"] for row in rows]
    axes.plot(steps, values, color=PALETTE[0], marker="o", markersize=3.5, label=f"trained encoder, {last:.3f}")
    colours = (PALETTE[6], PALETTE[4], PALETTE[5])
    for (name, value), colour, style in zip(baselines.items(), colours, ("--", ":", "-.")):
        axes.axhline(value, color=colour, linestyle=style, label=f"{name}, {value:.3f}")


def _plot_measures(panels: Sequence[Axes], series: Mapping[str, Series]) -> None:
    """Draw the measures of the check-ups, two or three in a panel.

    The panel of a single step has a logarithmic axis.
    """
    for axes, (title, names) in zip(panels, MEASURE_PANELS.items()):
        axes.set_title(title)
        for name, colour in zip(names, (PALETTE[0], PALETTE[6], PALETTE[4])):
            if name in series:
                steps, values = series[name].steps, np.array(series[name].values)
                label = f"{MEASURES[name].title}, {values[-1]:.3g}"
                axes.plot(steps, values, color=colour, marker="o", markersize=3.5, label=label)
        if "update_ratio" in names and any(np.max(line.get_ydata()) > 0 for line in axes.lines):
            axes.set_yscale("log")


# embedding.png


def plot_embedding(
    path: Path, h_by_encoder: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Draw t-SNE maps of the outputs (h) of several encoders, side by side.

    All show the same images, coloured by label.

    Every row is first scaled to length 1, because k-NN and the loss compare only directions. If there are more than
    twenty classes, the twenty with the most images have their own colour and marker.

    Args:
        path: the PNG file.
        h_by_encoder: a dict from a word for an encoder, such as "untrained" or "trained", to its h (n, d). A thousand
            rows take about four seconds on one core.
        labels: (n,) class numbers. A negative number means that there is no label. The labels only decide the colours.
        classes: the name of each class number.
        seed: the seed of t-SNE.

    Returns:
        The points (n, 2) of each encoder, in an arbitrary unit.

    Raises:
        OSError: if a file cannot be written.
    """
    points = {what: _compute_map(h, seed, f"t-SNE of the {what} encoder") for what, h in h_by_encoder.items()}
    named = choose_named_classes(labels, len(classes))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.7 + 0.2 * max(0, -(-len(named) // 5) - 2)), dpi=DPI, layout="constrained")
        panels = figure.subplots(1, len(h_by_encoder), squeeze=False)[0]
        for axes, (what, h) in zip(panels, h_by_encoder.items()):
            names = _plot_scatter(axes, points[what], labels, classes, named)
            axes.set_title(f"h of the {what} encoder, {len(h)} held-out images")
            axes.set(xlabel="t-SNE axis 1 (arbitrary unit)", ylabel="t-SNE axis 2 (arbitrary unit)")
            axes.set(xticks=[], yticks=[])
            axes.set_aspect("equal", adjustable="datalim")
        if len(classes) > 1:  # otherwise there is nothing to tell apart
            _write_legend(figure, panels[0].collections, names)
        _save_figure(figure, path)
    return points


def _write_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Write a legend below the panels.

    It shows every name unchanged, even if the name begins with `_` or contains `$`.
    """
    places = [str(place) for place in range(len(names))]  # numbers, because Matplotlib drops labels that begin with `_`
    legend = figure.legend(handles, places, loc="outside lower center", ncols=min(5, len(names)), markerscale=1.5)
    for text, name in zip(legend.get_texts(), names):
        text.set_parse_math(False)
        text.set_text(name)


def _compute_map(h: np.ndarray, seed: int, title: str) -> np.ndarray:
    """Return a point in the plane for each row: (n, d) -> (n, 2), by t-SNE.

    If there are few rows, or all rows are alike, the function uses principal components instead. The progress bar shows
    the title.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    norm = np.linalg.norm(h.astype(np.float64), axis=1, keepdims=True)
    rows = h / np.where(norm == 0, 1, norm)
    rows -= rows.mean(axis=0)
    if len(rows) < 8 or np.abs(rows).max() < 1e-6:
        return np.pad(rows @ np.linalg.svd(rows, full_matrices=False)[2][:2].T, [(0, 0), (0, 1)])[:, :2]
    perplexity = min(30, (len(rows) - 1) / 3)
    # The threads of t-SNE use their cores while they wait for each other. If the machine has other work, two threads
    # are far slower than one.
    with threadpool_limits(1):
        tsne = TSNE(perplexity=perplexity, max_iter=TSNE_ITERATIONS, init="pca", random_state=seed % 2**32, verbose=2)
        with open_bar(title, TSNE_ITERATIONS, "iterations") as bar, contextlib.redirect_stdout(_IterationReader(bar)):
            return tsne.fit_transform(rows)


class _IterationReader(io.TextIOBase):
    """A text stream that moves a bar to the iteration that scikit-learn's t-SNE prints. t-SNE takes no callback."""

    def __init__(self, bar: tqdm) -> None:
        """Store the bar."""
        self._bar = bar

    def write(self, text: str) -> int:
        """Find the number of an iteration in a text and move the bar to it. Drop the text."""
        found = re.search(r"Iteration (\d+)", text)
        if found:
            self._bar.update(int(found[1]) - self._bar.n)
        return len(text)


def _plot_scatter(
    axes: Axes, points: np.ndarray, labels: np.ndarray, classes: Sequence[str], named: Sequence[int]
) -> list[str]:
    """Draw points (n, 2) coloured by class.

    Classes without their own colour are pale. Return the names for a legend.
    """
    rest, names = ~np.isin(labels, named), []
    if rest.any():
        axes.scatter(points[rest, 0], points[rest, 1], s=10, color=PALE if named else PALETTE[0], linewidths=0)
        names.append(_name_rest(labels, len(classes), len(named)))
    for place, number in enumerate(named):
        x, y = points[labels == number].T
        colour, marker = choose_mark(place)
        axes.scatter(x, y, s=MARKER_AREA.get(marker, 18), color=colour, marker=marker, linewidths=0)
        names.append(make_label(classes[number]))
    return names


def _name_rest(labels: np.ndarray, classes: int, named: int) -> str:
    """Return the name of the points without their own colour: other classes, images without a label, or both."""
    others = f"{classes - named} other classes" if classes > named else ""
    return " and ".join(each for each in (others, "no label" if (labels < 0).any() else "") if each) or "no class"


def make_label(name: str, longest: int = LONGEST_LABEL) -> str:
    """Return a name from a file system as one printable line of at most `longest` characters."""
    label = show_name(name)
    return label if len(label) <= longest else label[: longest - 3] + "..."


def _write_text(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    """Write a text unchanged. By default, Matplotlib reads text between dollar signs as mathematics."""
    axes.text(x, y, text, parse_math=False, **how)


# Helpers that build a picture from images and save it


def _make_white(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _place_image(picture: np.ndarray, image: np.ndarray, x: int, y: int, side: int, frame: str | None = None) -> None:
    """Draw an image into a square of the picture. With a colour for `frame`, add a frame of three pixels around it."""
    if frame:
        colour = np.array([int(frame[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)
        picture[max(y - 3, 0) : y + side + 3, max(x - 3, 0) : x + side + 3] = colour
    picture[y : y + side, x : x + side] = _make_tile(image, side)


def _make_tile(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image (H, W, C) as (side, side, 3) uint8. One channel is drawn grey, and two channels red and green.

    The longer side of the image fills the tile, so images of all sizes are drawn at one scale. Small images keep their
    sharp pixels.
    """
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    image = np.pad(image[..., :3], [(0, 0), (0, 0), (0, max(0, 3 - image.shape[-1]))])  # two channels: red and green
    times = -(-side // max(image.shape[:2]))
    if times > 1:
        image = image.repeat(times, axis=0).repeat(times, axis=1)
    if max(image.shape[:2]) != side:
        size = [max(1, round(extent * side / max(image.shape[:2]))) for extent in image.shape[1::-1]]
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BOX))
    tile, (height, width) = _make_white(side, side), image.shape[:2]
    y, x = (side - height) // 2, (side - width) // 2
    tile[y : y + height, x : x + width] = image
    return tile


def _make_canvas(picture: np.ndarray, left: int = 0, top: int = 0, margin: int = 0) -> tuple[Figure, Axes]:
    """Return a figure that shows a picture pixel by pixel, with room for text.

    The coordinates of its axes are pixels.
    """
    height, width = picture.shape[:2]
    full = (width + left + 2 * margin, height + top + 2 * margin)
    figure = Figure(figsize=(full[0] / DPI, full[1] / DPI), dpi=DPI)
    axes = figure.add_axes(((left + margin) / full[0], margin / full[1], width / full[0], height / full[1]))
    axes.imshow(picture, interpolation="nearest", extent=(0, width, height, 0))
    axes.set_axis_off()
    return figure, axes


def _save_figure(figure: Figure, path: Path) -> None:
    """Write the PNG file and the SVG file beside it. Create their folder if needed.

    Raises:
        OSError: if the folder or a file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, draw in ((path, _draw_png), (path.with_suffix(".svg"), _draw_svg)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph ")  # a font may lack a letter
            drawn = draw(figure)
        write_atomically(name, operator.methodcaller("write", drawn))


def _draw_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    if buffer.tell() > LARGEST_FILE:
        image = Image.open(buffer).convert("RGB").quantize(256)
        buffer = io.BytesIO()
        image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _draw_svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
