"""Tests loading weights from torchvision and timm into an encoder, and writing them. The output h must not change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.model import encoder, pretrained, stock_layers, torch_weights
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.model.safetensors import write_safetensors
from lowlevel_simclr.model.torch_resnet import TORCH

# A Python program (interpreter) that has torchvision. Torchvision needs a certain version of torch, so this may be
# another interpreter than that of the tests.
TORCHVISION = os.environ.get("LOWLEVEL_SIMCLR_TORCHVISION", sys.executable)
BOTH_WAYS = """
import sys
import numpy as np, torch, torchvision
from safetensors.torch import load_file, save_file
name, folder, ours = sys.argv[1:]
torch.manual_seed(0)
model = getattr(torchvision.models, name)(weights=None)
with torch.no_grad():
    for value in [*model.parameters(), *model.buffers()]:
        if value.dim() == 1 and value.is_floating_point():
            value += torch.rand_like(value) * 0.1
if ours:
    missing, foreign = model.load_state_dict(load_file(f"{folder}/{ours}"), strict=False)
    assert foreign == [] and {each for each in missing if "num_batches" not in each} == {"fc.weight", "fc.bias"}
else:
    save_file(model.state_dict(), f"{folder}/theirs.safetensors")
model.fc = torch.nn.Identity()
views = torch.from_numpy(np.load(f"{folder}/views.npy")).permute(0, 3, 1, 2)
with torch.no_grad():
    np.save(f"{folder}/h.npy", model.eval()(views).numpy())
"""


def draw_views(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, size, size, 3)).astype(np.float32)


def assert_same_h(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that two outputs h differ by at most 1e-5 of the largest entry.

    An encoder has up to fifty layers. Each computes in float32 and adds a rounding error of about 6e-8 of the largest
    entry.
    """
    assert found.shape == expected.shape and expected.std() > 0
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [
        ("resnet18v1.5", "imagenet", 75),  # images of this size give feature maps of odd sizes
        ("resnet18v1.5", "cifar", 18),
        ("resnet50v1.5", "imagenet", 64),
    ],
)
def test_both_ways_with_pytorch(name: str, stem: str, size: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install torch")
    from tests.support.torchvision_resnet import build_trained

    theirs = build_trained(*TORCH[name], cifar_stem=stem == "cifar")
    file = tmp_path / "theirs.safetensors"
    state = {key: value.numpy() for key, value in theirs.state_dict().items() if value.is_floating_point()}
    write_safetensors(file, {f"model.{key}": value for key, value in state.items()})
    ours = encoder.build_encoder(name, stem, size, weights=str(file), seed=1)
    views = draw_views(size)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(views).permute(0, 3, 1, 2)).numpy()
    assert_same_h(ours(views, training=False).numpy(), expected)
    assert_same_h(stock_layers.build_stock_twin(ours)(views, training=False).numpy(), expected)
    back = torch_weights.name_torch_arrays(ours)
    assert {key for key in state if not key.startswith("fc.")} == set(back)
    assert all(np.array_equal(back[key], state[key]) for key in back)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_both_ways_with_torchvision(name: str, tmp_path: Path) -> None:
    if subprocess.run([TORCHVISION, "-c", "import torchvision, safetensors"], capture_output=True).returncode:
        pytest.skip("set LOWLEVEL_SIMCLR_TORCHVISION to a Python with torchvision and safetensors")
    views = draw_views(64)
    np.save(tmp_path / "views.npy", views)

    def ask(ours: str) -> np.ndarray:
        subprocess.run([TORCHVISION, "-c", BOTH_WAYS, name, str(tmp_path), ours], check=True)
        return np.load(tmp_path / "h.npy")

    expected = ask("")
    theirs = encoder.build_encoder(f"{name}v1.5", "imagenet", 64, weights=str(tmp_path / "theirs.safetensors"))
    assert_same_h(theirs(views, training=False).numpy(), expected)
    ours = encoder.build_encoder(f"{name}v1.5", "imagenet", 64, seed=7)
    random = np.random.default_rng(0)
    ours.set_weights([each + (each.ndim == 1) * random.uniform(0, 0.1, each.shape) for each in ours.get_weights()])
    write_safetensors(tmp_path / "ours.safetensors", torch_weights.name_torch_arrays(ours))
    assert_same_h(ask("ours.safetensors"), ours(views, training=False).numpy())


@pytest.fixture
def small() -> tf.keras.Model:
    return encoder.build_encoder("resnet18v1.5", "cifar", 8)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("layer3.0.bn1.bias", None, "it has no array 'layer3.0.bn1.bias'. Use a file of torchvision"),
        ("layer1.2.conv1.weight", np.zeros(1), "it has an array 'layer1.2.conv1.weight', which resnet18v1.5 does not"),
        ("bn1.bias", np.zeros(3), r"has the shape \(3,\), not \(64,\)"),
        ("bn1.bias", np.full(64, np.nan), "contain NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    name: str, array: np.ndarray | None, words: str, small: tf.keras.Model, tmp_path: Path
) -> None:
    arrays = torch_weights.name_torch_arrays(small)
    arrays.pop(name, None)
    write_safetensors(tmp_path / "f.safetensors", arrays if array is None else {**arrays, name: array})
    with pytest.raises(ModelError, match=words):
        pretrained.load_file(small, str(tmp_path / "f.safetensors"))


def test_an_encoder_with_other_padding_is_refused(small: tf.keras.Model, tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    write_safetensors(file, torch_weights.name_torch_arrays(small))
    with pytest.raises(ModelError, match="pad in another way than resnet18. Use --encoder resnet18v1.5"):
        encoder.build_encoder("resnet18", "cifar", 8, weights=str(file))
    with pytest.raises(ModelError, match="Use --encoder resnet18v1.5 or resnet34v1.5"):
        encoder.build_encoder("resnet20", "cifar", 8, weights=str(file))
    file.write_bytes(b"nothing, whatever its name")
    with pytest.raises(ModelError, match="its header is longer than the file"):
        pretrained.load_file(small, str(file))
