"""Between a build order's message and its domain: pure functions, and what an order must obey."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import duration_pb2
from modelyard.builder.v1 import build_pb2
from modelyard.common.v1 import value_pb2

from services.builder.spec import (
    DEFAULT_POOL,
    MAX_ALIASES,
    MAX_DATA,
    MAX_DIFF_BYTES,
    MAX_LABELS,
    MAX_PARAMS,
    MAX_PHASE_TIMEOUT,
    MAX_PRIORITY,
    MAX_RETRIES,
    MAX_SECRETS,
    MAX_VARIABLES,
    BuildSpec,
    DataInput,
    GitSource,
    PhaseKind,
    Resources,
    RetryBudget,
    SourceOrigin,
)
from services.common.durations import length_of
from services.common.errors import invalid_field
from services.common.names import (
    ArtifactName,
    DatasetVersionName,
    SecretName,
    VersionName,
    check_id,
    invalid_name,
)

_SPEC = "build.spec"
_KINDS = {build_pb2.PhaseKind.Value(f"PHASE_KIND_{kind}"): kind for kind in PhaseKind}
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OWN_VARIABLES = "MODELYARD_"
# By these a loader, a shell or Python would run something else than what the build is to run.
_LOADED_BY = re.compile(
    r"LD_\w+|PATH|IFS|ENV|BASH_ENV|BASH_FUNC_\w+|SHELLOPTS|BASHOPTS|PS4|PROMPT_COMMAND|GCONV_PATH"
    r"|PYTHON(PATH|HOME|STARTUP|INSPECT|EXECUTABLE|PLATLIBDIR|USERBASE|BREAKPOINT|PYCACHEPREFIX)"
)
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_SCHEMES = ("https", "http")
_MAX_KEY = 250
_MAX_TEXT = 65_536
_MAX_LIST = 1_000
_MAX_DEPTH = 4
_MAX_ORIGIN = 2_048
_MAX_PATH = 1_024
_MAX_CORES = 10_000.0
_MAX_BYTES = 1 << 60
_MAX_PROCESSES = 1_000_000


def spec(message: build_pb2.BuildSpec, project: str) -> BuildSpec:
    """Read what to build and how, in a project.

    Raises:
        ServiceError: INVALID_FIELD, INVALID_NAME.
    """
    if bool(message.source) == message.HasField("git"):
        raise invalid_field(f"{_SPEC}.source", "exactly one of source and git must be set")
    if message.entry and not _ENTRY.fullmatch(message.entry):
        raise invalid_field(f"{_SPEC}.entry", "must be module:Class")
    if message.python_version and not _PYTHON.fullmatch(message.python_version):
        raise invalid_field(f"{_SPEC}.python_version", "must be such as 3.11")
    variables, secrets = _variables(message), _secrets(message.secrets, project)
    if variables.keys() & secrets.keys():
        raise invalid_field(f"{_SPEC}.secrets", "no variable may be both plain and secret")
    return BuildSpec(
        source=_source(message.source, project) if message.source else "",
        git=_git(message.git, project) if message.HasField("git") else None,
        entry=message.entry,
        params=_params(message.params),
        python_version=message.python_version,
        requirements=_path(message.requirements, f"{_SPEC}.requirements"),
        data=_data(message.data, project),
        variables=variables,
        secrets=secrets,
        resources=resources(message.resources, f"{_SPEC}.resources"),
        timeouts=_timeouts(message.timeouts),
        network=message.network,
        skip_tests=message.skip_tests,
        skip_image=message.skip_image,
        priority=_within(message.priority, -MAX_PRIORITY, MAX_PRIORITY, f"{_SPEC}.priority"),
        pool=check_id(message.pool or DEFAULT_POOL, f"{_SPEC}.pool"),
        retries=_retries(message.retries),
        group=check_id(message.group, f"{_SPEC}.group") if message.group else "",
        origin=origin(message.origin, f"{_SPEC}.origin") if message.HasField("origin") else None,
        aliases=_aliases(message.aliases),
        labels=_labels(message.labels),
        reproduces=_reproduces(message),
    )


def _reproduces(message: build_pb2.BuildSpec) -> str:
    if not message.reproduces:
        return ""
    if message.aliases:
        raise invalid_field(f"{_SPEC}.aliases", "must be empty where nothing is registered")
    return str(VersionName.parse(message.reproduces, f"{_SPEC}.reproduces"))


def _source(text: str, project: str) -> str:
    name = ArtifactName.parse(text, f"{_SPEC}.source")
    return str(_owned(name, project, f"{_SPEC}.source"))


def _owned(name: Any, project: str, field: str) -> Any:
    if name.project != project:
        raise invalid_name(field, "must belong to the build's project")
    return name


def _git(message: build_pb2.GitSource, project: str) -> GitSource:
    field = f"{_SPEC}.git"
    if message.ref and (not _REF.fullmatch(message.ref) or ".." in message.ref):
        raise invalid_field(f"{field}.ref", "must be a branch, a tag or a full commit hash")
    secret = ""
    if message.secret:
        name = SecretName.parse(message.secret, f"{field}.secret")
        secret = str(_owned(name, project, f"{field}.secret"))
    subdirectory = _path(message.subdirectory, f"{field}.subdirectory")
    return GitSource(_git_url(message.url, f"{field}.url"), message.ref, subdirectory, secret)


def _git_url(url: str, field: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise invalid_field(field, "is no URL") from None
    printable = len(url) <= _MAX_ORIGIN and url.isprintable() and " " not in url
    if not printable or parts.scheme not in _SCHEMES or not host:
        raise invalid_field(field, "must be an https:// or http:// URL; SSH is not spoken")
    if parts.username or parts.password is not None:
        raise invalid_field(field, "must hold no credentials; name a secret")
    if parts.query or parts.fragment:
        raise invalid_field(field, "must have neither a query nor a fragment")
    if _is_no_server(host):
        raise invalid_field(field, "must not be an address of the link or of no host")
    return url


def _is_no_server(host: str) -> bool:
    """Say whether a host is written as an address where a cloud's credentials, or nothing, lie."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_link_local or address.is_unspecified or address.is_multicast


def _path(text: str, field: str) -> str:
    """Read a relative path that stays where it is."""
    if not text:
        return ""
    path = PurePosixPath(text)
    bad = path.is_absolute() or ".." in path.parts or "\\" in text or not text.isprintable()
    if bad or len(text) > _MAX_PATH:
        raise invalid_field(field, "must be a path in the source, such as requirements.txt")
    return str(path)


def _data(inputs: Iterable[build_pb2.DataInput], project: str) -> tuple[DataInput, ...]:
    field = f"{_SPEC}.data"
    found: dict[str, DataInput] = {}
    for message in inputs:
        name = check_id(message.name, f"{field}.name")
        version = DatasetVersionName.parse(message.dataset_version, f"{field}.dataset_version")
        found[name] = DataInput(name, str(_owned(version, project, f"{field}.dataset_version")))
    if len(found) < len(list(inputs)) or len(found) > MAX_DATA:
        raise invalid_field(field, f"must be at most {MAX_DATA}, each of another name")
    return tuple(found.values())


def _variables(message: build_pb2.BuildSpec) -> dict[str, str]:
    if len(message.variables) > MAX_VARIABLES:
        raise invalid_field(f"{_SPEC}.variables", f"must be at most {MAX_VARIABLES}")
    for name, value in message.variables.items():
        _variable(name, f"{_SPEC}.variables")
        if len(value) > _MAX_TEXT or "\0" in value:
            problem = f"values have at most {_MAX_TEXT} characters and no NUL"
            raise invalid_field(f"{_SPEC}.variables", problem)
    return dict(sorted(message.variables.items()))


def _variable(name: str, field: str) -> str:
    if not _VARIABLE.fullmatch(name) or name.startswith(_OWN_VARIABLES):
        problem = f"names are letters, digits and _, and none begins with {_OWN_VARIABLES}"
        raise invalid_field(field, problem)
    if _LOADED_BY.fullmatch(name):
        raise invalid_field(field, f"{name} would change which programs and modules run")
    return name


def _secrets(secrets: Iterable[build_pb2.SecretVariable], project: str) -> dict[str, str]:
    field = f"{_SPEC}.secrets"
    found: dict[str, str] = {}
    for message in secrets:
        name = SecretName.parse(message.secret, f"{field}.secret")
        variable = _variable(message.variable, f"{field}.variable")
        found[variable] = str(_owned(name, project, f"{field}.secret"))
    if len(found) < len(list(secrets)) or len(found) > MAX_SECRETS:
        raise invalid_field(field, f"must be at most {MAX_SECRETS}, each of another variable")
    return found


def resources(message: build_pb2.Resources, field: str) -> Resources:
    """Read what a build asks for, or a worker has."""
    cores = message.cpu_cores
    if not (math.isfinite(cores) and 0 <= cores <= _MAX_CORES):
        raise invalid_field(f"{field}.cpu_cores", f"must be from 0 to {_MAX_CORES:g}")
    return Resources(
        cores,
        _within(message.memory_bytes, 0, _MAX_BYTES, f"{field}.memory_bytes"),
        _within(message.disk_bytes, 0, _MAX_BYTES, f"{field}.disk_bytes"),
        _within(message.process_count, 0, _MAX_PROCESSES, f"{field}.process_count"),
    )


def _within(value: int, least: int, most: int, field: str) -> int:
    if not least <= value <= most:
        raise invalid_field(field, f"must be from {least} to {most}")
    return value


def _timeouts(timeouts: Iterable[build_pb2.PhaseTimeout]) -> dict[PhaseKind, float]:
    field = f"{_SPEC}.timeouts"
    found: dict[PhaseKind, float] = {}
    for message in timeouts:
        kind = _KINDS.get(message.phase)
        if kind is None or kind in found:
            raise invalid_field(f"{field}.phase", "must name each phase at most once")
        timeout = length_of(
            message.timeout,
            f"{field}.timeout",
            least=timedelta(milliseconds=1),
            most=MAX_PHASE_TIMEOUT,
        )
        found[kind] = timeout.total_seconds()
    return found


def _retries(message: build_pb2.RetryBudget) -> RetryBudget:
    budget = {
        field.name: _within(value, 0, MAX_RETRIES, f"{_SPEC}.retries.{field.name}")
        for field, value in message.ListFields()
    }
    return RetryBudget(**budget)


def origin(message: build_pb2.SourceOrigin, field: str) -> SourceOrigin:
    """Read where a source came from."""
    texts = (message.repository, message.commit, message.branch)
    if any(len(text) > _MAX_ORIGIN for text in texts):
        raise invalid_field(field, f"must have at most {_MAX_ORIGIN} characters each")
    if len(message.diff.encode()) > MAX_DIFF_BYTES:
        raise invalid_field(f"{field}.diff", "must have at most 1 MiB")
    return SourceOrigin(*texts, message.dirty, message.diff)


def _aliases(ids: Any) -> tuple[str, ...]:
    if len(ids) > MAX_ALIASES:
        raise invalid_field(f"{_SPEC}.aliases", f"must be at most {MAX_ALIASES}")
    return tuple(check_id(alias, f"{_SPEC}.aliases") for alias in dict.fromkeys(ids))


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    fit = all(0 < len(key) <= 63 and len(value) <= 255 for key, value in labels.items())
    if len(labels) > MAX_LABELS or not fit:
        problem = f"must be at most {MAX_LABELS}, keys of 1 to 63 and values of 255 characters"
        raise invalid_field(f"{_SPEC}.labels", problem)
    return dict(labels)


def _params(params: Mapping[str, value_pb2.Value]) -> dict[str, Any]:
    if len(params) > MAX_PARAMS:
        raise invalid_field(f"{_SPEC}.params", f"must be at most {MAX_PARAMS}")
    if not all(0 < len(key) <= _MAX_KEY for key in params):
        raise invalid_field(f"{_SPEC}.params", f"keys must have 1 to {_MAX_KEY} characters")
    return {key: _value(params[key], 0) for key in sorted(params)}


def _value(message: value_pb2.Value, depth: int) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise invalid_field(f"{_SPEC}.params", "each needs a value")
    if kind == "list_value":
        values = message.list_value.values
        if len(values) > _MAX_LIST or depth >= _MAX_DEPTH:
            problem = f"lists have at most {_MAX_LIST} values and nest {_MAX_DEPTH} deep"
            raise invalid_field(f"{_SPEC}.params", problem)
        return [_value(part, depth + 1) for part in values]
    value = getattr(message, kind)
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise invalid_field(f"{_SPEC}.params", f"text has at most {_MAX_TEXT} characters")
    return value


def spec_message(found: BuildSpec) -> build_pb2.BuildSpec:
    """Write what to build and how."""
    message = build_pb2.BuildSpec(
        source=found.source,
        entry=found.entry,
        params={key: _value_message(value) for key, value in found.params.items()},
        python_version=found.python_version,
        requirements=found.requirements,
        data=[
            build_pb2.DataInput(name=d.name, dataset_version=d.dataset_version) for d in found.data
        ],
        variables=found.variables,
        secrets=[build_pb2.SecretVariable(variable=v, secret=s) for v, s in found.secrets.items()],
        resources=_resources_message(found.resources),
        timeouts=[_timeout_message(kind, seconds) for kind, seconds in found.timeouts.items()],
        network=found.network,
        skip_tests=found.skip_tests,
        skip_image=found.skip_image,
        reproduces=found.reproduces,
        priority=found.priority,
        pool=found.pool,
        retries=_retries_message(found.retries),
        group=found.group,
        aliases=found.aliases,
        labels=found.labels,
    )
    if found.git is not None:
        message.git.url, message.git.ref = found.git.url, found.git.ref
        message.git.subdirectory, message.git.secret = found.git.subdirectory, found.git.secret
    if found.origin is not None:
        message.origin.CopyFrom(origin_message(found.origin))
    return message


def origin_message(found: SourceOrigin) -> build_pb2.SourceOrigin:
    """Write where a source came from."""
    return build_pb2.SourceOrigin(
        repository=found.repository,
        commit=found.commit,
        branch=found.branch,
        dirty=found.dirty,
        diff=found.diff,
    )


def _resources_message(resources: Resources) -> build_pb2.Resources:
    return build_pb2.Resources(
        cpu_cores=resources.cpu_cores,
        memory_bytes=resources.memory_bytes,
        disk_bytes=resources.disk_bytes,
        process_count=resources.process_count,
    )


def _retries_message(retries: RetryBudget) -> build_pb2.RetryBudget:
    return build_pb2.RetryBudget(
        worker_lost=retries.worker_lost,
        out_of_memory=retries.out_of_memory,
        timeout=retries.timeout,
    )


def _timeout_message(kind: PhaseKind, seconds: float) -> build_pb2.PhaseTimeout:
    phase = build_pb2.PhaseKind.Value(f"PHASE_KIND_{kind}")
    return build_pb2.PhaseTimeout(phase=phase, timeout=duration(seconds))


def duration(seconds: float) -> duration_pb2.Duration:
    """Write a duration."""
    whole = math.floor(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


def _value_message(value: Any) -> value_pb2.Value:
    match value:
        case bool():
            return value_pb2.Value(bool_value=value)
        case int():
            return value_pb2.Value(int_value=value)
        case float():
            return value_pb2.Value(float_value=value)
        case str():
            return value_pb2.Value(string_value=value)
    values = [_value_message(part) for part in value]
    return value_pb2.Value(list_value=value_pb2.ListValue(values=values))
