"""The six phases, in their order: each does its part or raises why it cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from modelyard import AsyncClient, images
from modelyard.builder.v1 import build_pb2, worker_service_pb2
from modelyard.errors import ModelyardError

from services.builder.spec import DEFAULT_TIMEOUT, DEFAULT_TRAIN_TIMEOUT
from services.builder.worker import errands
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.packaging import package
from services.builder.worker.provenance import plain
from services.builder.worker.provisioning import provision
from services.builder.worker.resolving import environment
from services.builder.worker.testing import test
from services.builder.worker.work import PhaseFailedError, Work, how_ended
from services.common.environments.lock import lock_digest
from services.common.errors import Reason, ServiceError

EXIT_SOURCE_INVALID = 3
_IMAGE_PUSH = "services.builder.worker.image_push"

Phase = Callable[[Work, BuilderClient], Awaitable[None]]


async def train(work: Work, _builder: BuilderClient) -> None:
    """Run `Model.build` in a child process, which leaves the bundle."""
    spec = work.build.spec
    params = work.folder / "params.json"
    params.write_text(json.dumps({key: plain(spec.params[key]) for key in spec.params}))
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
        raise PhaseFailedError("TRAIN_FAILED", f"training {how_ended(status)}; see the log")


async def register(work: Work, builder: BuilderClient) -> None:
    """Push what was made and have the builder register it."""
    request = worker_service_pb2.RegisterBuildRequest(
        lease=work.lease,
        environment_digest=lock_digest(work.lock),
        tests_passed=work.tests_passed,
        card=work.card,
        license=work.license,
        image_digest=work.image_digest,
    )
    try:
        # The registration itself is not cut short: from its first word on it is the builder's.
        async with _limit(work, build_pb2.PHASE_KIND_REGISTER):
            await work.ask(lambda client: _push(work, client, request))
            request.image_reference = await _publish(work)
    except ModelyardError as error:
        raise PhaseFailedError("REGISTER_FAILED", str(error)) from error
    try:
        await builder.register(request)
    except ServiceError as error:
        if error.reason is Reason.LEASE_LOST:
            raise
        raise PhaseFailedError("REGISTER_FAILED", error.message) from error


async def _push(
    work: Work, client: AsyncClient, request: worker_service_pb2.RegisterBuildRequest
) -> None:
    request.artifact = (await client.artifacts.push(work.bundle)).name
    request.evidence = (await client.artifacts.push(work.evidence)).name
    if work.image_digest:
        known = images.known_digests(work.image)
        request.image = (await client.artifacts.push(work.image, known=known)).name


async def _publish(work: Work) -> str:
    """Push the image to the worker's registry, if it has one; return its reference there.

    What reproduces a version registers nothing, there neither.
    """
    settings, tag = work.settings, work.image_tag
    if not (settings.image_repository and work.image_digest) or work.build.spec.reproduces:
        return ""
    _, project, _, model = work.build.model.split("/")
    target = f"{settings.image_repository}/{project}/{model}:{tag}"
    order = {"layout": str(work.image), "target": target, "auth_file": settings.image_auth_file}
    answer = await errands.ask(_IMAGE_PUSH, order)
    if "reference" not in answer:
        problem = answer.get("problem") or "it broke off"
        raise PhaseFailedError("IMAGE_PUSH_FAILED", f"the image was not pushed: {problem}")
    work.say(f"image pushed as {answer['reference']}")
    return answer["reference"]


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
