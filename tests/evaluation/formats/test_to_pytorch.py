"""Tests the export of an encoder to PyTorch: the PyTorch module must give the same results, and can be trained."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.evaluation.formats import network, to_pytorch
from lowlevel_simclr.evaluation.formats.form import ExportError
from lowlevel_simclr.model import projection
from tests.support.exported import SCALING, build_networks, make_network

torch = pytest.importorskip("torch", reason="pip install torch safetensors")
pytest.importorskip("safetensors", reason="pip install torch safetensors")


def load_program(folder: Path) -> ModuleType:
    """Import the file encoder.py of an export."""
    spec = importlib.util.spec_from_file_location("encoder_of_an_export", folder / "encoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same_h(name: str, stem: str, size: int, folder: Path) -> None:
    f, _ = build_networks(name, stem, size)
    given = network.Network(f, None, SCALING)
    to_pytorch.write_pytorch(given, folder, "float32")
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 41, 3), np.uint8)
    with torch.no_grad():
        found = load_program(folder).load_encoder()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    expected = network.compute_reference(given, images)["h"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max() and expected.std() > 0


# Images of an odd size give feature maps of odd sizes. Only for these, padding at the end gives another result than
# padding on both sides.
@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [("resnet20", "imagenet", 19), ("resnet18", "imagenet", 33), ("resnet18v1.5", "cifar", 13)],
)
def test_every_kind_of_layer_is_the_same(name: str, stem: str, size: int, tmp_path: Path) -> None:
    assert_same_h(name, stem, size, tmp_path)


@pytest.mark.slow
def test_kerass_resnet50_is_the_same(tmp_path: Path) -> None:
    assert_same_h("resnet50", "imagenet", 35, tmp_path)


@pytest.mark.parametrize("batch_norm", ["none", "google"])
def test_the_projection_head_follows(batch_norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_network(monkeypatch, head=False, preprocessing=False)
    head = projection.build_projection_head(32, (6, 4), batch_norm=batch_norm)
    given = network.Network(plain.encoder, head, SCALING, preprocessing=False)
    to_pytorch.write_pytorch(given, tmp_path, "float32")
    views = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    with torch.no_grad():
        found = load_program(tmp_path).load_encoder()(torch.from_numpy(views).permute(0, 3, 1, 2))
    h = plain.encoder(views, training=False)
    for name, expected in (("h", h.numpy()), ("z", head(h, training=False).numpy())):
        assert np.abs(found[name].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_pytorch.write_pytorch(make_network(monkeypatch, head=False), tmp_path, "float32")
    model = load_program(tmp_path).load_encoder()
    mean = model.get_buffer("stem_bn.running_mean").clone()
    model.train()
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    model(images).square().mean().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
    assert not torch.equal(model.get_buffer("stem_bn.running_mean"), mean)


def test_only_torchvisions_own_networks_have_its_names(tmp_path: Path) -> None:
    for name, first in (("resnet18", "stem.weight"), ("resnet18v1.5", "conv1.weight")):
        f, _ = build_networks(name, "cifar", 8)
        to_pytorch.write_pytorch(network.Network(f, None, SCALING), tmp_path, "float32")
        from safetensors.numpy import load_file

        assert first in load_file(tmp_path / "encoder.safetensors")


def test_a_layer_that_is_not_known_is_refused() -> None:
    given = tf.keras.Input((4,))
    model = tf.keras.Model(given, tf.keras.layers.Dropout(0.5, name="forgets")(given))
    with pytest.raises(ExportError, match="layer forgets is a Dropout, which the PyTorch format does not know"):
        to_pytorch.describe_model(model, "", "")


def test_the_program_does_not_import_this_package() -> None:
    assert "lowlevel_simclr" not in to_pytorch.PROGRAM.read_text()
    assert "lowlevel_simclr.evaluation.formats.torch_program" not in sys.modules
