"""The class users write: a model that can be built, saved, loaded and asked.

It runs in the model's own environment only; no service ever imports or unpickles a model.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

STATE_FILE = "state.pkl"


@dataclass(frozen=True, slots=True)
class Context:
    """What `Model.build` is given: the parameters and the data of this build."""

    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    folders: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    """Of the data, by name."""

    def param(self, name: str, default: Any = None) -> Any:
        """Return a parameter, or the default when the build does not set it."""
        return self.params.get(name, default)

    def data(self, name: str) -> Path:
        """Return the folder, read-only, with the files of the data that the build names so.

        Raises:
            KeyError: The build names no such data.
        """
        if name not in self.folders:
            known = ", ".join(sorted(self.folders)) or "none"
            raise KeyError(f"the build names no data {name!r}; it has {known}")
        return self.folders[name]


class Model:
    """Subclass this to let Modelyard build, test and serve a model.

    `build` trains and keeps what it learnt in attributes; `predict` uses them. The class must be
    constructible without arguments: building and serving both start from `Class()`.
    """

    example: ClassVar[Mapping[str, Any] | None] = None
    """Inputs of one request, by name, for the smoke test and the schema."""

    card: ClassVar[str | Path] = ""
    """The model card: Markdown, or the path of a file in the source folder. Empty: a build takes
    the source's `MODEL_CARD.md` or `README.md`."""

    license: ClassVar[str] = ""
    """The licence, such as `Apache-2.0`. Empty: a build takes what the card's front matter or the
    source's `LICENSE` says."""

    def build(self, context: Context) -> None:
        """Train; `modelyard.log_metric` and its like work in here."""
        raise NotImplementedError(f"{type(self).__name__} does not define build(self, context)")

    def predict(self, inputs: dict[str, Any]) -> Any:
        """Answer a batch: name → numpy array in; array, tuple of arrays or dict of arrays out."""
        raise NotImplementedError(f"{type(self).__name__} does not define predict(self, inputs)")

    def save(self, path: Path) -> None:
        """Write what `predict` needs into the folder `path`; by default, the attributes."""
        from modelyard.packing.pickling import dump  # noqa: PLC0415 - serving needs only `load`

        dump(self.__dict__, path / STATE_FILE)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote into the folder `path`."""
        with (path / STATE_FILE).open("rb") as file:
            self.__dict__.update(pickle.load(file))  # noqa: S301 - see the module's docstring
