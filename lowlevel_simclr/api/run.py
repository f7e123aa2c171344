"""`lowlevel_simclr.Run`: a run folder as an object."""

from __future__ import annotations

import base64
import functools
import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowlevel_simclr.api.stored import read_run_config
from lowlevel_simclr.config.choices import IN_MEMORY
from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.config.starting_point import to_settings

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from lowlevel_simclr.data.dataset import DataSet

EMBEDDED = ("learning", "embedding", "views")  # pictures that a notebook shows


class Run:
    """A run, which is one training and its folder: its settings, its metrics and its results.

    Every time you read a property, it reads its file again (apart from the networks). So you can watch a run while
    another process trains it.

    Args:
        folder: the run folder that training wrote.
        images: the images on which the run was trained, if these are still in the memory of this process.

    Attributes:
        folder: the run folder.

    Example:
        >>> import lowlevel_simclr as ls
        >>> run = ls.Run("runs/shapes")
        >>> run.config["encoder"], run.metrics["step"].tolist()
        ('resnet20', [1, 2])
        >>> sorted(run.plots)
        ['embedding', 'learning', 'neighbours', 'views']
    """

    def __init__(self, folder: str | os.PathLike[str], images: DataSet | None = None) -> None:
        self.folder = Path(folder)
        self._images = images

    @property
    def config(self) -> dict[str, Any]:
        """All settings as a dict from name to value. `train` takes the same names and values.

        Raises:
            RunError: if the folder holds no run.
        """
        return to_settings(read_run_config(self.folder))

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics of the training: a dict from a name to an array with one value per step.

        The names are "step", "loss", "top1", "learning_rate", "pairs_per_second" and others. Some quantities, such as
        "knn", are not measured at every step. At the other steps their values are NaN.
        """
        import numpy as np

        from lowlevel_simclr.run.results import read_metrics

        rows = read_metrics(self.folder)
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name) for row in rows] for name in names}
        return {
            name: np.array(values, np.int64 if name == "step" else np.float64)  # None becomes NaN
            for name, values in columns.items()
        }

    @property
    def evaluation(self) -> dict[str, Any]:
        """The content of evaluation.json. It is empty before the end of training."""
        from lowlevel_simclr.run.results import read_evaluation

        return read_evaluation(self.folder)

    @property
    def plots(self) -> dict[str, Path]:
        """The paths of the run's pictures by their names: "views", "learning", "embedding", "neighbours"."""
        return {path.stem: path for path in sorted((self.folder / "plots").glob("*.png"))}

    @functools.cached_property
    def encoder(self) -> tf.keras.Model:
        """The trained encoder with its preprocessing. It maps images (n, H, W, C) of any size to h (n, d) float32.

        Raises:
            RunError: if the folder holds no run, training has not finished, or the file of the encoder is damaged.
        """
        import tensorflow as tf

        from lowlevel_simclr.evaluation.export import ENCODER_FILE
        from lowlevel_simclr.model.pretrained import refuse_large_weights
        from lowlevel_simclr.run.atomic import RunError

        read_run_config(self.folder)  # raises an error if the folder holds no run
        path = self.folder / ENCODER_FILE
        if not path.is_file():
            raise RunError(f"{self.folder} has no {ENCODER_FILE}: training writes it at its end, so let it finish")
        try:
            refuse_large_weights(path)
            model = tf.keras.models.load_model(path, compile=False)
            # Call the model once, because Keras's own export to ONNX fails for a model that was never called.
            model(tf.zeros([1, 8, 8, model.input_shape[-1]]), training=False)
            return model
        except Exception as error:  # Keras does not document which error a damaged file raises
            reason = " ".join(str(error).split())[:300]
            raise RunError(
                f"{path} cannot be loaded ({reason}). Remove it, and run the training command again."
            ) from error

    @functools.cached_property
    def projection_head(self) -> tf.keras.Model:
        """The projection head of the newest checkpoint. It maps h (n, d) to z (n, d'), float32.

        Raises:
            RunError: if the folder holds no run or no checkpoint.
        """
        from lowlevel_simclr.evaluation.export import restore_weights
        from lowlevel_simclr.model.projection import build_projection_head
        from lowlevel_simclr.runtime.precision import set_precision
        from lowlevel_simclr.runtime.process_state import keep_process_state

        model = read_run_config(self.folder).model
        with keep_process_state():
            set_precision("float32")
            width = self.encoder.output_shape[-1]
            head = build_projection_head(width, model.projection_widths, batch_norm=model.projection_batch_norm)
            restore_weights(self.folder, projection=head)
        return head

    def find_images(self, given: Any = None) -> DataSet | None:
        """Return the images of a run that was trained on images in memory, or None for any other run.

        Args:
            given: the images in the form that `train` took. None: the images that this object still has. If the object
                has none, the result is None, and `catalog.load_dataset` raises the error later.

        Raises:
            ConfigError: if images are given, but the run was trained on a named data set.
            DataError: if `given` cannot be used, or if its images differ from those of the run.
        """
        settings = self.config
        if not settings["dataset"].startswith(IN_MEMORY):
            if given is not None:
                from lowlevel_simclr.config.settings import ConfigError

                raise ConfigError(f"the run was trained on {settings['dataset']}: leave out dataset")
            return None
        if given is None:
            return self._images
        from lowlevel_simclr.api.memory import load_from_memory
        from lowlevel_simclr.data.dataset import DataError

        images = load_from_memory(given, settings["seed"], settings["memory_limit"])
        if images.name != settings["dataset"]:
            raise DataError(
                f"these are not the images of the run (it has {settings['dataset']}, these are {images.name}). Give "
                "the images that it was trained on."
            )
        return images

    def __repr__(self) -> str:
        """Return the Python call that opens this run again."""
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: one line about the run, the table of results, and some pictures."""
        from lowlevel_simclr.run.atomic import RunError

        try:
            parts = [
                f"<b>{html.escape(self._describe())}</b>",
                self._format_results(),
                *map(_embed_picture, self._list_shown()),
            ]
        except RunError as error:
            parts = [html.escape(str(error))]
        return "\n".join(f"<div>{part}</div>" for part in parts)

    def _describe(self) -> str:
        """Return one line with the folder, the encoder, the data set, the number of steps and the last loss."""
        settings, metrics = self.config, self.metrics
        steps = len(metrics.get("step", ()))
        loss = f", loss {metrics['loss'][-1]:.3f}" if steps else ""
        return (
            f"{show_name(self.folder)}: {settings['encoder']} on {show_name(settings['dataset'])}, {steps} steps of "
            f"{settings['batch_size']} images{loss}"
        )

    def _format_results(self) -> str:
        """Return the table of results as preformatted HTML text."""
        if not self.evaluation:
            return "not evaluated yet"
        from lowlevel_simclr.evaluation.summary import format_table

        return f"<pre>{html.escape(format_table(self.evaluation))}</pre>"

    def _list_shown(self) -> list[Path]:
        """Return the pictures that a notebook shows, without those that do not exist."""
        return [self.plots[name] for name in EMBEDDED if name in self.plots]


def as_run(run: Run | str | os.PathLike[str]) -> Run:
    """Return `run` as a `Run`. It may be a `Run` already, or the path of a run folder."""
    return run if isinstance(run, Run) else Run(run)


def _embed_picture(path: Path) -> str:
    """Return a picture as HTML that contains its bytes, so that a saved notebook still shows it."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}" style="max-width: 100%">'
