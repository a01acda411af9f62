"""Writing bundles; `modelyard.bundle` says what is in one and reads them."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.bundle import (
    CARD_FILE,
    CODE_FOLDER,
    EXAMPLE_FILE,
    FACTS_FILE,
    FILES,
    FORMAT,
    LOCK_FILE,
    MODEL_FOLDER,
    PICKLE_FILE,
    Bundle,
    BundleError,
    Loader,
    read,
)
from modelyard.model import Model
from modelyard.packing import formats, pickling, snapshot
from modelyard.packing.examples import infer_request
from modelyard.packing.papers import Papers, of_model, of_source
from modelyard.packing.requirements import with_pin

NO_PAPERS = Papers()
_ALONE = tuple(loader for loader in FILES if loader is not Loader.TORCH)
"""Loaders that need the model's file and nothing else."""


def write_model(
    directory: Path,
    model: Model,
    *,
    name: str,
    lock: bytes,
    example: Any = None,
    papers: Papers = NO_PAPERS,
) -> Bundle:
    """Write the bundle of a model whose class lies in a script or module of this process."""
    own = of_model(model, Path.cwd())
    papers = Papers(papers.card or own.card, papers.license or own.license)
    entry = snapshot.entry_of(model)
    snapshot.copy_modules([type(model).__module__], directory / CODE_FOLDER)
    save_state(directory, model)
    chosen = model.example if example is None else example
    facts = _Facts(Loader.MODEL_CLASS, entry, name, papers)
    return _finish(directory, facts, lock=lock, example=chosen)


def write_built(
    directory: Path, model: Model, *, entry: str, source: Path, name: str, lock: bytes
) -> Bundle:
    """Write the bundle of a model that was built from a source folder."""
    snapshot.copy_source(source, directory / CODE_FOLDER)
    save_state(directory, model)
    facts = _Facts(Loader.MODEL_CLASS, entry, name, of_source(model, source))
    return _finish(directory, facts, lock=lock, example=model.example)


def write_estimator(
    directory: Path,
    estimator: Any,
    *,
    name: str,
    lock: bytes,
    example: Any = None,
    papers: Papers = NO_PAPERS,
) -> Bundle:
    """Write the bundle of a framework's model, or of what can be pickled and has `predict(X)`."""
    folder = directory / MODEL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if (native := formats.save(estimator, folder)) is not None:
        if native.entry_class is not None:
            snapshot.copy_modules([native.entry_class.__module__], directory / CODE_FOLDER)
        facts = _Facts(native.loader, native.entry, name, papers)
        lock = with_pin(lock, native.package)
        return _finish(directory, facts, lock=lock, example=example)
    if not callable(getattr(estimator, "predict", None)):
        raise BundleError(f"{type(estimator).__name__} has no predict method")
    modules = pickling.dump(estimator, folder / PICKLE_FILE)
    snapshot.copy_modules(modules, directory / CODE_FOLDER)
    facts = _Facts(Loader.SKLEARN, "", name, papers)
    return _finish(directory, facts, lock=lock, example=example)


def write_folder(
    directory: Path,
    source: Path,
    *,
    name: str,
    lock: bytes,
    example: Any = None,
    papers: Papers = NO_PAPERS,
) -> Bundle:
    """Write the bundle of a folder: a bundle as it is, or one with a framework's file."""
    if (source / FACTS_FILE).exists():
        shutil.copytree(source, directory, dirs_exist_ok=True)
        return read(directory)
    found = [loader for loader in _ALONE if (source / FILES[loader]).is_file()]
    if len(found) != 1:
        names = ", ".join(FILES[loader] for loader in _ALONE)
        raise BundleError(
            f"{source} holds neither {FACTS_FILE} nor one of {names}; to keep any other folder "
            "as a version use client.artifacts.push and client.versions.create"
        )
    shutil.copytree(source, directory / MODEL_FOLDER, dirs_exist_ok=True)
    entry = "Booster" if found == [Loader.XGBOOST] else ""
    facts = _Facts(found[0], entry, name, papers)
    return _finish(directory, facts, lock=lock, example=example)


def save_state(directory: Path, model: Model) -> None:
    """Let a model write its own files."""
    folder = directory / MODEL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    if not any(folder.iterdir()):
        raise BundleError(f"{type(model).__name__}.save wrote nothing into {folder}")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a bundle is to say about itself."""

    loader: Loader
    entry: str
    model: str
    papers: Papers


def _finish(directory: Path, said: _Facts, *, lock: bytes, example: Any) -> Bundle:
    """Write what all bundles have, the facts last."""
    if lock:
        path = directory / LOCK_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lock)
    if example is not None:
        _write_json(directory / EXAMPLE_FILE, infer_request(example))
    if said.papers.card:
        (directory / CARD_FILE).write_text(said.papers.card, encoding="utf-8")
    major, minor, _ = platform.python_version_tuple()
    facts = {
        "format": FORMAT,
        "loader": said.loader.value,
        "entry": said.entry,
        "model": said.model,
        "python": f"{major}.{minor}",
        "environment_digest": hashlib.sha256(lock).hexdigest() if lock else "",
        "license": said.papers.license,
    }
    _write_json(directory / FACTS_FILE, facts)
    return read(directory)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
