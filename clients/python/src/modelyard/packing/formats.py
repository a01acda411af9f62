"""Models of frameworks, written as the framework's own format rather than a pickle.

What a model is, is told by the module of its class, so that no framework is imported here that
the caller has not imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.bundle import FILES, BundleError, Loader
from modelyard.loaders import XGBOOST_CLASSES
from modelyard.packing import snapshot


@dataclass(frozen=True, slots=True)
class Saved:
    """How a model was written, and what loads it again."""

    loader: Loader
    package: str
    """The distribution that loads it."""
    entry: str = ""
    entry_class: type | None = None


def save(model: Any, folder: Path) -> Saved | None:
    """Write a model in its framework's format; None when it has none, or none that is whole.

    Raises:
        BundleError: The framework's format is there, but cannot be written.
    """
    framework, kind = _framework(model), type(model).__name__
    if framework == "xgboost" and kind in XGBOOST_CLASSES:
        model.save_model(folder / FILES[Loader.XGBOOST])
        return Saved(Loader.XGBOOST, _distribution("xgboost-cpu", "xgboost"), kind)
    if framework == "lightgbm" and kind == "Booster":
        model.save_model(folder / FILES[Loader.LIGHTGBM])
        return Saved(Loader.LIGHTGBM, "lightgbm")
    if framework == "onnx" and kind == "ModelProto":
        (folder / FILES[Loader.ONNX]).write_bytes(model.SerializeToString())
        return Saved(Loader.ONNX, _distribution("onnxruntime-gpu", "onnxruntime"))
    if framework == "torch":
        return _save_torch(model, folder)
    if framework == "sklearn" and importlib.util.find_spec("skops"):
        return _save_skops(model, folder)
    return None


def _framework(model: Any) -> str:
    """Return the framework of a model; a torch module's class is usually the caller's own."""
    names = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    return "torch" if "torch" in names else names[0]


def _save_torch(module: Any, folder: Path) -> Saved:
    kind = type(module)
    entry = snapshot.entry_of(module)
    try:
        save_model = importlib.import_module("safetensors.torch").save_model
    except ModuleNotFoundError:
        raise BundleError("install safetensors to log a torch module") from None
    save_model(module, str(folder / FILES[Loader.TORCH]))
    return Saved(Loader.TORCH, "safetensors", entry, kind)


def _save_skops(model: Any, folder: Path) -> Saved | None:
    """Write with skops, unless the model holds types that skops trusts nobody with."""
    skops = importlib.import_module("skops.io")
    path = folder / FILES[Loader.SKOPS]
    try:
        skops.dump(model, path)
        is_whole = not skops.get_untrusted_types(file=path)
    except Exception:
        is_whole = False
    if is_whole:
        return Saved(Loader.SKOPS, "skops")
    path.unlink(missing_ok=True)
    return None


def _distribution(*names: str) -> str:
    """Return the first of some distributions of one module that is installed, else the last."""
    installed = (name for name in names if _is_installed(name))
    return next(installed, names[-1])


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
