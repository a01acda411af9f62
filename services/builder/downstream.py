"""The calls that the builder makes to metadata and artifact, in the builder's words.

Each carries the user's credential or the build's delegation; only the renewal of
delegations carries the builder's own token.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelyard.artifact.v1 import artifact_pb2, artifact_service_pb2, artifact_service_pb2_grpc
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    project_service_pb2,
    project_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    version_pb2,
)

from services.builder.domain import Build, Delegation, bytes_missing
from services.builder.store import UnfinishedRun
from services.common.auth import Right
from services.common.errors import Reason, ServiceError
from services.common.names import BuildName, ResourceName
from services.common.rpc.peers import Peer

_NAMESPACE = uuid.UUID("6b1ff3a6-5f0e-4d64-9d0e-1b8a6f5a7c11")
_REGISTER_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a registration so far."""

    version: str
    ready: bool
    failure: str = ""
    """Why its bytes could not be held; empty: it is ready or will be."""


class Downstream:
    """Metadata and artifact, as the builder needs them."""

    def __init__(
        self, peer: Peer, *, own_token: Callable[[], str], clock: Callable[[], datetime]
    ) -> None:
        self._peer = peer
        self._own_token = own_token
        self._clock = clock

    async def hold_artifact(self, holder: ResourceName, artifact: str, *, credential: str) -> None:
        """Keep an artifact for as long as there is what holds it.

        A build holds what it is made from: it may be repeated.

        Raises:
            ServiceError: BYTES_MISSING when it is not stored.
        """
        stub = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        hold = artifact_pb2.Hold(artifact=artifact, holder=str(holder))
        request = artifact_service_pb2.HoldArtifactRequest(hold=hold)
        await self._peer.call(stub.HoldArtifact, request, credential=credential)

    async def require_artifact(self, artifact: str, *, credential: str) -> None:
        """Refuse with BYTES_MISSING an artifact that is not stored."""
        stub = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        request = artifact_service_pb2.GetArtifactRequest(name=artifact)
        try:
            await self._peer.call(stub.GetArtifact, request, credential=credential)
        except ServiceError as error:
            if error.reason is Reason.RESOURCE_NOT_FOUND:
                raise bytes_missing(artifact) from error
            raise

    async def data_artifact(self, version: str, *, credential: str) -> str:
        """Return the artifact with a dataset version's bytes.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; BYTES_MISSING when they were not stored with it.
        """
        stub = self._peer.stub(dataset_service_pb2_grpc.DatasetServiceStub)
        request = dataset_service_pb2.GetDatasetVersionRequest(name=version)
        answer = await self._peer.call(stub.GetDatasetVersion, request, credential=credential)
        if not answer.dataset_version.artifact:
            message = f"{version} has no bytes in the artifact store: register it with its artifact"
            digest = answer.dataset_version.digest
            raise ServiceError(Reason.BYTES_MISSING, message, digest=digest)
        return str(answer.dataset_version.artifact)

    async def issue_delegation(
        self, resource: ResourceName, rights: Iterable[Right], *, credential: str
    ) -> Delegation:
        """Have the caller delegate to a resource's work the rights that it needs."""
        request = project_service_pb2.IssueDelegationRequest(
            resource=str(resource),
            rights=[access_pb2.Right.Value(f"RIGHT_{right}") for right in rights],
        )
        stub = self._projects()
        answer = await self._peer.call(stub.IssueDelegation, request, credential=credential)
        return self._delegation(answer)

    async def renew_delegation(self, delegation: Delegation) -> Delegation:
        """Renew a delegation while its principal still has the rights."""
        request = project_service_pb2.RenewDelegationRequest(delegation=delegation.credential)
        stub = self._projects()
        answer = await self._peer.call(stub.RenewDelegation, request, credential=self._own_token())
        return self._delegation(answer)

    async def create_run(self, build: Build) -> str:
        """Create the run of a build's present attempt, once; return its name."""
        request = run_service_pb2.CreateRunRequest(
            parent=build.model,
            run=run_pb2.Run(
                build=str(build.name),
                tags={"attempt": str(build.attempt)},
                group=build.spec.group,
            ),
            request_id=_request_id(build.name, f"run/{build.attempt}"),
        )
        answer = await self._peer.call(
            self._runs().CreateRun, request, credential=build.delegation.credential
        )
        return str(answer.run.name)

    async def finish_run(self, run: UnfinishedRun, *, credential: str) -> None:
        """End a run."""
        request = run_service_pb2.FinishRunRequest(
            name=run.run, state=run_pb2.RunState.Value(f"RUN_STATE_{run.state}")
        )
        if run.reason:
            request.failure.reason, request.failure.message = run.reason, run.message[:4_000]
        await self._peer.call(self._runs().FinishRun, request, credential=credential)

    async def register_version(self, build: Build) -> Registered:
        """Register a build's version, once, whoever calls and how often."""
        winner = build.winner
        if winner is None:
            raise ValueError("the build has no winner")
        request = model_service_pb2.CreateVersionRequest(
            parent=build.model,
            version=version_pb2.Version(
                artifact=winner.artifact,
                run=build.run,
                build=str(build.name),
                labels=build.spec.labels,
                environment_digest=winner.environment_digest,
                card=winner.card,
                license=winner.license,
                image=winner.image_reference,
            ),
            aliases=build.spec.aliases,
            tests_passed=winner.tests_passed,
            request_id=_request_id(build.name, "version"),
        )
        stub = self._peer.stub(model_service_pb2_grpc.ModelServiceStub)
        credential = build.delegation.credential
        answer = await self._peer.call(
            stub.CreateVersion, request, credential=credential, seconds=_REGISTER_SECONDS
        )
        if answer.version.state == version_pb2.VERSION_STATE_PENDING:
            again = model_service_pb2.GetVersionRequest(name=answer.version.name)
            answer = await self._peer.call(stub.GetVersion, again, credential=credential)
        return _registered(answer.version)

    def _projects(self) -> Any:
        return self._peer.stub(project_service_pb2_grpc.ProjectServiceStub)

    def _runs(self) -> Any:
        return self._peer.stub(run_service_pb2_grpc.RunServiceStub)

    def _delegation(self, answer: Any) -> Delegation:
        # Renewed at half its life, so that a metadata that is away for a while does no harm.
        now = self._clock()
        expire_time = answer.expire_time.ToDatetime(UTC)
        return Delegation(answer.delegation, now + (expire_time - now) / 2)


def _registered(version: version_pb2.Version) -> Registered:
    failed = version.state == version_pb2.VERSION_STATE_FAILED
    failure = version.failure.message or "its bytes could not be held" if failed else ""
    return Registered(version.name, version.state == version_pb2.VERSION_STATE_READY, failure)


def _request_id(build: BuildName, purpose: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{build}/{purpose}"))
