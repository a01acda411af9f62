"""A small metadata service: what the deployer asks of the real one, on a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    lineage_service_pb2,
    lineage_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    project_service_pb2,
    project_service_pb2_grpc,
    version_pb2,
)

from services.common.auth import Identity, Right, current_call, invalid_credential, right_missing
from services.common.errors import not_found
from services.common.rpc.interceptors import Chain
from services.common.rpc.server import Server, ServerSettings
from services.common.telemetry import Telemetry

PROJECT = "projects/p"
MODEL = f"{PROJECT}/models/churn"
EVERYTHING = frozenset({Right.READ, Right.WRITE, Right.DEPLOY, Right.ADMIN})

IDENTITIES = {
    "ada": Identity("user:ada", "ada", {"p": EVERYTHING}),
    "bob": Identity("user:bob", "bob", {"p": EVERYTHING}),
    "dora": Identity("user:dora", "dora", {"p": frozenset({Right.READ, Right.DEPLOY})}),
    "reader": Identity("user:reader", "reader", {"p": frozenset({Right.READ})}),
    "agent": Identity("service:agent", "agent", {}, frozenset({Right.CONTROL})),
    "deployer": Identity("service:deployer", "deployer", {}, frozenset({Right.DELEGATE})),
}


@dataclass
class Registry:
    """What the service knows, and what it was told."""

    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    artifacts: dict[int, str] = field(default_factory=dict)
    environment_digests: dict[int, str] = field(default_factory=dict)
    goals: dict[str, Any] = field(default_factory=dict)
    uses: set[tuple[str, str]] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    """Principals that lost their rights."""
    samples: dict[str, dataset_pb2.DatasetVersion] = field(default_factory=dict)
    """Dataset versions by digest."""
    suspended: set[str] = field(default_factory=set)
    """Principals whose delegations are no longer renewed."""
    meanwhile: Callable[[], Awaitable[object]] | None = None
    """Done once, while a gate gathers what it judges by."""

    def version(self, number: int) -> version_pb2.Version:
        if number not in self.metrics:
            raise not_found(f"{MODEL}/versions/{number}")
        digest = self.artifacts.get(number, f"{number:064x}")
        return version_pb2.Version(
            name=f"{MODEL}/versions/{number}",
            state=version_pb2.VERSION_STATE_READY,
            artifact=f"{PROJECT}/artifacts/{digest}",
            metrics=self.metrics[number],
            environment_digest=self.environment_digests.get(number, ""),
            tests_passed=True,
            creator="user:ada",
        )


class Credentials:
    """Knows the fixed tokens, and delegations of the form `delegation:{token}`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def introspect(self, credential: str) -> Identity:
        token = credential.removeprefix("delegation:")
        if token not in IDENTITIES:
            raise invalid_credential()
        found = IDENTITIES[token]
        rights = {} if token in self._registry.lost else found.project_rights
        return Identity(found.principal, credential, rights, found.installation_rights)


class Projects(project_service_pb2_grpc.ProjectServiceServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def IntrospectCredential(self, request: Any, context: Any) -> Any:
        identity = current_call().caller
        return project_service_pb2.IntrospectCredentialResponse(
            principal=identity.principal,
            project_rights=[
                project_service_pb2.ProjectRights(project=f"projects/{p}", rights=_numbers(r))
                for p, r in identity.project_rights.items()
            ],
            installation_rights=_numbers(identity.installation_rights),
        )

    async def GetProject(self, request: Any, context: Any) -> Any:
        if request.name != PROJECT:
            raise not_found(request.name)
        return project_service_pb2.GetProjectResponse()

    async def IssueDelegation(self, request: Any, context: Any) -> Any:
        caller = current_call().caller
        for right in request.rights:
            if right not in _numbers(caller.project_rights.get("p", frozenset())):
                raise right_missing(Right(access_pb2.Right.Name(right).removeprefix("RIGHT_")))
        delegation = f"delegation:{caller.credential}"
        return project_service_pb2.IssueDelegationResponse(delegation=delegation)

    async def RenewDelegation(self, request: Any, context: Any) -> Any:
        if request.delegation.removeprefix("delegation:") in (
            self._registry.lost | self._registry.suspended
        ):
            raise right_missing(Right.DEPLOY)
        response = project_service_pb2.RenewDelegationResponse(delegation=request.delegation)
        response.expire_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=15))
        return response


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def ResolveVersion(self, request: Any, context: Any) -> Any:
        number = int(request.name.rpartition("/")[2])
        return model_service_pb2.ResolveVersionResponse(version=self._registry.version(number))

    async def GetVersion(self, request: Any, context: Any) -> Any:
        number = int(request.name.rpartition("/")[2])
        return model_service_pb2.GetVersionResponse(version=self._registry.version(number))

    async def GetModel(self, request: Any, context: Any) -> Any:
        meanwhile, self._registry.meanwhile = self._registry.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        model = model_pb2.Model(name=request.name, metric_goals=self._registry.goals)
        return model_service_pb2.GetModelResponse(model=model)


class Lineage(lineage_service_pb2_grpc.LineageServiceServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def StartVersionUse(self, request: Any, context: Any) -> Any:
        use = request.version_use
        self._registry.version(int(use.version.rpartition("/")[2]))
        self._registry.uses.add((use.version, use.user))
        return lineage_service_pb2.StartVersionUseResponse(version_use=use)

    async def EndVersionUse(self, request: Any, context: Any) -> Any:
        use = request.version_use
        self._registry.uses.discard((use.version, use.user))
        return lineage_service_pb2.EndVersionUseResponse(version_use=use)


class Datasets(dataset_service_pb2_grpc.DatasetServiceServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def CreateDatasetVersion(self, request: Any, context: Any) -> Any:
        assert current_call().caller.credential.startswith("delegation:")
        samples, given = self._registry.samples, request.dataset_version
        given.name = f"{request.parent}/versions/{len(samples) + 1}"
        found = samples.setdefault(given.digest, given)
        return dataset_service_pb2.CreateDatasetVersionResponse(dataset_version=found)


def _numbers(rights: frozenset[Right]) -> list[access_pb2.Right.ValueType]:
    return [access_pb2.Right.Value(f"RIGHT_{right}") for right in rights]


@asynccontextmanager
async def serving(registry: Registry) -> AsyncIterator[int]:
    """Serve it; give the port."""
    settings = ServerSettings(listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.2)
    server = Server(settings, Chain(Credentials(registry), Telemetry()))
    server.add(project_service_pb2_grpc.add_ProjectServiceServicer_to_server, Projects(registry))
    server.add(model_service_pb2_grpc.add_ModelServiceServicer_to_server, Models(registry))
    server.add(lineage_service_pb2_grpc.add_LineageServiceServicer_to_server, Lineage(registry))
    server.add(dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server, Datasets(registry))
    try:
        yield await server.start()
    finally:
        await server.stop()
