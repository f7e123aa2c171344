"""Changes a .keras file so that older releases of Keras 3 can read it too.

Keras writes every argument of every layer into the file, even if the argument has its default value. An older release
refuses arguments that it does not know. For example, Keras 3.12 refuses each BatchNormalization of Keras 3.13 because
of its argument `renorm`, and Keras 3.10 refuses each operation because of its argument `name`. If the file has no
arguments with default values, older and newer releases read the same model from it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import zipfile
from pathlib import Path
from typing import Any

CONFIG = "config.json"  # the member of the archive that holds the layers
OPERATIONS = "keras.src.ops"  # the module with the operations of `keras.ops`, which are functions without weights


def drop_defaults(path: Path) -> None:
    """In a .keras file of Keras 3, remove from each layer the arguments that have their default values.

    Args:
        path: the file. It is overwritten.

    Raises:
        OSError: if the file cannot be written.
    """
    with zipfile.ZipFile(path) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for item, content in members:
            if item.filename == CONFIG:
                content = json.dumps(_simplify(json.loads(content))).encode()
            archive.writestr(item, content)


def _simplify(value: Any) -> Any:
    """Return a JSON value of config.json. From each layer in it, the arguments with default values are removed."""
    if isinstance(value, list):
        return [_simplify(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":
        return value["config"]["name"]  # every release accepts the name of the policy
    kept = {name: _simplify(each) for name, each in value.items()}
    if isinstance(kept.get("config"), dict) and kept.get("module"):
        defaults = _find_defaults(kept["module"], kept["class_name"])
        if kept["module"].startswith(OPERATIONS):
            defaults["name"] = kept["config"].get("name")  # Keras reads the name that is beside the config
        kept["config"] = {
            name: each for name, each in kept["config"].items() if name not in defaults or not _is(each, defaults[name])
        }
    return kept


def _is(value: Any, default: Any) -> bool:
    """Return whether a JSON value equals a default in value and type. So 0 does not equal False."""
    return type(value) is type(default) and value == default


def _find_defaults(module: str, name: str) -> dict[str, Any]:
    """Return the defaults of the arguments of a class of Keras, and of its base classes."""
    kind = getattr(importlib.import_module(module), name)
    signatures = [
        inspect.signature(vars(base)["__init__"]) for base in reversed(kind.__mro__) if "__init__" in vars(base)
    ]
    parameters = [parameter for signature in signatures for parameter in signature.parameters.values()]
    return {each.name: each.default for each in parameters if each.default is not each.empty}
