"""Layers of images: tars of an environment and of a bundle, the same for the same contents."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from modelyard import images
from modelyard.images import Layer

from services.common.environments.making import Environment, Environments

FORMAT = 1
"""Of how an environment's layer is made: another one is another cached layer."""
LAYER_FILE = "layer.tar"
DIGEST_FILE = "digest"
PLAIN = 0o644
EXECUTABLE = 0o755

# What tells where and when an environment was made, and what belongs to its virtual environment.
_LEFT_OUT = {"direct_url.json", "uv_cache.json", "_virtualenv.py", "_virtualenv.pth"}
_SHEBANG = re.compile(
    rb"#!(?:/[^\n]*/bin/python[\d.]*|/bin/sh\n'''exec' [^\n]*/bin/python[\d.]*'? [^\n]*\n' ''')\n"
)
_SCRIPT_RECORD = re.compile(rb"^((?:\.\./)+bin/[^,\n]*),[^,\n]*,[^,\n]*$", re.MULTILINE)
_MAX_SCRIPT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    """In the layer."""
    source: Path
    data: bytes | None = None
    """Instead of the source's own."""


async def environment_layer(environments: Environments, environment: Environment) -> Layer:
    """Return the layer of an environment, made when it is first asked for."""

    def make(place: Path) -> None:
        place.mkdir()
        files = _environment_files(environment)
        (place / DIGEST_FILE).write_text(write_layer(place / LAYER_FILE, files))

    place = await environments.derive(f"layer{FORMAT}", environment, make)
    digest = (place / DIGEST_FILE).read_text()
    return Layer("environment", place / LAYER_FILE, digest)


def model_layer(bundle: Path, target: Path) -> Layer:
    """Write the layer of a bundle to a file."""
    root = images.MODEL.lstrip("/")
    files = (_File(f"{root}/{name}", path) for name, path in _walk(bundle))
    return Layer("model", target, write_layer(target, files))


def write_layer(target: Path, files: Iterable[_File]) -> str:
    """Write a tar of files and of the folders that lead to them; return its digest."""
    with target.open("wb") as file:
        hashed = _Hashed(file)
        with tarfile.open(fileobj=hashed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            known: set[str] = set()
            for found in sorted(files, key=lambda found: found.path):
                _add_folders(tar, found.path, known)
                _add_file(tar, found)
    return f"sha256:{hashed.digest.hexdigest()}"


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()


def _add_folders(tar: tarfile.TarFile, path: str, known: set[str]) -> None:
    for parent in reversed(PurePosixPath(path).parents[:-1]):
        if str(parent) not in known:
            known.add(str(parent))
            member = tarfile.TarInfo(str(parent))
            member.type, member.mode = tarfile.DIRTYPE, EXECUTABLE
            tar.addfile(member)


def _add_file(tar: tarfile.TarFile, found: _File) -> None:
    member = tarfile.TarInfo(found.path)
    state = found.source.stat()
    member.mode = EXECUTABLE if state.st_mode & 0o100 else PLAIN
    if found.data is not None:
        member.size = len(found.data)
        tar.addfile(member, io.BytesIO(found.data))
        return
    with found.source.open("rb") as file:
        member.size = state.st_size
        tar.addfile(member, file)


def _environment_files(environment: Environment) -> Iterator[_File]:
    root = images.ENVIRONMENT.lstrip("/")
    for name, path in _walk(environment.folder / "lib"):
        if path.name not in _LEFT_OUT:
            data = _without_scripts(path) if path.name == "RECORD" else None
            yield _File(f"{root}/lib/{name}", path, data)
    for path in sorted((environment.folder / "bin").iterdir()):
        data = _relocated(path, environment.version)
        if data is not None:
            yield _File(f"{root}/bin/{path.name}", path, data)


def _relocated(path: Path, python: str) -> bytes | None:
    """Return a script of a package's for any machine; None for what is not a package's script."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_SCRIPT:
        return None
    data = path.read_bytes()
    if not _SHEBANG.match(data):
        return None
    return _SHEBANG.sub(f"#!/usr/bin/env python{python}\n".encode(), data, count=1)


def _without_scripts(record: Path) -> bytes:
    """Return a package's list of files without the digests of scripts: those change."""
    return _SCRIPT_RECORD.sub(rb"\1,,", record.read_bytes())


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the regular files below a folder; links are left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path
