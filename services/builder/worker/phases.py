"""The six phases, in their order: each does its part or raises why it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard import bundle
from modelyard.builder.v1 import build_pb2, worker_service_pb2
from modelyard.common.v1 import value_pb2
from modelyard.errors import DeadlineExceededError, ModelyardError, UnavailableError

from services.builder.spec import DEFAULT_TIMEOUT, DEFAULT_TRAIN_TIMEOUT
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.provisioning import provision
from services.builder.worker.resolving import environment
from services.builder.worker.work import PhaseFailedError, Work
from services.common.environment_lock import EnvironmentFailedError, lock_digest
from services.common.errors import Reason, ServiceError

EXIT_SOURCE_INVALID = 3
EXIT_NO_TESTS = 5
MAX_NAMED_TESTS = 20
PYTEST = "pytest"
PYTEST_SETTINGS = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")

_FAILED_TEST = re.compile(r"(?:FAILED|ERROR) (\S+)")
_PASSING = (UnavailableError, DeadlineExceededError)

Phase = Callable[[Work, BuilderClient], Awaitable[None]]


async def train(work: Work, _builder: BuilderClient) -> None:
    """Run `Model.build` in a child process, which leaves the bundle."""
    spec = work.build.spec
    params = work.folder / "params.json"
    params.write_text(json.dumps({key: _plain(spec.params[key]) for key in spec.params}))
    work.data.mkdir(exist_ok=True)
    paths = {
        "source": work.source,
        "params": params,
        "data": work.data,
        "out": work.bundle,
        "lock": work.lock_file,
    }
    options = [part for key, path in paths.items() for part in (f"--{key}", str(path))]
    name = work.build.model.rpartition("/")[2]
    status = await work.python(
        *("-m", "modelyard.building.train", *options),
        *("--entry", spec.entry, "--name", name),
        variables=work.code_variables,
    )
    await work.spool.drain()
    if status == EXIT_SOURCE_INVALID:
        raise PhaseFailedError("SOURCE_INVALID", "the source holds no model class; see the log")
    if status != 0:
        raise PhaseFailedError("TRAIN_FAILED", f"training {_ended(status)}; see the log")


async def test(work: Work, _builder: BuilderClient) -> None:
    """Run the source's own tests, then the smoke prediction on the model's example."""
    if work.build.spec.skip_tests:
        work.say("the source's tests are left out, as ordered")
    elif not has_tests(work.source):
        work.say("the source has no tests: neither tests/ nor test_*.py")
    else:
        await _run_tests(work)
    status = await work.python("-m", "modelyard.building.smoke", "--bundle", str(work.bundle))
    await work.spool.drain()
    if status != 0:
        message = f"the smoke prediction {_ended(status)}; see the log"
        raise PhaseFailedError("SMOKE_FAILED", message)


async def package(work: Work, _builder: BuilderClient) -> None:
    """Complete the bundle with its lock and its provenance."""
    try:
        await asyncio.to_thread(_complete_bundle, work)
    except (bundle.BundleError, OSError, UnicodeDecodeError) as error:
        raise PhaseFailedError("PACKAGE_FAILED", str(error)) from error


async def register(work: Work, builder: BuilderClient) -> None:
    """Push the bundle and have the builder register it."""
    try:
        # The registration itself is not cut short: from its first word on it is the builder's.
        async with _limit(work, build_pb2.PHASE_KIND_REGISTER), work.client() as client:
            artifact = await client.artifacts.push(work.bundle)
    except _PASSING:
        raise
    except ModelyardError as error:
        raise PhaseFailedError("REGISTER_FAILED", str(error)) from error
    request = worker_service_pb2.RegisterBuildRequest(
        lease=work.lease,
        artifact=artifact.name,
        environment_digest=lock_digest(work.lock),
        tests_passed=work.tests_passed,
        card=work.card,
        license=work.license,
    )
    try:
        await builder.register(request)
    except ServiceError as error:
        if error.reason is Reason.LEASE_LOST:
            raise
        raise PhaseFailedError("REGISTER_FAILED", error.message) from error


PHASES: Mapping[build_pb2.PhaseKind.ValueType, Phase] = {
    build_pb2.PHASE_KIND_PROVISION: provision,
    build_pb2.PHASE_KIND_ENVIRONMENT: environment,
    build_pb2.PHASE_KIND_TRAIN: train,
    build_pb2.PHASE_KIND_TEST: test,
    build_pb2.PHASE_KIND_PACKAGE: package,
    build_pb2.PHASE_KIND_REGISTER: register,
}


async def run_phase(
    kind: build_pb2.PhaseKind.ValueType, work: Work, builder: BuilderClient
) -> None:
    """Run a phase within its time.

    Raises:
        PhaseFailedError: it failed, or took too long; no secret is in the message.
    """
    phase = PHASES[kind]
    try:
        if kind == build_pb2.PHASE_KIND_REGISTER:
            await phase(work, builder)
        else:
            async with _limit(work, kind):
                await phase(work, builder)
    except PhaseFailedError as error:
        error.failure.message = work.mask.text(error.failure.message)
        raise


@asynccontextmanager
async def _limit(work: Work, kind: build_pb2.PhaseKind.ValueType) -> AsyncIterator[None]:
    """End what takes longer than a phase may."""
    seconds = _timeout(work.build.spec, kind)
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        name = build_pb2.PhaseKind.Name(kind).removeprefix("PHASE_KIND_").lower()
        message = f"the {name} phase took longer than {seconds:g} seconds"
        raise PhaseFailedError("TIMEOUT", message) from None


def _timeout(spec: build_pb2.BuildSpec, kind: build_pb2.PhaseKind.ValueType) -> float:
    """Return how many seconds a phase may take."""
    for timeout in spec.timeouts:
        if timeout.phase == kind:
            return timeout.timeout.ToTimedelta().total_seconds()
    is_train = kind == build_pb2.PHASE_KIND_TRAIN
    return (DEFAULT_TRAIN_TIMEOUT if is_train else DEFAULT_TIMEOUT).total_seconds()


def has_tests(source: Path) -> bool:
    """Say whether a source brings tests of its own."""
    return (source / "tests").is_dir() or any(source.glob("test_*.py"))


async def _run_tests(work: Work) -> None:
    if work.environment is None:
        raise AssertionError
    try:
        extra = await work.environments.extend(
            work.environment, work.lock, PYTEST, on_line=work.say
        )
    except EnvironmentFailedError as error:
        message = f"pytest does not go with the requirements: {error}"
        raise PhaseFailedError("TEST_FAILED", message) from error
    lines: list[str] = []
    given = work.code_variables
    paths = [str(extra), *filter(None, [given.get("PYTHONPATH")])]
    variables = given | {"PYTHONPATH": ":".join(paths), "MODELYARD_BUNDLE": str(work.bundle)}
    arguments = ("-m", "pytest", "-v", "-rfE", "-p", "no:cacheprovider", *_confined(work.source))
    status = await work.python_heard(arguments, variables, lines)
    if status == EXIT_NO_TESTS:
        work.say("pytest found no tests in the source")
    elif status != 0:
        named = [match[1] for line in lines if (match := _FAILED_TEST.match(line))]
        message = f"failed: {', '.join(named[:MAX_NAMED_TESTS])}" if named else _ended(status)
        raise PhaseFailedError("TEST_FAILED", f"the source's tests {message}")
    work.tests_passed = status == 0


def _confined(source: Path) -> tuple[str, ...]:
    """Keep pytest from the settings of a project that the worker's own folder may lie in."""
    own = any((source / name).exists() for name in PYTEST_SETTINGS)
    return ("--rootdir=.", "--confcutdir=.", *(() if own else ("-c", os.devnull)))


def _complete_bundle(work: Work) -> None:
    _refuse_links(work.bundle)
    facts = bundle.read(work.bundle)
    lock = work.bundle / bundle.LOCK_FILE
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(work.lock)
    if facts.environment_digest != lock_digest(work.lock):
        raise bundle.BundleError("the bundle names another environment than it was built in")
    work.card, work.license = facts.card, facts.license
    provenance = _provenance(work, facts.python)
    (work.bundle / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


def _refuse_links(folder: Path) -> None:
    """Refuse what is no file: what the build's code made must not lead out of the bundle."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise bundle.BundleError(f"{name} is no file; a bundle holds nothing else")


def _provenance(work: Work, python: str) -> dict[str, Any]:
    build, spec = work.build, work.build.spec
    return {
        "format": 1,
        "build": build.name,
        "attempt": work.lease.attempt,
        "run": build.run,
        "model": build.model,
        "creator": build.creator,
        "source": build.source,
        "entry": spec.entry,
        "params": {key: _plain(spec.params[key]) for key in sorted(spec.params)},
        "origin": {
            "repository": build.origin.repository,
            "commit": build.origin.commit,
            "branch": build.origin.branch,
            "dirty": build.origin.dirty,
        },
        "requirements": spec.requirements,
        "data": {data.name: data.dataset_version for data in spec.data},
        "variables": dict(sorted(spec.variables.items())),
        "secrets": {secret.variable: secret.secret for secret in spec.secrets},
        "python": python,
        "environment_digest": lock_digest(work.lock),
        "tests_passed": work.tests_passed,
        "build_time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _plain(value: value_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(part) for part in value.list_value.values]
    return getattr(value, kind) if kind else None


def _ended(status: int) -> str:
    if status > 128:
        return f"was ended by signal {status - 128}"
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
