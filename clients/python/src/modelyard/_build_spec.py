"""What a build order says, from Python's own values: for `client.builds.create` and its like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict
from urllib.parse import urlsplit

from google.protobuf.duration_pb2 import Duration

from modelyard._names import Names, Ref
from modelyard._values import encode_params
from modelyard.builder.v1 import build_pb2
from modelyard.errors import InvalidArgumentError

_RESOURCES = {
    "cpu": "cpu_cores",
    "memory": "memory_bytes",
    "disk": "disk_bytes",
    "processes": "process_count",
}
_RETRIES = ("worker_lost", "out_of_memory", "timeout")


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository to build from; whoever works on the build fetches it."""

    url: str
    """`https://…`, without credentials."""
    ref: str = ""
    """A branch, a tag or a full commit hash; empty: the default branch."""
    subdirectory: str = ""
    """The folder in it that is the source."""
    secret: Ref | None = None
    """The secret that lets us in: a token, or `user:password`."""


class BuildOptions(TypedDict, total=False):
    """How to build; everything may be left out."""

    entry: str
    """`module:Class`; else the one subclass that `model.py` defines."""
    params: Mapping[str, object] | None
    requirements: str
    """A requirements file or pyproject.toml, as a path in the source; else a usual one."""
    python_version: str
    """Such as `3.11`; else the worker's own."""
    data: Mapping[str, Ref] | None
    """Name → dataset version: `context.data(name)` is the folder with its files."""
    variables: Mapping[str, str] | None
    """Environment variables of training and of the source's tests."""
    secrets: Mapping[str, Ref] | None
    """Such variables, each with the secret that it holds."""
    resources: Mapping[str, float] | None
    """`cpu` (cores), `memory` and `disk` (bytes), `processes`."""
    timeouts: Mapping[str, float | timedelta] | None
    """Phase, such as `train` → seconds."""
    retries: Mapping[str, int] | None
    """`worker_lost`, `out_of_memory`, `timeout` → how often it is tried again after that."""
    network: bool
    """Let training and tests reach the network."""
    skip_tests: bool
    skip_image: bool
    """Make no container image."""
    priority: int
    """From -100 to 100; higher goes first."""
    pool: str
    """The pool of workers that may take it."""
    group: str
    """Which builds belong together."""
    origin: build_pb2.SourceOrigin | None
    """Where the source came from; for a folder in a git work tree it is found out."""
    aliases: Sequence[str]
    """What shall point to the version."""
    labels: Mapping[str, str] | None


def build_spec(names: Names, source: str | GitSource, options: BuildOptions) -> build_pb2.BuildSpec:
    """Return the message for a source, the full name of an artifact or a repository.

    Raises:
        InvalidArgumentError: An option is of no use, such as a phase that does not exist.
    """
    taken = build_pb2.BuildSpec(
        source=source if isinstance(source, str) else "",
        git=None if isinstance(source, str) else _git(names, source),
        entry=options.get("entry", ""),
        params=encode_params(options.get("params")),
        python_version=options.get("python_version", ""),
        requirements=options.get("requirements", ""),
        data=[
            build_pb2.DataInput(name=name, dataset_version=names.dataset_version(version))
            for name, version in (options.get("data") or {}).items()
        ],
        variables=options.get("variables") or {},
        secrets=[
            build_pb2.SecretVariable(variable=variable, secret=names.secret(secret))
            for variable, secret in (options.get("secrets") or {}).items()
        ],
        timeouts=_timeouts(options.get("timeouts") or {}),
        network=options.get("network", False),
        skip_tests=options.get("skip_tests", False),
        skip_image=options.get("skip_image", False),
        priority=options.get("priority", 0),
        pool=options.get("pool", ""),
        group=options.get("group", ""),
        origin=options.get("origin"),
        aliases=options.get("aliases", ()),
        labels=options.get("labels") or {},
    )
    _fill_resources(taken.resources, options.get("resources") or {})
    retries = options.get("retries") or {}
    for reason, count in retries.items():
        setattr(taken.retries, _known(reason, _RETRIES, "retries"), count)
    return taken


def model_of(source: GitSource) -> str:
    """Return the id that a model has when none is given: the repository's or the folder's name."""
    path = source.subdirectory or urlsplit(source.url).path.removesuffix(".git")
    return path.rstrip("/").rpartition("/")[2].lower()


def _git(names: Names, source: GitSource) -> build_pb2.GitSource:
    return build_pb2.GitSource(
        url=source.url,
        ref=source.ref,
        subdirectory=source.subdirectory,
        secret="" if source.secret is None else names.secret(source.secret),
    )


def _timeouts(timeouts: Mapping[str, float | timedelta]) -> list[build_pb2.PhaseTimeout]:
    prefix = "PHASE_KIND_"
    phases = {
        name.removeprefix(prefix).lower(): number
        for name, number in build_pb2.PhaseKind.items()
        if number
    }
    messages = []
    for phase, limit in timeouts.items():
        duration = Duration()
        duration.FromTimedelta(limit if isinstance(limit, timedelta) else timedelta(seconds=limit))
        number = phases[_known(phase, phases, "timeouts")]
        messages.append(build_pb2.PhaseTimeout(phase=number, timeout=duration))
    return messages


def _fill_resources(message: build_pb2.Resources, resources: Mapping[str, float]) -> None:
    for name, amount in resources.items():
        field = _RESOURCES[_known(name, _RESOURCES, "resources")]
        setattr(message, field, amount if field == "cpu_cores" else int(amount))


def _known(word: str, words: Mapping[str, object] | Sequence[str], what: str) -> str:
    if word not in words:
        message = f"{what}: {word!r} is none of {', '.join(words)}"
        raise InvalidArgumentError(message, reason="INVALID_FIELD")
    return word
