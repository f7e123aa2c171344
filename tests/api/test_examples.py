"""Tests the example in the docstring of every public function and class: it must print what it shows."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import lowlevel_simclr as ls
from lowlevel_simclr.api.callable_module import CallableModule
from lowlevel_simclr.model import encoder

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FUNCTIONS = [name for name in ls.PUBLIC if not name.endswith("Error") and name not in ("Stopped", "NonFiniteLoss")]
WITHOUT = {"ViewRecipe"}  # has no example of its own; the example of make_views uses it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the folder runs/shapes of a run, which the examples open. Return the folder that contains runs/."""
    place = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 16, projects=False)
        )  # three blocks instead of the nine of ResNet-20
        patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
        patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)
        patch.chdir(place)
        ls.train("shapes", steps=2, batch_size=16, image_size=8, warmup_epochs=0, knn_every=0)
        yield place


def test_the_examples_are_of_every_public_function() -> None:
    assert {"train", "evaluate", "embed", "load_encoder", "Run", "nt_xent", "NTXent", "make_views", "SimCLRViews"} < {
        *FUNCTIONS
    }
    for name in set(FUNCTIONS) - WITHOUT:
        assert "Example:" in (inspect.getdoc(getattr(ls, name)) or ""), name


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in WITHOUT])
def test_an_example_gives_what_it_says(name: str) -> None:
    thing = getattr(ls, name)
    text = thing.__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    said: list[str] = []
    failed, tried = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
    assert tried >= 2 and not failed, "".join(said)


@pytest.mark.parametrize("name", ["train", "evaluate", "embed"])
def test_a_program_is_a_function_too(name: str) -> None:
    thing = getattr(ls, name)
    assert isinstance(thing, CallableModule) and callable(thing.main)
    parameters = inspect.signature(thing).parameters
    assert list(parameters)[:1] == ["dataset" if name == "train" else "run"]
    assert "Example:" in thing.__doc__ and "Returns:" in thing.__doc__
