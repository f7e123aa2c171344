"""Tests that the NumPy code that defines the right results (the reference) is independent of the code that it judges.

The only code that both may use is the package `lowlevel_simclr/contract`, which defines constants, random numbers and
checks of arguments. Some tests check imports. Other tests plant mistakes in the contract, to show that each would be
found. There are two cases:

- Only the TensorFlow code uses the wrong code. Then its results differ from the reference.
- The reference uses it too. Then all results are wrong in the same way, and no comparison finds the mistake. So for
  each name that the reference uses, this file has a formula or a known result of its own.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lowlevel_simclr
from lowlevel_simclr import ops, reference, stock
from lowlevel_simclr.contract import checks, philox
from lowlevel_simclr.reference.lars_update import lars_update
from tests.support.known_words import KNOWN
from tests.support.view_errors import assert_stock_is_close
from tests.support.view_inputs import MEAN, STD, all_orders, images_of, params_of, tensors
from tests.support.view_recipes import ALWAYS, RECIPE, assert_same

PACKAGE = Path(lowlevel_simclr.__file__).parent
JUDGED = ("ops", "stock", "data", "model", "runtime")
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", [ops, stock], ids=["native", "stock"])


# Imports


def list_imports(path: Path) -> set[str]:
    """Return all modules and names that a file imports, such as "numpy" or "lowlevel_simclr.stock.philox"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import: write the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def list_room(room: str) -> list[Path]:
    """Return the Python files of a sub-package of lowlevel_simclr (a room)."""
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files, f"there is no sub-package {room}"
    return files


@pytest.mark.parametrize("room", [*JUDGED, "contract"])
def test_what_is_judged_does_not_import_the_reference(room: str) -> None:
    for path in list_room(room):
        wrong = {name for name in list_imports(path) if f"{name}.".startswith("lowlevel_simclr.reference.")}
        assert not wrong, f"{path} imports {sorted(wrong)}"


@pytest.mark.parametrize(("room", "rooms"), [("reference", ("contract", "reference")), ("contract", ("contract",))])
def test_the_reference_imports_numpy_and_the_contract_alone(room: str, rooms: tuple[str, ...]) -> None:
    """Test that reference and contract import only NumPy, the standard library and each other.

    The contract is tested too, because the reference uses everything that the contract imports. Its modules
    `lars_checks`, `nt_xent_checks` and `view_checks` are left out: only the TensorFlow code uses them.
    """
    with_tensors = ("lars_checks", "nt_xent_checks", "view_checks")
    for path in list_room(room):
        if path.stem in with_tensors:
            continue
        assert not {f"lowlevel_simclr.contract.{name}" for name in with_tensors} & set(list_imports(path))
        for name in list_imports(path):
            top, *rest = name.split(".")
            ours = top == "lowlevel_simclr" and rest and rest[0] in rooms
            assert ours or top == "numpy" or top in sys.stdlib_module_names, f"{path} imports {name}"


# Code of the contract that only the TensorFlow implementations use


def plant(patch: pytest.MonkeyPatch, home: str, name: str, mistake: Any) -> list[str]:
    """Replace a name of the contract by `mistake` in all modules that have imported the name. Return these modules."""
    right = getattr(importlib.import_module(f"lowlevel_simclr.contract.{home}"), name)
    loaded = {each: module for each, module in sys.modules.items() if each.startswith("lowlevel_simclr.")}
    holders = [each for each, module in loaded.items() if vars(module).get(name) is right]
    for each in holders:
        patch.setattr(loaded[each], name, mistake)
    return holders


def compare_scaled_views(implementation: Any) -> None:
    """Compare views (augmented images) of all kinds with the reference. Their pixels are (pixel - mean) / std."""
    images, params = images_of(24, 12, 15), all_orders(12, 15)
    views = implementation.make_views(images, tensors(params), 10, mean=MEAN, std=STD)
    expected = reference.make_views(images, params, 10, mean=MEAN, std=STD)
    assert_stock_is_close(views, expected, params, std=min(STD))


def scale_swapped(mean: Any, std: Any, channels: int, right: Any = checks.complete_scaling) -> tuple[Any, Any]:
    offset, scale = right(mean, std, channels)
    return scale, offset


SHARED: dict[str, tuple[Callable[..., Any], Callable[[Any], None], str]] = {
    "complete_scaling": (scale_swapped, compare_scaled_views, "make_views"),
}


@IMPLEMENTATIONS
@pytest.mark.parametrize("name", SHARED)
def test_a_mistake_in_what_tensorflow_shares_is_noticed_by_comparison(
    monkeypatch: pytest.MonkeyPatch, implementation: Any, name: str
) -> None:
    mistake, compare, op = SHARED[name]
    compare(implementation)
    holders = plant(monkeypatch, "checks", name, mistake)
    assert {f"lowlevel_simclr.ops.{op}", f"lowlevel_simclr.stock.{op}"} <= set(holders)
    with pytest.raises(AssertionError):
        compare(implementation)


@IMPLEMENTATIONS
def test_words_drawn_wrongly_by_the_contract_are_noticed_by_comparison(
    monkeypatch: pytest.MonkeyPatch, implementation: Any
) -> None:
    """Test mistakes in the contract's functions `draw_words` and `to_uniform`, which give random numbers.

    Only the reference uses them. The TensorFlow implementations have their own, so a comparison finds a mistake.
    """

    def compare() -> None:
        drawn = implementation.draw_view_params(7, 3, tf.range(9), ALWAYS, 32, 40)
        assert_same(drawn, reference.draw_view_params(7, 3, np.arange(9), ALWAYS, 32, 40), ALWAYS)

    draw_words, to_uniform = philox.draw_words, philox.to_uniform
    mistakes: dict[str, Callable[..., Any]] = {
        "draw_words": lambda seed, epoch, index, view, purpose: draw_words(seed, view, index, epoch, purpose),
        "to_uniform": lambda words: to_uniform(words >> np.uint32(1)),
    }
    compare()
    for name, mistake in mistakes.items():
        with monkeypatch.context() as patch:
            plant(patch, "philox", name, mistake)
            with pytest.raises(AssertionError):
                compare()
    compare()


# Code of the contract that the reference and all implementations use


def check_known_answers() -> None:
    """Compare the random generator with the known results of Random123."""
    for counter, key, answer in KNOWN:
        given = np.array(counter, np.uint32), np.array(key, np.uint32)
        assert tuple(philox.philox4x32(*given)) == answer
        assert tuple(importlib.import_module("lowlevel_simclr.stock.philox").philox4x32(*given).numpy()) == answer


def check_words_of_a_view() -> None:
    """Check from which counter and key the random words (32-bit numbers) of a view are computed.

    The counter is (epoch, index, view, purpose). A purpose is a number that says what the words are for. The key is the
    seed, with its low word first. The example is the flip of the second view of image 11, in epoch 7, with seed
    5 + 2^32. Word 0 for purpose 16 decides it.
    """
    counter, key = np.array([7, 11, 1, 16], np.uint32), np.array([5, 1], np.uint32)
    word = int(philox.philox4x32(counter, key)[0])
    for probability, flips in ((word / 2**32 + 2.0**-20, True), (word / 2**32 - 2.0**-20, False)):
        recipe = replace(RECIPE, flip_probability=probability)
        for implementation in (reference, stock, ops):
            drawn = implementation.draw_view_params(5 + 2**32, 7, np.array([11]), recipe, 32, 32)
            assert bool(np.asarray(drawn.flip)[1]) == flips


def check_purposes() -> None:
    """Check that no two purposes have one number: ten attempts of a crop, switches, factors, order and blur."""
    purposes = [*philox.CROP, philox.SWITCHES, philox.FACTORS, philox.ORDER_AND_BLUR]
    assert purposes == [*range(10), 16, 17, 18]
    others = [philox.EPOCH_ORDER, philox.LAYER_SEED, philox.SHAPE_PLACE, philox.SHAPE_TONE, philox.SHAPE_NOISE]
    assert len({*purposes, *others}) == len(purposes) + len(others)


def check_uniform_numbers() -> None:
    """Check that a random word becomes a number in [0, 1): its upper 24 bits, divided by 2^24."""
    assert philox.to_uniform([0, 255, 256, 2**31, 2**32 - 1]).tolist() == [0, 0, 2.0**-24, 0.5, 1 - 2.0**-24]


def check_orders() -> None:
    """Check that a word w gives permutation number w * 24 / 2^32 of the 24 permutations in lexicographic order."""
    every = list(itertools.permutations(range(4)))
    words = philox.philox4x32(np.array([[3, image, 0, 18] for image in range(200)]), np.array([2, 0]))[:, 0]
    expected = [every[int(word) * 24 >> 32] for word in words]
    assert len(set(expected)) == 24
    for implementation in (reference, stock, ops):
        order = np.asarray(implementation.draw_view_params(2, 3, np.arange(200), RECIPE, 32, 32).order)[:200]
        assert [tuple(row) for row in order.tolist()] == expected


def make_flat_view(implementation: Any, pixel: Any, dtype: str = "uint8", **given: Any) -> np.ndarray:
    """Return one pixel (3,) of a view of an image in which all pixels are equal."""
    image = np.broadcast_to(np.array(pixel, dtype), (1, 4, 4, 3))
    views = implementation.make_views(image, params_of(2, box=[0, 0, 4, 4], **given), 4)
    return np.asarray(views)[0, 1, 2]


def check_grey() -> None:
    """Check that grey is 0.2989 R + 0.5870 G + 0.1140 B in every channel (ITU-R BT.601)."""
    for pixel, grey in (((255, 0, 0), 0.2989), ((0, 255, 0), 0.5870), ((0, 0, 255), 0.1140), ((255, 255, 255), 0.9999)):
        for implementation in (reference, stock, ops):
            found = make_flat_view(implementation, pixel, grey=True)
            np.testing.assert_allclose(found, [grey] * 3, rtol=0, atol=1e-6)


def check_full_scale() -> None:
    """Check that a pixel with the largest integer of its type becomes 1, and a fifth of this integer becomes 1/5."""
    for dtype, largest in (("uint8", 255), ("uint16", 65535)):
        for implementation in (reference, stock, ops):
            found = make_flat_view(implementation, (largest, 0, largest // 5), dtype)
            np.testing.assert_allclose(found, [1, 0, 0.2], rtol=0, atol=1e-6)


def check_numbers_of_operations() -> None:
    """Check that 0, 1, 2 and 3 in `order` mean brightness, contrast, saturation and hue, and run in this order."""
    image = np.zeros((1, 1, 2, 3))
    image[0, 0] = [[0.2, 0.2, 0.2], [0.8, 0.8, 0.8]]

    def view(implementation: Any, order: list[int], **factors: float) -> np.ndarray:
        params = params_of(2, box=[0, 0, 1, 2], order=order, **factors)
        return np.asarray(implementation.make_views(image, params, 2))[0, 0, :, 0]

    for implementation in (reference, stock, ops):
        # Contrast 0 gives the mean. Brightness 2 and clipping give (0.4, 1) with the mean 0.7. In the other order, the
        # mean is 0.5, and brightness doubles it to 1.
        both = {"brightness": 2.0, "contrast": 0.0}
        np.testing.assert_allclose(view(implementation, [0, 1, 2, 3], **both), 0.7, rtol=0, atol=1e-6)
        np.testing.assert_allclose(view(implementation, [1, 0, 2, 3], **both), 1.0, rtol=0, atol=1e-6)
        red = (200, 100, 100)
        # Saturation 1/2 keeps the largest channel, V = 200, and halves the distance of the other channels from it. A
        # hue of 1/3 (a third of the colour circle) maps red to green.
        half = np.array([200, 150, 150]) / 255
        np.testing.assert_allclose(make_flat_view(implementation, red, saturation=0.5), half, rtol=0, atol=1e-6)
        turned = np.array([100, 200, 100]) / 255
        np.testing.assert_allclose(make_flat_view(implementation, red, hue=1 / 3), turned, rtol=0, atol=1e-6)
        # Brightness 2 and clipping give (1, 200/255, 200/255). Saturation 1/2 then halves the distance from 1. In the
        # other order, clipping comes last and makes all channels 1.
        both = {"brightness": 2.0, "saturation": 0.5}
        clipped, last = [1, 455 / 510, 455 / 510], [1, 1, 1]
        found = make_flat_view(implementation, red, order=[0, 2, 1, 3], **both)
        np.testing.assert_allclose(found, clipped, rtol=0, atol=1e-6)
        found = make_flat_view(implementation, red, order=[2, 0, 1, 3], **both)
        np.testing.assert_allclose(found, last, rtol=0, atol=1e-6)
        # A hue of 1/12 moves red half the way to yellow: (200, 150, 100). Brightness 2 then clips the first two
        # channels. In the other order, green ends half way between 1 and 200/255.
        both = {"brightness": 2.0, "hue": 1 / 12}
        found = make_flat_view(implementation, red, order=[3, 0, 1, 2], **both)
        np.testing.assert_allclose(found, [1, 1, 200 / 255], rtol=0, atol=1e-6)
        found = make_flat_view(implementation, red, order=[0, 3, 1, 2], **both)
        np.testing.assert_allclose(found, [1, clipped[1], 200 / 255], rtol=0, atol=1e-6)


def draw_in_frames(implementation: Any, sizes: np.ndarray) -> Any:
    """Draw parameters for three images of these sizes, which are stored in arrays of 8 x 8 pixels with padding."""
    return implementation.draw_view_params(0, 0, np.arange(3), RECIPE, 8, 8, sizes)


def check_refusals() -> None:
    """Check that each function of the contract that checks arguments works, with one wrong argument for each."""
    images, params = images_of(1, 8, 8), params_of(2, box=[0, 0, 8, 8])
    for implementation in (reference, stock):
        for text, call in (
            ("index has shape", lambda each=implementation: each.draw_view_params(0, 0, np.zeros(3), RECIPE, 8, 8)),
            ("epoch is -1", lambda each=implementation: each.draw_view_params(0, -1, np.arange(3), RECIPE, 8, 8)),
            ("sizes has shape (3,)", lambda each=implementation: draw_in_frames(each, np.full(3, 8))),
            ("sizes[0] is 9 x 8", lambda each=implementation: draw_in_frames(each, np.full((3, 2), (9, 8)))),
            ("0 x 8 pixels", lambda each=implementation: each.draw_view_params(0, 0, np.arange(3), RECIPE, 0, 8)),
            ("size is 0", lambda each=implementation: each.make_views(images, params, 0)),
            (
                "shape (2, 4) for 2",
                lambda each=implementation: each.make_views(images_of(2, 8, 8), params, 8),
            ),
            ("must be ViewParams", lambda each=implementation: each.make_views(images, None, 8)),
            ("be a ViewRecipe", lambda each=implementation: each.draw_view_params(0, 0, np.arange(3), None, 8, 8)),
            ("up to 255. They", lambda each=implementation: each.make_views(np.full(images.shape, 255.0), params, 8)),
            ("both or neither", lambda each=implementation: each.make_views(images, params, 8, mean=0.5)),
        ):
            message = find_refusal(call)
            assert text in message, message


def check_refusals_of_lars() -> None:
    """Check that each function that checks the arguments of LARS works, with one wrong argument for each."""
    one, choices = np.ones((2, 2), np.float32), {"momentum": 0.9, "weight_decay": 0.0, "trust_coefficient": 1.0}
    for update in (lars_update, stock.lars_update):
        for text, arrays, rate in (
            ("have the same shape", (one, one, one[:1]), 0.1),
            ("learning_rate is nan", (one, one, one), np.nan),
        ):
            message = find_refusal(lambda: update(*arrays, learning_rate=rate, **choices))  # noqa: B023, called here
            assert text in message, message
    message = find_refusal(lambda: lars_update(None, one, one, learning_rate=0.1, **choices))
    assert "It must be an array of numbers" in message, message


def check_refusals_of_nt_xent() -> None:
    """Check that NT-Xent refuses a temperature that is not positive, and one that no float can hold."""
    for nt_xent in (reference.nt_xent, stock.nt_xent):
        for temperature in (-1.0, 10**400):
            message = find_refusal(lambda: nt_xent(np.eye(4, dtype=np.float32), temperature))  # noqa: B023, called here
            assert "temperature is" in message, message


def find_refusal(call: Callable[[], Any]) -> str:
    """Return the message of the ValueError or TypeError that a call raises, or "" if it raises neither."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return str(error)
    except Exception:
        return ""
    return ""


# For each name of the contract: its module, a mistake to plant in it, and the check that finds the mistake.
DEFINED: dict[str, tuple[str, Any, Callable[[], None]]] = {
    "MULTIPLIERS": ("philox", philox.MULTIPLIERS[::-1], check_known_answers),
    "KEY_STEPS": ("philox", philox.KEY_STEPS[::-1], check_known_answers),
    "ROUNDS": ("philox", 9, check_known_answers),
    "split_seed": ("philox", lambda seed: np.array([seed // 2**32, seed % 2**32], np.uint32), check_words_of_a_view),
    "draw_words": (
        "philox",
        lambda seed, epoch, index, view, purpose, draw=philox.draw_words: draw(seed, epoch, index, 0, purpose),
        check_words_of_a_view,
    ),
    "to_uniform": ("philox", lambda words: np.asarray(words, np.uint32) / np.float32(2**32), check_uniform_numbers),
    "CROP": ("philox", (0, *range(9)), check_purposes),
    "SWITCHES": ("philox", 17, check_purposes),
    "FACTORS": ("philox", 16, check_purposes),
    "ORDER_AND_BLUR": ("philox", 9, check_purposes),
    "PERMUTATIONS": ("view_params", np.array(list(itertools.permutations(range(3, -1, -1))), np.int32), check_orders),
    "BRIGHTNESS": ("view_params", 1, check_numbers_of_operations),
    "CONTRAST": ("view_params", 0, check_numbers_of_operations),
    "SATURATION": ("view_params", 3, check_numbers_of_operations),
    "HUE": ("view_params", 2, check_numbers_of_operations),
    "FULL_SCALE": ("constants", {"uint8": 256.0, "uint16": 65536.0}, check_full_scale),
    "GREY_WEIGHTS": ("constants", (0.2989, 0.1140, 0.5870), check_grey),
    "check_index": ("checks", lambda index: index, check_refusals),
    "check_counter": ("checks", lambda *given: None, check_refusals),
    "check_sizes": ("checks", lambda sizes, count: sizes, check_refusals),
    "check_frames": ("checks", lambda *given: None, check_refusals),
    "check_image_sides": ("checks", lambda *given: None, check_refusals),
    "check_images": ("checks", lambda *given: None, check_refusals),
    "check_params": ("checks", lambda *given: None, check_refusals),
    "check_fields": ("checks", lambda params: params, check_refusals),
    "check_recipe": ("checks", lambda recipe: recipe, check_refusals),
    "check_number": ("checks", lambda name, value: value, check_refusals_of_lars),
    "convert_to_float": ("checks", abs, check_refusals_of_nt_xent),
    "check_numbers": ("checks", lambda name, value: np.asarray(value), check_refusals_of_lars),
    "check_same_shape": ("checks", lambda shapes: None, check_refusals_of_lars),
    "check_scaling": ("checks", lambda *given: None, check_refusals),
    "check_largest_pixel": ("checks", lambda *given: None, check_refusals),
}
TYPES = {"ViewParams", "Words"}  # these are types and compute nothing, so no mistake is planted in them


@pytest.mark.parametrize("name", DEFINED)
def test_a_mistake_in_what_defines_the_ops_is_noticed_by_a_closed_form(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home, mistake, check = DEFINED[name]
    check()
    holders = plant(monkeypatch, home, name, mistake)
    assert f"lowlevel_simclr.contract.{home}" in holders
    with pytest.raises((AssertionError, ValueError)):
        check()


def test_wrong_multipliers_would_not_show_between_numpy_and_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test wrong multipliers of the random number generator, planted in the contract.

    The reference and the stock op both use them, so a comparison of these two finds nothing. The native op has its own
    multipliers, so it differs from the reference.
    """

    def compare(implementation: Any) -> None:
        drawn = implementation.draw_view_params(7, 3, tf.range(9), ALWAYS, 32, 40)
        assert_same(drawn, reference.draw_view_params(7, 3, np.arange(9), ALWAYS, 32, 40), ALWAYS)

    plant(monkeypatch, "philox", "MULTIPLIERS", philox.MULTIPLIERS[::-1])
    compare(stock)
    with pytest.raises(AssertionError):
        compare(ops)


def test_every_name_that_the_reference_takes_from_the_contract_has_a_mistake_above() -> None:
    taken = set()
    for path in list_room("reference"):
        taken |= {name.split(".")[-1] for name in list_imports(path) if name.startswith("lowlevel_simclr.contract.")}
    assert taken - TYPES <= set(DEFINED), f"plant a mistake in {sorted(taken - TYPES - set(DEFINED))}"
    assert not taken & set(SHARED), "the reference must not use these functions of the contract"
