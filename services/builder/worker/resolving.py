"""The environment phase: from a source's requirements to a lock, and on to an environment."""

from __future__ import annotations

import json
import re

from modelyard import AsyncClient, bundle
from modelyard.errors import ModelyardError

from services.builder.worker import requirements
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.requirements import Requirements, RequirementsError
from services.builder.worker.work import PhaseFailedError, Work
from services.common.environments.lock import EnvironmentFailedError
from services.common.environments.making import own_python

_PYTHON = re.compile(r"3\.[0-9]{1,2}", re.ASCII)
_FILES = (bundle.FACTS_FILE, bundle.LOCK_FILE)


async def environment(work: Work, _builder: BuilderClient) -> None:
    """Resolve the requirements and make the environment, or find it."""
    spec = work.build.spec
    if spec.reproduces:
        await _repeat(work)
        return
    python = spec.python_version or own_python()
    try:
        found = requirements.find(work.source, spec.requirements)
        if found is not None:
            found.check_python(python)
    except RequirementsError as error:
        raise PhaseFailedError("SOURCE_INVALID", str(error)) from error
    try:
        await work.environments.check_python(python, on_line=work.say)
        work.lock = await _resolve(work, found, python)
        await _ensure(work, python)
    except EnvironmentFailedError as error:
        raise PhaseFailedError("ENVIRONMENT_FAILED", str(error)) from error


async def _repeat(work: Work) -> None:
    """Make the environment of the version that is built anew, or find it."""
    version = work.build.spec.reproduces

    async def read(client: AsyncClient) -> list[bytes]:
        return [await client.artifacts.read(version, file) for file in _FILES]

    try:
        facts, lock = await work.ask(read)
        python, work.lock = _version(json.loads(facts).get("python")), lock.decode()
    except (ModelyardError, ValueError, AttributeError) as error:
        message = f"{version} does not say in which environment it was built: {error}"
        raise PhaseFailedError("SOURCE_INVALID", message) from error
    work.say(f"the environment of {version}, as it was")
    try:
        await work.environments.check_python(python, on_line=work.say)
        await _ensure(work, python)
    except EnvironmentFailedError as error:
        raise PhaseFailedError("ENVIRONMENT_FAILED", str(error)) from error


def _version(python: object) -> str:
    """Refuse, with ValueError, what is no version of Python: it goes to the installer."""
    if not isinstance(python, str) or not _PYTHON.fullmatch(python):
        raise ValueError(f"{str(python)[:20]!r} is no version of Python")
    return python


async def _ensure(work: Work, python: str) -> None:
    work.environment = await work.environments.ensure(work.lock, python=python, on_line=work.say)
    work.lock_file.write_text(work.lock)


async def _resolve(work: Work, found: Requirements | None, python: str) -> str:
    if found is None:
        work.say("the source names no requirements: what serves a model is all there is")
        return await work.environments.resolve([], python=python, on_line=work.say)
    checked = ", checked by their hashes" if found.hashes else ""
    work.say(f"{len(found.lines)} requirements of {found.file}{checked}")
    return await work.environments.resolve(
        found.lines,
        constraints=found.constraints,
        hashes=found.hashes,
        python=python,
        on_line=work.say,
    )
