"""A source's requirements: found, read and checked, before the installer sees anything of them.

What reaches the installer is a list of packages and versions, nothing else: a file that names
another may name one of the source alone, and options, addresses and local packages are refused.
So a source can make the installer neither read the worker's files nor ask another index.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from services.common.environments.lock import pin_key

USUAL_FILES = ("requirements.lock", "requirements.txt", "pyproject.toml")
PROJECT_FILE = "pyproject.toml"
OWN = "modelyard"
MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 8

_HASH = re.compile(r"\s--hash[= ](sha(?:256|384|512):[0-9a-f]{64,128})(?=\s|$)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?=[^-\s]))(\S+)")
_IGNORED_OPTIONS = ("--require-hashes",)


class RequirementsError(Exception):
    """The requirements cannot be read; the text is for whoever ordered the build."""


@dataclass(slots=True)
class Requirements:
    """What a source requires."""

    file: str
    """Its path in the source."""
    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    hashes: dict[str, frozenset[str]] = field(default_factory=dict)
    """`pin_key` → the digests that one of its files must have; empty: not checked."""
    python: str = ""
    """Which versions of Python it is for, such as `>=3.11`."""

    def check_python(self, version: str) -> None:
        """Refuse a Python that the source is not for.

        Raises:
            RequirementsError: it is not.
        """
        if self.python and not SpecifierSet(self.python).contains(f"{version}.999"):
            told = f"requires-python is {self.python}"
            raise RequirementsError(f"{self.file}: {told}; the build's Python is {version}")


def find(source: Path, wanted: str) -> Requirements | None:
    """Read a source's requirements from the file that is wanted, else from a usual one.

    Raises:
        RequirementsError: it is not there, or holds what no requirements file may hold here.
    """
    if wanted:
        return _read(source, wanted)
    names = (name for name in USUAL_FILES if (source / name).is_file())
    found = next(names, None)
    if found == PROJECT_FILE and "project" not in _toml(source / found, found):
        return None  # it holds tools' settings alone
    return _read(source, found) if found else None


def _read(source: Path, name: str) -> Requirements:
    if not (source / name).is_file():
        raise RequirementsError(f"the source has no {name}")
    found = Requirements(name)
    if Path(name).name == PROJECT_FILE:
        _read_project(found, _toml(source / name, name))
    else:
        _read_file(found, source, source / name, found.lines, 0)
        found.constraints[:] = [line for line in found.constraints if not _is_own(line)]
        _check_hashes(found)
    return found


def _read_project(found: Requirements, settings: Mapping[str, Any]) -> None:
    project = settings.get("project")
    if not isinstance(project, dict):
        raise RequirementsError(f"{found.file} has no [project] with dependencies")
    if "dependencies" in project.get("dynamic", ()):
        told = "dynamic dependencies are not supported; list them, or name a requirements file"
        raise RequirementsError(f"{found.file}: {told}")
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(d, str) for d in dependencies):
        raise RequirementsError(f"{found.file}: project.dependencies must be a list of text")
    for number, text in enumerate(dependencies, 1):
        _add(found.lines, text, f"{found.file}, dependency {number}")
    found.python = _specifier(project.get("requires-python", ""), found.file)


def _specifier(text: object, file: str) -> str:
    try:
        return str(SpecifierSet(str(text)))
    except InvalidSpecifier:
        raise RequirementsError(f"{file}: requires-python is no version specifier") from None


def _read_file(found: Requirements, source: Path, file: Path, into: list[str], depth: int) -> None:
    """Read a requirements file and those it names."""
    for number, line in _logical_lines(file):
        place = f"{file.relative_to(source)}, line {number}"
        if match := _INCLUDE.fullmatch(line):
            lines = found.constraints if line.startswith(("-c", "--c")) else into
            named = _within(source, file, match[1], place, depth)
            _read_file(found, source, named, lines, depth + 1)
        elif line.startswith("-"):
            if line not in _IGNORED_OPTIONS:
                option = line.split()[0].partition("=")[0]
                raise RequirementsError(f"{place}: the option {option} is not supported here")
        else:
            hashes = frozenset(_HASH.findall(line))
            requirement = _add(into, _HASH.sub("", line), place)
            if hashes and requirement is not None:
                found.hashes[_pin(requirement, place)] = hashes


def _logical_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Return the lines that say something, continued ones joined, with their numbers."""
    begun, start = "", 0
    for number, line in enumerate(_text(file, file.name).splitlines(), 1):
        start = start or number
        begun += f" {_COMMENT.sub('', line)}"
        if begun.rstrip().endswith("\\"):
            begun = begun.rstrip()[:-1]
            continue
        if text := begun.strip():
            yield start, text
        begun, start = "", 0
    if text := begun.strip():
        yield start, text


def _within(source: Path, file: Path, name: str, place: str, depth: int) -> Path:
    """Return the file that another names, if it is one of the source."""
    path = (file.parent / name).resolve()
    if depth >= MAX_DEPTH or not path.is_relative_to(source.resolve()) or not path.is_file():
        raise RequirementsError(f"{place}: {name} is no file of the source")
    return source / path.relative_to(source.resolve())


def _add(lines: list[str], text: str, place: str) -> Requirement | None:
    """Add a requirement; of modelyard itself only its extras, for the suite brings its own."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        problem = str(error).splitlines()[0]
        raise RequirementsError(f"{place}: {text.strip()[:200]!r}: {problem}") from None
    if requirement.url:
        told = "is not a package of an index by its version, and cannot be locked"
        raise RequirementsError(f"{place}: {text.strip()[:200]!r} {told}")
    if canonicalize_name(requirement.name) == OWN:
        lines.extend(f"{OWN}[{extra}]" for extra in sorted(requirement.extras))
        return None
    lines.append(text.strip())
    return requirement


def _is_own(line: str) -> bool:
    return line.startswith(f"{OWN}[")


def _pin(requirement: Requirement, place: str) -> str:
    specifiers = list(requirement.specifier)
    exact = len(specifiers) == 1 and specifiers[0].operator in ("==", "===")
    if not exact or specifiers[0].version.endswith(".*"):
        raise RequirementsError(f"{place}: what has a hash must be pinned, name==version")
    return pin_key(requirement.name, specifiers[0].version)


def _check_hashes(found: Requirements) -> None:
    """Refuse a file that has hashes for some packages only: the others would go unchecked."""
    if not found.hashes:
        return
    for line in filterfalse(_is_own, found.lines):
        requirement = Requirement(line)
        if _pin(requirement, found.file) not in found.hashes:
            told = "has no hash, but others have"
            raise RequirementsError(f"{found.file}: {requirement.name} {told}")


def _toml(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path, name))
    except tomllib.TOMLDecodeError as error:
        raise RequirementsError(f"{name}: {error}") from None


def _text(path: Path, name: str) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise RequirementsError(f"{name} has more than {MAX_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RequirementsError(f"{name} is not UTF-8") from None
