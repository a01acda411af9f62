"""What the deployer asks of metadata: versions, goals, uses, delegations."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    lineage_service_pb2,
    lineage_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    project_service_pb2,
    project_service_pb2_grpc,
    signature_service_pb2,
    signature_service_pb2_grpc,
    version_pb2,
    version_use_pb2,
)
from modelyard.tracking.datasets import default_id

from services.common.auth import Right
from services.common.errors import wrong_state
from services.common.names import DeploymentName, ProjectName
from services.common.own_token import OwnToken
from services.common.rpc.peers import Peer
from services.deployer import codec
from services.deployer.domain import Candidate, Evaluation, Goal, Revision, Sample

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Grant:
    """A credential that acts for whoever made a wish, for a while."""

    credential: str = field(repr=False)
    expire_time: datetime


class Metadata:
    """The metadata service, as the deployer sees it."""

    def __init__(self, peer: Peer, own_token: OwnToken) -> None:
        self._peer = peer
        self._own_token = own_token

    async def check_project(self, name: ProjectName, *, credential: str) -> None:
        """Refuse a project that does not exist, or that the caller may not read."""
        request = project_service_pb2.GetProjectRequest(name=str(name))
        await self._peer.call(self._projects.GetProject, request, credential=credential)

    async def resolve(self, name: str, *, credential: str) -> Candidate:
        """Find the READY version that a version's, an alias's or a model's name means."""
        request = model_service_pb2.ResolveVersionRequest(name=name)
        answer = await self._peer.call(self._models.ResolveVersion, request, credential=credential)
        state = version_pb2.VersionState.Name(answer.version.state).removeprefix("VERSION_STATE_")
        if answer.version.state != version_pb2.VERSION_STATE_READY:
            message = f"{answer.version.name} is {state}; only a READY version can be deployed"
            raise wrong_state(answer.version.name, state, message)
        return codec.decode_candidate(answer.version)

    async def version(self, name: str, *, credential: str) -> Candidate:
        """Return a version, whatever its state."""
        request = model_service_pb2.GetVersionRequest(name=name)
        answer = await self._peer.call(self._models.GetVersion, request, credential=credential)
        return codec.decode_candidate(answer.version)

    async def goals(self, model: str, *, credential: str) -> dict[str, Goal]:
        """Return which values of a model's metrics are better."""
        request = model_service_pb2.GetModelRequest(name=model)
        answer = await self._peer.call(self._models.GetModel, request, credential=credential)
        return codec.decode_goals(answer.model)

    async def evaluations(self, version: str, *, credential: str) -> tuple[Evaluation, ...]:
        """Return a version's evaluations, newest first; of very many the newest thousand."""
        request = model_service_pb2.ListEvaluationsRequest(parent=version, page_size=_PAGE)
        answer = await self._peer.call(self._models.ListEvaluations, request, credential=credential)
        return tuple(Evaluation(e.dataset_version, dict(e.metrics)) for e in answer.evaluations)

    async def signatures(self, version: str, *, credential: str) -> list[bytes]:
        """Return the bundles of a version's signatures, newest first."""
        stub: Any = self._peer.stub(signature_service_pb2_grpc.SignatureServiceStub)
        request = signature_service_pb2.ListSignaturesRequest(version=version)
        listed = await self._peer.call(stub.ListSignatures, request, credential=credential)
        bundles = []
        for signature in reversed(listed.signatures):
            wanted = signature_service_pb2.GetSignatureRequest(
                version=version, sha256=signature.sha256
            )
            answer = await self._peer.call(stub.GetSignature, wanted, credential=credential)
            bundles.append(bytes(answer.bundle))
        return bundles

    async def start_use(self, version: str, user: DeploymentName, *, credential: str) -> None:
        """Put on record that a deployment uses a version."""
        use = version_use_pb2.VersionUse(version=version, user=str(user))
        request = lineage_service_pb2.StartVersionUseRequest(version_use=use)
        await self._peer.call(self._lineage.StartVersionUse, request, credential=credential)

    async def end_use(self, version: str, user: DeploymentName, *, credential: str) -> None:
        """Put on record that a deployment no longer uses a version."""
        use = version_use_pb2.VersionUse(version=version, user=str(user))
        request = lineage_service_pb2.EndVersionUseRequest(version_use=use)
        await self._peer.call(self._lineage.EndVersionUse, request, credential=credential)

    async def record_sample(
        self, name: DeploymentName, revision: Revision, sample: Sample, *, credential: str
    ) -> str:
        """Register sampled requests as a dataset version; return its name."""
        dataset = default_id(model=name.deployment, role=f"{name.environment}-requests")
        version = dataset_pb2.DatasetVersion.FromString(sample.columns)
        version.digest, version.row_count = sample.digest, sample.row_count
        version.source.uri = f"modelyard:{name}"
        version.source.query = (
            f"requests answered by {revision.version}, revision {revision.number}"
        )
        version.source.start_time.FromDatetime(sample.start_time)
        version.source.end_time.FromDatetime(sample.end_time)
        request = dataset_service_pb2.CreateDatasetVersionRequest(
            parent=f"projects/{name.project}/datasets/{dataset}", dataset_version=version
        )
        stub: Any = self._peer.stub(dataset_service_pb2_grpc.DatasetServiceStub)
        answer = await self._peer.call(stub.CreateDatasetVersion, request, credential=credential)
        return str(answer.dataset_version.name)

    async def delegate(self, resource: DeploymentName, *further: Right, credential: str) -> str:
        """Get a credential that reads, deploys and more for the caller, for one deployment."""
        request = project_service_pb2.IssueDelegationRequest(
            resource=str(resource), rights=_rights(Right.READ, Right.DEPLOY, *further)
        )
        answer = await self._peer.call(
            self._projects.IssueDelegation, request, credential=credential
        )
        return str(answer.delegation)

    async def renew(self, delegation: str, *rights: Right) -> Grant:
        """Renew a delegation with the deployer's own token, narrowed if rights are given."""
        request = project_service_pb2.RenewDelegationRequest(
            delegation=delegation, rights=_rights(*rights)
        )
        answer = await self._peer.call(
            self._projects.RenewDelegation, request, credential=self._own_token.read()
        )
        return Grant(answer.delegation, answer.expire_time.ToDatetime(tzinfo=UTC))

    @property
    def _models(self) -> Any:
        return self._peer.stub(model_service_pb2_grpc.ModelServiceStub)

    @property
    def _lineage(self) -> Any:
        return self._peer.stub(lineage_service_pb2_grpc.LineageServiceStub)

    @property
    def _projects(self) -> Any:
        return self._peer.stub(project_service_pb2_grpc.ProjectServiceStub)


def _rights(*rights: Right) -> list[access_pb2.Right.ValueType]:
    return [access_pb2.Right.Value(f"RIGHT_{right}") for right in rights]
