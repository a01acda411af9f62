"""Pickling a model's state, refusing what could not be loaded elsewhere."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

from modelyard.bundle import BundleError


class _Recorder(pickle.Pickler):
    """A pickler that notes which modules the pickle refers to."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=5)
        self.names: dict[str, set[str]] = {}

    def reducer_override(self, obj: Any, /) -> Any:
        if isinstance(obj, type | FunctionType | BuiltinFunctionType):
            names = self.names.setdefault(obj.__module__ or "builtins", set())
            names.add(obj.__qualname__)
        return NotImplemented


def dump(value: object, path: Path) -> set[str]:
    """Pickle a value to a file and return the modules it refers to.

    Raises:
        BundleError: the value cannot be pickled, or refers to classes or functions of the script
            itself, which do not exist where it is loaded.
    """
    with path.open("wb") as file:
        pickler = _Recorder(file)
        try:
            pickler.dump(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise BundleError(f"the model cannot be pickled: {error}") from error
    if own := pickler.names.get("__main__"):
        raise BundleError(
            f"the model refers to {', '.join(sorted(own))} of the script itself; "
            "move them to a module beside it and import them"
        )
    return set(pickler.names)
