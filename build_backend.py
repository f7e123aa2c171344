"""The build backend of this project: it adds a search for TensorFlow's headers to the backend of setuptools.

pip builds in a separate environment. This backend also looks for TensorFlow outside this environment, in the Python
that runs pip. If TensorFlow is installed there, the build uses its headers, and pip downloads no TensorFlow. Otherwise
the build requires TensorFlow, and pip downloads it for the build.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import site
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the functions that pip calls and that this file does not define

WHEELS = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-intel")
OLDEST = "2.20"  # the first release whose wheel has the headers of XLA's foreign function interface (FFI)


class Headers(NamedTuple):
    """TensorFlow's headers.

    Attributes:
        include: the folder of the headers.
        version: the version of TensorFlow, or "unknown".
    """

    include: Path
    version: str


def list_places() -> list[Path]:
    """Return the folders where TensorFlow may be installed, including those that pip hides from a build."""
    spec = importlib.util.find_spec("tensorflow")
    places = [str(Path(each).parent) for each in (spec.submodule_search_locations or [])] if spec else []
    places += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return [Path(each) for each in dict.fromkeys(places)]


def find_headers() -> Headers | None:
    """Return TensorFlow's headers without importing TensorFlow, or None if it is not installed."""
    for place in list_places():
        include = place / "tensorflow" / "include"
        if (include / "tensorflow" / "c" / "ops.h").is_file():
            found = {each.name: each.version for each in importlib.metadata.distributions(path=[str(place)])}
            return Headers(include, next((found[name] for name in WHEELS if name in found), "unknown"))
    return None


def list_requirements() -> list[str]:
    """Return the packages that pip must install before a build: TensorFlow, unless it is installed already."""
    if find_headers():
        return []
    return [f"tensorflow-cpu>={OLDEST}" if platform.machine() == "x86_64" else f"tensorflow>={OLDEST}"]


Settings = Mapping[str, Any] | None  # the values of pip's option --config-settings


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Return the packages that must be installed before `build_wheel`."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *list_requirements()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Return the packages that must be installed before `build_editable`."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *list_requirements()]
