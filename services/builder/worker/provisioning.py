"""The provision phase: the secrets, the source and the data of a build, before anything runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelyard import AsyncClient
from modelyard.builder.v1 import build_pb2
from modelyard.errors import ModelyardError, NotFoundError
from modelyard.metadata.v1 import dataset_pb2

from services.builder.worker import git_source
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.git_source import GitFailedError
from services.builder.worker.work import PhaseFailedError, Work
from services.common.errors import Reason, ServiceError
from services.common.names import DatasetVersionName

NO_CACHE = ""
"""What is pulled for a build is gone with it: no cache may keep any of it."""
READ_ONLY = 0o444


async def provision(work: Work, builder: BuilderClient) -> None:
    """Fetch what the build needs."""
    await _unlock(work, builder)
    if work.build.source:
        await _pull_source(work)
    else:
        await _fetch_source(work, builder)
    if not work.build.spec.entry and not (work.source / "model.py").is_file():
        message = "the source has no model.py; name the model class as module:Class"
        raise PhaseFailedError("SOURCE_INVALID", message)
    for data in work.build.spec.data:
        await _pull_data(work, data)


async def _unlock(work: Work, builder: BuilderClient) -> None:
    """Get the values of the secrets; from here on they are masked in all that is told."""
    spec = work.build.spec
    if not spec.secrets and not spec.git.secret:
        return
    try:
        values = await builder.secrets(work.lease)
    except ServiceError as error:
        if error.reason is Reason.RESOURCE_NOT_FOUND:
            raise PhaseFailedError("SECRET_MISSING", error.message) from error
        raise
    work.take_secrets(values)


async def _pull_source(work: Work) -> None:
    work.note_code()
    source = work.build.source
    try:
        await work.ask(lambda client: client.artifacts.pull(source, work.source, cache=NO_CACHE))
    except ModelyardError as error:
        raise PhaseFailedError("SOURCE_INVALID", str(error)) from error


async def _fetch_source(work: Work, builder: BuilderClient) -> None:
    """Fetch what the git source points to now, and have it kept for later attempts."""
    git = work.build.spec.git
    work.say(f"fetching {git.ref or 'the default branch'} of {git.url}")
    try:
        origin = await git_source.fetch(
            git, work.source, secrets=work.secret_values, settings=work.settings
        )
        artifact = await work.ask(lambda client: client.artifacts.push(work.source))
    except (GitFailedError, ModelyardError) as error:
        raise PhaseFailedError("SOURCE_INVALID", str(error)) from error
    await builder.report_source(work.lease, artifact.name, origin)
    work.build.source = artifact.name
    work.build.origin.CopyFrom(origin)
    work.note_code()
    work.say(f"commit {origin.commit}")


async def _pull_data(work: Work, data: build_pb2.DataInput) -> None:
    """Write a dataset version's files where the build reads them, and note them on the run."""
    place = work.data / data.name

    async def pull(client: AsyncClient) -> dataset_pb2.DatasetVersion:
        version = await client.datasets.get_version(data.dataset_version)
        if not version.artifact:
            raise _data_missing(data, "its bytes are not in the artifact store")
        await client.artifacts.pull(version.artifact, place, cache=NO_CACHE)
        return version

    try:
        version = await work.ask(pull)
    except NotFoundError as error:
        raise _data_missing(data, error.message) from error
    except ModelyardError as error:
        raise _data_missing(data, str(error)) from error
    work.data_artifacts[data.name] = version.artifact
    await asyncio.to_thread(_protect, place)
    name = DatasetVersionName.parse(data.dataset_version)
    work.spool.note_dataset(data.name, name.dataset, version.digest)
    work.say(f"data {data.name!r} is {name.dataset}/{name.version}")


def _data_missing(data: build_pb2.DataInput, problem: str) -> PhaseFailedError:
    return PhaseFailedError("DATA_MISSING", f"{data.name!r}, {data.dataset_version}: {problem}")


def _protect(folder: Path) -> None:
    """Make files read-only; folders stay writable to us, so that they can be removed."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(READ_ONLY)
