"""Finding the model class in a source folder."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from modelyard.bundle import BundleError, import_entry_module
from modelyard.model import Model
from modelyard.packing.snapshot import check_constructible

DEFAULT_MODULE = "model"
_ENTRY = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)(:(?P<kind>[A-Za-z_]\w*))?")


class SourceInvalidError(Exception):
    """The source holds no model class that could be built; one line says why."""


def find_model_class(source: Path, entry: str) -> type[Model]:
    """Return the class that `module:Class` names, or the only one that `model.py` defines.

    Raises:
        SourceInvalidError: There is none, there are several, or it cannot be made.
        Exception: Whatever the module's own code raises when it is imported.
    """
    match = _ENTRY.fullmatch(entry or DEFAULT_MODULE)
    if match is None:
        raise SourceInvalidError(f"entry {entry!r} is not of the form module:Class")
    module = _import(source, match["module"])
    kind = _named(module, match["kind"]) if match["kind"] else _only(module)
    try:
        check_constructible(kind)
    except BundleError as error:
        raise SourceInvalidError(str(error)) from None
    return kind


def _import(source: Path, name: str) -> ModuleType:
    path = source.joinpath(*name.split("."))
    if not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()):
        raise SourceInvalidError(f"the source has no {name.replace('.', '/')}.py")
    return import_entry_module(name, source)


def _named(module: ModuleType, name: str) -> type[Model]:
    kind = getattr(module, name, None)
    if not _is_model(kind):
        raise SourceInvalidError(f"{module.__name__}:{name} is not a modelyard.Model")
    return kind


def _only(module: ModuleType) -> type[Model]:
    own = (k for k in vars(module).values() if _is_model(k) and k.__module__ == module.__name__)
    found = list(dict.fromkeys(own))
    if len(found) == 1:
        return found[0]
    if not found:
        raise SourceInvalidError(f"{module.__name__}.py defines no subclass of modelyard.Model")
    names = ", ".join(sorted(kind.__name__ for kind in found))
    raise SourceInvalidError(f"{module.__name__}.py defines several models ({names}): name one")


def _is_model(value: object) -> TypeGuard[type[Model]]:
    return isinstance(value, type) and issubclass(value, Model) and value is not Model
