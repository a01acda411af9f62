"""Clients that order builds, and that roll a model out and back, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from modelyard import Client
from modelyard.builder.v1 import build_pb2, build_service_pb2, build_service_pb2_grpc
from modelyard.deployer.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
)
from modelyard.errors import ModelyardError

from tests.e2e.suite import TERMINAL
from tests.faults.writers import PASSING, Flights, Writer, new_id

BUILT = "built"
"""The model that is built."""
WAITING = (build_pb2.BUILD_STATE_UNSPECIFIED, build_pb2.BUILD_STATE_QUEUED)
MARK = "order"
"""The label by which an order is found again."""
SETTLED = (deployment_pb2.DEPLOYMENT_STATE_LIVE, deployment_pb2.DEPLOYMENT_STATE_FAILED)


class Follower(Writer):
    """A writer who waits for how things end."""

    def follow(
        self, state: Callable[[], int], waiting: Sequence[int], ended: Sequence[int], kind: str
    ) -> None:
        """Wait for an end, or to be told to stop; what no longer waits counts as under way."""
        now = 0
        while now not in ended and not self.stopping:
            with nullcontext() if now in waiting else self.flights.of(kind):
                self.pause()
                now = self._known(state, now)

    def _known(self, state: Callable[[], int], last: int) -> int:
        try:
            return state()
        except ModelyardError as error:
            if error.code not in PASSING:
                raise
            return last


class Orderer(Follower):
    """Orders builds, one after the other."""

    def __init__(self, client: Client, flights: Flights, folder: Path, source: Path) -> None:
        super().__init__("orderer", client, flights, folder, patient=True)
        self.ordered: list[str] = []
        self._folder = source
        self._builds: Any = build_service_pb2_grpc.BuildServiceStub(self.channel)
        self._source = ""

    def round(self) -> None:
        self._source = self._source or self.until_answered(
            lambda: self.client.artifacts.push(self._folder).name
        )
        ordered = new_id()
        spec = build_pb2.BuildSpec(source=self._source, skip_tests=True, labels={MARK: ordered})
        build = build_pb2.Build(model=f"{self.client.project}/models/{BUILT}", spec=spec)
        request = build_service_pb2.CreateBuildRequest(
            parent=self.client.project, build=build, request_id=ordered
        )
        create = self._builds.CreateBuild
        name = self.write(
            "order",
            ordered,
            lambda: self.call(create, request).build.name,
            subject=BUILT,
            value=self._source,
        )
        self.ordered.append(name)
        self.follow(lambda: self._state(name), WAITING, TERMINAL, "building")

    def _state(self, name: str) -> int:
        return int(self.client.builds.get(name).state)


class Deployer(Follower):
    """Deploys the versions of a model in turns, each when the one before has settled."""

    def __init__(
        self,
        client: Client,
        flights: Flights,
        folder: Path,
        *,
        environment: str,
        versions: list[str],
    ) -> None:
        super().__init__("deployer", client, flights, folder, patient=True)
        self._deployments: Any = deployment_service_pb2_grpc.DeploymentServiceStub(self.channel)
        self._environment, self._versions = environment, versions
        self._model = versions[0].split("/")[3]

    def round(self) -> None:
        wished = new_id()
        self._versions.append(self._versions.pop(0))
        parent = f"{self.client.project}/environments/{self._environment}"
        request = deployment_service_pb2.DeployVersionRequest(
            parent=parent, version=self._versions[0], reason=wished, request_id=wished
        )
        deploy = self._deployments.DeployVersion
        self.write(
            "deploy",
            wished,
            lambda: self.call(deploy, request).deployment.name,
            subject=self._model,
            value=self._versions[0],
        )
        self.follow(self._state, (0,), SETTLED, "rollout")

    def _state(self) -> int:
        return int(self.client.deployments.get(self._model, environment=self._environment).state)
