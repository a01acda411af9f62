"""What a model needs to be served: the requirements given, else what was imported; pinned."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from modelyard.bundle import BundleError

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)"
)
_PIN = re.compile(r"===?\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(;.*)?")
# What the model server brings along itself, and what installs rather than runs.
_NEVER = frozenset(
    {
        "modelyard",
        "modelyard-server",
        "grpcio",
        "protobuf",
        "googleapis-common-protos",
        "pip",
        "setuptools",
        "wheel",
        "uv",
    }
)


def lock_of(requirements: Sequence[str] | str | Path | None) -> bytes:
    """Return the lock's bytes: sorted `name==version` lines.

    Args:
        requirements: Lines, or the path of a file of them; a line without an exact version gets
            the one that is installed. None: whatever this process has imported.

    Raises:
        BundleError: A line cannot be understood, or names nothing that is installed.
    """
    pins = imported_distributions() if requirements is None else _pins(_lines_of(requirements))
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items())).encode()


def with_pin(lock: bytes, package: str) -> bytes:
    """Return a lock that also has a package, which loads the model, as it is installed here."""
    lines = lock.decode().splitlines()
    if any(line.partition("==")[0].partition("[")[0] == package for line in lines):
        return lock
    pin = f"{package}=={_version(package, '', package)}"
    return "".join(f"{line}\n" for line in sorted([*lines, pin])).encode()


def imported_distributions() -> dict[str, str]:
    """Return the distributions that this process has imported modules of, with their versions."""
    loaded = {name.partition(".")[0] for name in list(sys.modules)}
    found: dict[str, str] = {}
    for module, owners in metadata.packages_distributions().items():
        if module not in loaded:
            continue
        for owner in {_normalised(owner) for owner in owners} - _NEVER:
            if owner in found or (len(owners) > 1 and not _is_loaded(owner)):
                continue
            if _is_local(owner):
                warnings.warn(
                    f"modelyard: {owner} is installed from a folder of this machine; it is left "
                    "out of the model's requirements",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            found[owner] = metadata.version(owner)
    return found


def _lines_of(requirements: Sequence[str] | str | Path) -> list[str]:
    if not isinstance(requirements, str | Path):
        return list(requirements)
    try:
        return Path(requirements).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BundleError(f"cannot read {requirements}: {error.strerror}") from error


def _pins(lines: Iterable[str]) -> dict[str, str]:
    pins: dict[str, str] = {}
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text:
            continue
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise BundleError(f"requirement {text!r} is not of the form name==version")
        name = _normalised(match["name"])
        if name not in _NEVER:
            pins[name + (match["extras"] or "")] = _version(name, match["rest"], text)
    return pins


def _version(name: str, rest: str, text: str) -> str:
    if pin := _PIN.fullmatch(rest):
        return pin["version"]
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise BundleError(
            f"requirement {text!r} has no exact version and is not installed here"
        ) from None


def _is_loaded(distribution: str) -> bool:
    """Say whether a module of this very distribution is loaded: several share one namespace."""
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files = metadata.files(distribution) or []
    return any(str(file.locate()) in loaded for file in files if file.suffix in {".py", ".so"})


def _is_local(distribution: str) -> bool:
    text = metadata.distribution(distribution).read_text("direct_url.json")
    return text is not None and str(json.loads(text).get("url", "")).startswith("file:")


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
