"""Tests the function `lowlevel_simclr.train`, for example on arrays, in a thread, and after an interruption.

It must not change the state of the caller's process, such as TensorFlow's settings.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

import lowlevel_simclr as ls
from lowlevel_simclr.model import pretrained
from lowlevel_simclr.runtime import progress_bar, signals
from lowlevel_simclr.training import session
from lowlevel_simclr.training.session import Session
from tests.support.other_process import output_of
from tests.support.small_runs import draw_few_shapes, narrow_resnet20

SMALL: dict[str, Any] = {
    "image_size": 8,
    "batch_size": 16,
    "projection_widths": (16, 8),
    "steps_per_call": 2,
    "warmup_epochs": 0,
    "knn_every": 0,
    "steps": 2,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 10, 8, 3), np.uint8)
LABELS = np.arange(40) % 2

SMALL_ENCODER = """
from lowlevel_simclr.model import encoder
encoder.BASIC["resnet20"] = encoder.Basic((1, 1, 1), 16, projects=False)
"""
SCRIPT = """
import numpy as np
import lowlevel_simclr as ls
images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
labels = np.arange(40) % 2
run = ls.train((images, labels), out=OUT, steps=2, batch_size=16, image_size=8, warmup_epochs=0)
import tensorflow as tf
run.encoder.trainable = False
model = tf.keras.Sequential([run.encoder, tf.keras.layers.Dropout(0.1), tf.keras.layers.Dense(2)])
model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
history = model.fit(images, labels, epochs=2, verbose=0)
print(len(history.history["loss"]), model.predict(images, verbose=0).shape, ls.embed(run, images).shape)
"""


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a ResNet with one block in each stage and sixty training images. Work in a temporary folder."""
    narrow_resnet20(monkeypatch)
    draw_few_shapes(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the evaluation and the pictures after training, which take most of the time of a tiny run."""
    monkeypatch.setattr(Session, "finish", lambda of_run: of_run.train())


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs that take no step, for tests of the configuration that they store."""
    monkeypatch.setattr(Session, "finish", lambda of_run: None)


def test_a_short_script_trains_on_arrays_and_uses_the_encoder_in_keras(tmp_path: Path) -> None:
    """Run a short script as a user would write it, with a Dropout layer without a seed.

    Training must not leave TensorFlow's op determinism (reproducible mode) on. With it, such a layer raises an error.
    """
    assert len(SCRIPT.strip().splitlines()) <= 12
    said = output_of(SMALL_ENCODER + SCRIPT.replace("OUT", repr(str(tmp_path / "run"))))
    assert said.splitlines()[-1] == "2 (40, 2) (40, 64)"


def test_a_run_shows_what_it_has(tmp_path: Path) -> None:
    run = ls.train((IMAGES, LABELS), "run", **SMALL)
    assert run.folder == Path("run") and repr(run) == "Run('run')"
    assert run.metrics["step"].tolist() == [1, 2] and run.metrics["step"].dtype == np.int64
    assert np.isfinite(run.metrics["loss"]).all() and run.metrics["loss"].dtype == np.float64
    assert set(run.evaluation["knn"]) == {"20", "200"}
    assert set(run.plots) == {"views", "learning", "embedding", "neighbours"}
    assert run.config["temperature"] == 0.2 and run.config["dataset"].startswith("memory:")
    h = ls.embed(run, IMAGES)
    np.testing.assert_allclose(run.encoder(IMAGES), h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run.projection_head(h), ls.embed(run, IMAGES, output="z"), rtol=1e-4, atol=1e-5)
    assert ls.load_encoder("run").output_shape == run.encoder.output_shape
    shown = run._repr_html_()
    assert "resnet20 on memory:" in shown and "trained encoder" in shown and shown.count("data:image/png;base64") == 3
    before = run.evaluation
    assert ls.evaluate(run, protocol="knn")["knn"] == before["knn"]
    assert ls.evaluate("run", dataset=(IMAGES, LABELS), protocol="knn")["knn"] == before["knn"]
    with pytest.raises(ls.DataError, match="these are not the images of the run"):
        ls.evaluate("run", dataset=IMAGES[::-1])
    with pytest.raises(ls.DataError, match="evaluate\\(run, dataset=images\\)"):
        ls.evaluate("run")


@pytest.mark.usefixtures("training_alone")
def test_other_images_do_not_resume_a_run() -> None:
    first = ls.train(IMAGES, "run", **SMALL)
    losses = first.metrics["loss"]
    np.testing.assert_array_equal(ls.train(IMAGES.copy(), "run", **SMALL).metrics["loss"], losses)
    other = IMAGES.copy()
    other[3, 2, 1, 0] ^= 1
    with pytest.raises(ls.RunError, match="dataset: memory:[0-9a-f]+ -> memory:"):
        ls.train(other, "run", **SMALL)
    assert ls.train(other, "run", fresh=True, **SMALL).folder == Path("run-2")


@pytest.mark.usefixtures("no_step")
def test_settings_are_those_of_the_command_and_of_a_config_file() -> None:
    first = ls.train(preset="shapes", temperature=0.5, jitter_strength=0.25, **SMALL)
    assert first.folder == Path("runs/shapes") and first.config["temperature"] == 0.5
    assert first.config["brightness"] == (0.8, 1.2)
    again = ls.train(config="runs/shapes/config.json", out="again", temperature=0.1)
    assert {name for name in again.config if again.config[name] != first.config[name]} == {"temperature"}
    third = ls.train(out="third", **{**first.config, "steps": 1})
    assert third.config == {**first.config, "steps": 1}


@pytest.mark.usefixtures("no_step")
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_a_tf_data_set_is_read_into_memory(labelled: bool, batched: bool) -> None:
    stream = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS) if labelled else IMAGES)
    run = ls.train(stream.batch(7) if batched else stream, "run", **SMALL)
    assert run.config["dataset"] == ls.train(IMAGES, "other", **SMALL).config["dataset"]


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (IMAGES / 255.0, "the images are float64. Give uint8"),
        (IMAGES[0], "The batch size .16. does not fit"),
        (IMAGES[:, :, 0, 0], "Give \\(n, height, width, channels\\)"),
        ((IMAGES, LABELS[:-1]), "Give 40 whole numbers"),
        ((IMAGES, LABELS - 1), "Give 40 whole numbers"),
        (3, "dataset is of type int. Give a name such as 'cifar10'"),
        (IMAGES[:5], "The batch size .16. does not fit"),
    ],
)
def test_images_that_cannot_be_used_are_refused(dataset: Any, sentence: str) -> None:
    with pytest.raises(ls.DataError, match=sentence):
        ls.train(dataset, "run", **SMALL)
    assert not Path("run").exists()


def test_an_encoder_that_cannot_be_loaded_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    ls.train(IMAGES, "run", **SMALL)
    monkeypatch.setattr(pretrained, "LARGEST_WEIGHTS", 1000)
    with pytest.raises(ls.RunError, match="encoder.keras cannot be loaded .The weights in .* more than"):
        ls.load_encoder("run")
    path = Path("run/encoder.keras")
    for content in (b"", b"PK\3\4 cut off", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(
            ls.RunError, match="encoder.keras cannot be loaded .*. Remove it, and run the training"
        ) as told:
            ls.load_encoder("run")
        assert "\n" not in str(told.value)


def test_a_tf_data_set_that_cannot_be_kept_is_refused() -> None:
    stream = tf.data.Dataset.from_tensor_slices(IMAGES)
    with pytest.raises(ls.DataError, match="is endless: leave out repeat"):
        ls.train(stream.repeat(), "run", **SMALL)
    with pytest.raises(ls.DataError, match="more than 1e-06 GiB of images"):
        ls.train(stream, "run", memory_limit=1e-6, **SMALL)
    with pytest.raises(ls.DataError, match="images of shape"):
        ls.train(tf.data.Dataset.range(3), "run", **SMALL)
    with pytest.raises(ls.DataError, match="is empty"):
        ls.train(stream.take(0), "run", **SMALL)
    sizes = tf.data.Dataset.from_generator(
        lambda: (np.zeros((8 + i, 8, 3), np.uint8) for i in range(2)),
        output_signature=tf.TensorSpec((None, 8, 3), "uint8"),
    )
    with pytest.raises(ls.DataError, match="of shapes \\(8, 8, 3\\) and \\(9, 8, 3\\)"):
        ls.train(sizes, "run", **SMALL)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"temprature": 0.5}, ls.ConfigError, "There is no setting 'temprature'. Did you mean temperature?"),
        ({"lr": 0.5}, ls.ConfigError, "Did you mean learning_rate?"),
        ({"bs": 8}, ls.ConfigError, "Did you mean batch_size?"),
        ({"temperature": -1}, ls.ConfigError, "--temperature is -1"),
        ({"temperature": "warm"}, ls.ConfigError, "--temperature is warm. It must be a number"),
        ({"preset": "shape"}, ls.ConfigError, "Did you mean shapes?"),
        ({"config": "nowhere.json"}, ls.ConfigError, "--config nowhere.json cannot be read"),
        ({"dataset": "cifar"}, ls.ConfigError, "Did you mean cifar10?"),
        ({"dataset": "npz:nowhere.npz"}, ls.DataError, "The file nowhere.npz does not exist"),
        ({"dataset": "memory:1234"}, ls.DataError, "Give them again"),
    ],
)
def test_errors_are_exceptions_with_the_commands_sentences(settings: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error) as raised:
        ls.train(out="run", **{**SMALL, **settings})
    assert sentence in str(raised.value)


def test_a_folder_without_a_run_is_refused() -> None:
    Path("empty").mkdir()
    for look in (ls.evaluate, ls.load_encoder, lambda run: ls.embed(run, IMAGES), lambda run: ls.Run(run).config):
        with pytest.raises(ls.RunError, match="empty is not a run folder"):
            look("empty")
    assert "empty" in ls.Run("empty")._repr_html_()
    with pytest.raises(ls.ConfigError, match="output is 'x'"):
        ls.embed("empty", IMAGES, "x")
    with pytest.raises(ls.ConfigError, match="Did you mean knn?"):
        ls.evaluate("empty", protocol="kn")
    with pytest.raises(ls.ConfigError, match="--seeds is 0"):
        ls.evaluate("empty", seeds=0)


@pytest.mark.usefixtures("training_alone")
def test_embedding_takes_arrays_and_files() -> None:
    from PIL import Image

    ls.train(IMAGES, "run", **SMALL)
    Path("pictures").mkdir()
    for place, image in enumerate(IMAGES[:3]):
        Image.fromarray(image).save(f"pictures/{place}.png")
    expected = ls.embed("run", IMAGES[:3])
    np.testing.assert_allclose(ls.embed("run", "pictures"), expected, rtol=1e-5)
    np.testing.assert_allclose(ls.embed("run", ["pictures/1.png", Path("pictures/0.png")]), expected[[1, 0]], rtol=1e-5)
    with pytest.raises(ls.ConfigError, match="the images have shape"):
        ls.embed("run", IMAGES[..., :1])
    Path("pictures/bad.png").write_text("no image")
    with pytest.raises(ls.EmbedError, match="1 of 4 images cannot be read, the first is pictures/bad.png"):
        ls.embed("run", "pictures")


@pytest.mark.usefixtures("training_alone")
def test_training_in_a_worker_thread_installs_no_handlers() -> None:
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(ls.train(IMAGES, "run", **SMALL))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(found[0], ls.Run), found
    assert len(found[0].metrics["loss"]) == 2


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_process_is_left_as_it_was(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {number: lambda *_: None for number in (signal.SIGTERM, signal.SIGINT)}
    before = {number: signal.signal(number, handler) for number, handler in mine.items()}
    seen: list[Any] = []

    def look(run: Session) -> None:
        policy_inside = tf.keras.mixed_precision.global_policy().name
        with signals.note_stop_requests():
            handler = signal.getsignal(signal.SIGINT)
        seen.append((framework_config.is_op_determinism_enabled(), policy_inside, handler))

    monkeypatch.setattr(Session, "finish", look)
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        ls.train(IMAGES, "run", precision="float16", **SMALL)
        assert seen[0][:2] == (True, "mixed_float16") and seen[0][2] is not mine[signal.SIGINT]
        with pytest.raises(ls.DataError):
            ls.train(IMAGES[:3], "other", precision="float16", **SMALL)
        assert tf.keras.mixed_precision.global_policy().name == policy
        assert not framework_config.is_op_determinism_enabled()
        assert {number: signal.getsignal(number) for number in mine} == mine
        tf.keras.layers.Dropout(0.5)(tf.ones((2, 3)), training=True)  # raises an error if op determinism is on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("notebook", [True, False])
def test_a_notebook_gets_its_own_bar(monkeypatch: pytest.MonkeyPatch, notebook: bool) -> None:
    """Test that a notebook shows the progress as a widget, and other output without a terminal as lines of text."""
    monkeypatch.setattr(progress_bar, "_is_notebook", lambda: notebook)
    with progress_bar.open_bar("training", 3, "steps") as bar:
        assert isinstance(bar, progress_bar.ProgressLines) != notebook


def test_determinism_of_the_caller_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "finish", lambda of_run: None)
    tf.config.experimental.enable_op_determinism()
    try:
        ls.train(IMAGES, "run", **SMALL)
        assert framework_config.is_op_determinism_enabled()
    finally:
        framework_config.disable_op_determinism()


@pytest.mark.usefixtures("training_alone")
def test_a_request_to_stop_is_an_exception_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "steps": 4}
    with monkeypatch.context() as patch:
        patch.setattr(session, "note_stop_requests", lambda patience: contextlib.nullcontext(lambda: signal.SIGINT))
        with pytest.raises(ls.Stopped, match="Stopped by SIGINT and saved at step [12] of 4"):
            ls.train(IMAGES, "run", **settings)
    assert ls.train(IMAGES, "run", **settings).metrics["step"].tolist() == [1, 2, 3, 4]
