"""How to build, from a file: what automations and `modelyard build --file` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._build_spec import BuildOptions, GitSource
from modelyard._names import is_artifact
from modelyard._values import encode_value
from modelyard.builder.v1 import build_pb2
from modelyard.cli.automating.document import Section, Value, entries, parse, text_of
from modelyard.cli.automating.values import checked, named, seconds, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard._names import Names

_NEWEST = "newest"
_RETRIES = ("worker_lost", "out_of_memory", "timeout")


@dataclass(frozen=True, slots=True)
class Order:
    """What a file says of a build."""

    source: Path | GitSource | str
    """A folder, a repository, or the full name of an artifact."""
    options: BuildOptions
    newest: Mapping[str, str]
    """Data to be read in its dataset's newest version: name → dataset."""


def read_build_file(path: Path, names: Names) -> tuple[str, Order]:
    """Read a file for `modelyard build`; return the model it names, if it does, and the order.

    Raises:
        InvalidArgumentError: With the line of what is wrong.
    """
    top = parse(text_of(path), str(path))
    model, group = top.find("model"), top.read("group", str, "")
    name = "" if model is None else named(model, names.model)
    order = read_order(top, names, path.parent)
    if order.newest:
        top.place.refuse("names newest data, which only automations look up")
    order.options["group"] = group
    return name, order


def read_order(section: Section, names: Names, folder: Path) -> Order:
    """Read a mapping that says how to build; a source in it is relative to a folder.

    Raises:
        InvalidArgumentError: With the line of what is wrong.
    """
    source = _source(section, names, folder)
    data, newest = _data(section, names)
    options: BuildOptions = {
        "entry": section.read("entry", str, ""),
        "python_version": section.read("python_version", str, ""),
        "requirements": section.read("requirements", str, ""),
        "params": _params(section),
        "data": data,
        "variables": section.texts("variables"),
        "secrets": _secrets(section, names),
        "network": section.read("network", bool, False),
        "resources": _resources(section),
        "timeouts": _timeouts(section),
        "retries": _retries(section),
        "skip_tests": section.read("skip_tests", bool, False),
        "skip_image": section.read("skip_image", bool, False),
        "priority": section.read("priority", int, 0),
        "pool": section.read("pool", str, ""),
        "labels": section.texts("labels"),
        "aliases": section.list_of("aliases"),
    }
    section.close()
    return Order(source, options, newest)


def _source(section: Section, names: Names, folder: Path) -> Path | GitSource | str:
    source, git = section.find("source"), section.find("git")
    if (source is None) == (git is None):
        section.place.refuse("must have either source or git")
    if git is not None:
        given = git.section()
        secret = given.find("secret")
        found = GitSource(
            given.need("url").read(str),
            given.read("ref", str, ""),
            given.read("subdirectory", str, ""),
            None if secret is None else named(secret, names.secret),
        )
        given.close()
        return found
    assert source is not None  # noqa: S101 - one of the two is there
    text = source.read(str)
    if is_artifact(text):
        return names.artifact(text)
    path = folder / text
    if not path.is_dir():
        source.place.refuse(f"is no folder beside the file: {text}")
    return path


def _params(section: Section) -> dict[str, Any]:
    params = section.find("params")
    found = list(entries(params.section())) if params else []
    for _, value in found:
        checked(value, encode_value)
    return {key: value.plain() for key, value in found}


def _secrets(section: Section, names: Names) -> dict[str, str]:
    found = section.find("secrets")
    secrets = entries(found.section()) if found else ()
    return {variable: named(value, names.secret) for variable, value in secrets}


def _resources(section: Section) -> dict[str, float]:
    found = section.find("resources")
    if found is None:
        return {}
    given = found.section()
    readers: dict[str, tuple[str, Any]] = {
        "cpu_cores": ("cpu", lambda value: value.read(float)),
        "processes": ("processes", lambda value: value.read(int)),
        "memory": ("memory", size),
        "disk": ("disk", size),
    }
    values = {key: given.find(key) for key in readers}
    given.close()
    return {
        readers[key][0]: readers[key][1](value)
        for key, value in values.items()
        if value is not None
    }


def _timeouts(section: Section) -> dict[str, float]:
    timeouts = section.find("timeouts")
    found = list(entries(timeouts.section())) if timeouts else []
    for phase, value in found:
        if f"PHASE_KIND_{phase.upper()}" not in build_pb2.PhaseKind.keys():  # noqa: SIM118 - an enum
            value.place.refuse("is no phase, such as train")
    return {phase.lower(): seconds(value) for phase, value in found}


def _retries(section: Section) -> dict[str, int]:
    retries = section.find("retries")
    if retries is None:
        return {}
    given = retries.section()
    values = {key: given.find(key) for key in _RETRIES}
    given.close()
    return {key: value.read(int) for key, value in values.items() if value is not None}


def _data(section: Section, names: Names) -> tuple[dict[str, str], dict[str, str]]:
    """Read data inputs: `prices/3`, or `newest prices`."""
    data = section.find("data")
    fixed: dict[str, str] = {}
    newest: dict[str, str] = {}
    for name, value in entries(data.section()) if data else ():
        word, _, dataset = value.read(str).partition(" ")
        if word == _NEWEST and dataset:
            newest[name] = _dataset(value, names, dataset)
        else:
            fixed[name] = named(value, names.dataset_version)
    return fixed, newest


def _dataset(value: Value, names: Names, dataset: str) -> str:
    return str(checked(value, lambda _: names.dataset(dataset)))
