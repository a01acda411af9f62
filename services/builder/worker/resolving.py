"""The environment phase: from a source's requirements to a lock, and on to an environment."""

from __future__ import annotations

from services.builder.worker import requirements
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.requirements import Requirements, RequirementsError
from services.builder.worker.work import PhaseFailedError, Work
from services.common.environment_lock import EnvironmentFailedError
from services.common.environments import own_python


async def environment(work: Work, _builder: BuilderClient) -> None:
    """Resolve the requirements and make the environment, or find it."""
    spec = work.build.spec
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
        work.environment = await work.environments.ensure(
            work.lock, python=python, on_line=work.say
        )
    except EnvironmentFailedError as error:
        raise PhaseFailedError("ENVIRONMENT_FAILED", str(error)) from error
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
