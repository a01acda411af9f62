"""Bundles: the folder that holds a model, its code, its environment and its example.

This file owns reading a bundle; `modelyard.loaders` loads the model in it, `modelyard.packing`
writes bundles. Loading runs the model's code: only `modelyard.serving` and the smoke test do it, in
the model's own environment. numpy is needed to predict, nothing else.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]

FORMAT = 1
FACTS_FILE = "modelyard.json"
MODEL_FOLDER = "model"
CODE_FOLDER = "code"
LOCK_FILE = "environment/requirements.lock"
EXAMPLE_FILE = "example.json"
SCHEMA_FILE = "schema.json"
CARD_FILE = "MODEL_CARD.md"
CARD_LENGTH = 262_144
PICKLE_FILE = "model.pkl"
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class BundleError(ValueError):
    """A bundle cannot be written, read or loaded; the text says what to do."""


class Loader(StrEnum):
    """How the model in a bundle is brought to life."""

    MODEL_CLASS = "model-class"
    SKLEARN = "sklearn"
    """A pickle of anything with `predict(X)`."""
    SKOPS = "skops"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    ONNX = "onnx"
    TORCH = "torch"
    """A state in safetensors, and in the code the class of the module that has it."""


FILES: Mapping[Loader, str] = {
    Loader.SKLEARN: PICKLE_FILE,
    Loader.SKOPS: "model.skops",
    Loader.XGBOOST: "model.ubj",
    Loader.LIGHTGBM: "model.txt",
    Loader.ONNX: "model.onnx",
    Loader.TORCH: "model.safetensors",
}
"""The model's one file, by loader; a model class has whatever files it likes."""
_WITH_CLASS = (Loader.MODEL_CLASS, Loader.TORCH)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle says about itself."""

    directory: Path
    loader: Loader
    entry: str
    model: str
    python: str
    environment_digest: str
    example: dict[str, Any] | None
    card: str
    license: str

    @property
    def model_directory(self) -> Path:
        """Return the folder with the model's own files."""
        return self.directory / MODEL_FOLDER

    @property
    def code_directory(self) -> Path:
        """Return the folder with the source snapshot; it need not exist."""
        return self.directory / CODE_FOLDER


class Predictor(Protocol):
    """A loaded model."""

    def predict(self, inputs: Tensors) -> Tensors:
        """Answer one batch, name → array in and out."""
        ...


def read(directory: str | Path) -> Bundle:
    """Read what a bundle says about itself; raise BundleError when it is none."""
    root = Path(directory)
    facts = _read_object(root / FACTS_FILE)
    if facts.get("format") != FORMAT:
        raise BundleError(f"{root / FACTS_FILE}: format must be {FORMAT}")
    texts = {key: _text(facts, key, root) for key in ("loader", "entry", "model", "python")}
    loader = _loader(texts["loader"], root)
    if loader in _WITH_CLASS and not _ENTRY.fullmatch(texts["entry"]):
        raise BundleError(f"{root / FACTS_FILE}: entry must be `module:Class`")
    example = root / EXAMPLE_FILE
    return Bundle(
        directory=root,
        loader=loader,
        entry=texts["entry"],
        model=texts["model"],
        python=texts["python"],
        environment_digest=_text(facts, "environment_digest", root),
        example=_read_object(example) if example.exists() else None,
        card=_read_card(root / CARD_FILE),
        license=_text(facts, "license", root),
    )


def normalise_outputs(outputs: Any) -> Tensors:
    """Name a model's outputs: an array is `output-0`, a tuple `output-0`, `output-1` and so on."""
    import numpy as np  # noqa: PLC0415 - the tracking side runs without numpy

    if isinstance(outputs, Mapping):
        return {str(name): np.asarray(value) for name, value in outputs.items()}
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return {f"output-{index}": np.asarray(value) for index, value in enumerate(parts)}


def import_entry_module(name: str, folder: Path) -> ModuleType:
    """Import a module from a code folder, also when another one of its name is loaded."""
    make_importable(folder)
    top = name.partition(".")[0]
    loaded = sys.modules.get(top)
    origin = getattr(loaded, "__file__", None)
    here = (folder / f"{top}.py").exists() or (folder / top).is_dir()
    if loaded is not None and here and not (origin and _is_inside(Path(origin), folder)):
        for module in [m for m in sys.modules if m == top or m.startswith(f"{top}.")]:
            del sys.modules[module]
    importlib.invalidate_caches()
    return importlib.import_module(name)


def make_importable(folder: Path) -> None:
    """Let imports look into a folder first."""
    text = str(folder.resolve())
    if text in sys.path:
        sys.path.remove(text)
    sys.path.insert(0, text)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: this is not a bundle") from None
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path} is not a JSON object")
    return value


def _read_card(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8") if path.stat().st_size <= 4 * CARD_LENGTH else None
    if text is None or len(text) > CARD_LENGTH:
        raise BundleError(f"{path} is longer than {CARD_LENGTH} characters")
    return text


def _text(facts: Mapping[str, Any], key: str, root: Path) -> str:
    value = facts.get(key, "")
    if not isinstance(value, str):
        raise BundleError(f"{root / FACTS_FILE}: {key} must be text")
    return value


def _loader(text: str, root: Path) -> Loader:
    try:
        return Loader(text)
    except ValueError:
        known = ", ".join(Loader)
        raise BundleError(f"{root / FACTS_FILE}: loader must be one of {known}") from None
