"""A worker's calls to the builder: with its own token, tried again while it makes sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelyard.builder.v1 import build_pb2, worker_service_pb2, worker_service_pb2_grpc
from modelyard.common.v1 import failure_pb2

from services.builder.worker.patience import persist
from services.common import telemetry
from services.common.rpc.peers import Peer

CALL_SECONDS = 10.0
EXTEND_SECONDS = 5.0
REGISTER_SECONDS = 60.0
STREAM_SECONDS = 3_600.0


class BuilderClient:
    """What a worker asks of and tells the builder."""

    def __init__(self, peer: Peer, *, own_token: Callable[[], str]) -> None:
        self._peer = peer
        self._own_token = own_token

    async def lease(
        self, request: worker_service_pb2.LeaseBuildRequest
    ) -> worker_service_pb2.LeaseBuildResponse:
        """Ask once for a build; an empty answer when there was none."""
        wait = request.wait.ToTimedelta().total_seconds()
        answer: worker_service_pb2.LeaseBuildResponse = await self._peer.call(
            self._stub().LeaseBuild,
            request,
            credential=self._own_token(),
            seconds=wait + CALL_SECONDS,
        )
        return answer

    async def extend(
        self, lease: worker_service_pb2.Lease, *, wait: float
    ) -> worker_service_pb2.ExtendLeaseResponse:
        """Give a sign of life; answered after so many seconds, at once if it is to stop."""
        request = worker_service_pb2.ExtendLeaseRequest(lease=lease)
        request.wait.FromMilliseconds(int(wait * 1_000))
        answer: worker_service_pb2.ExtendLeaseResponse = await self._call(
            self._stub().ExtendLease, request, seconds=wait + EXTEND_SECONDS
        )
        return answer

    async def secrets(self, lease: worker_service_pb2.Lease) -> dict[str, str]:
        """Return the values of the secrets that the build names, by their names."""
        request = worker_service_pb2.GetBuildSecretsRequest(lease=lease)
        answer = await persist(lambda: self._call(self._stub().GetBuildSecrets, request))
        return {found.secret: found.value for found in answer.secrets}

    async def report_source(
        self, lease: worker_service_pb2.Lease, source: str, origin: build_pb2.SourceOrigin
    ) -> None:
        """Have kept what was fetched from the build's git source."""
        request = worker_service_pb2.ReportSourceRequest(lease=lease, source=source, origin=origin)
        await persist(lambda: self._call(self._stub().ReportSource, request))

    async def report_phase(
        self,
        lease: worker_service_pb2.Lease,
        kind: build_pb2.PhaseKind.ValueType,
        state: build_pb2.PhaseState.ValueType,
        failure: failure_pb2.Failure | None = None,
        tests: build_pb2.TestCounts | None = None,
    ) -> None:
        """Say that a phase started or ended, and what its tests said."""
        request = worker_service_pb2.ReportPhaseRequest(
            lease=lease, kind=kind, state=state, failure=failure, tests=tests
        )
        await persist(lambda: self._call(self._stub().ReportPhase, request))

    def open_events(self) -> Any:
        """Open a stream for numbered batches of events."""
        metadata = telemetry.inject([("authorization", f"Bearer {self._own_token()}")])
        return self._stub().ReportEvents(metadata=metadata, timeout=STREAM_SECONDS)

    async def register(self, request: worker_service_pb2.RegisterBuildRequest) -> str:
        """Have the artifact of an attempt registered; return the version's name."""
        answer = await persist(
            lambda: self._call(self._stub().RegisterBuild, request, seconds=REGISTER_SECONDS)
        )
        return str(answer.version)

    async def end_attempt(
        self, lease: worker_service_pb2.Lease, failure: failure_pb2.Failure | None
    ) -> None:
        """Say that an attempt ended without a version."""
        request = worker_service_pb2.EndAttemptRequest(lease=lease, failure=failure)
        await persist(lambda: self._call(self._stub().EndAttempt, request))

    def _stub(self) -> Any:
        return self._peer.stub(worker_service_pb2_grpc.WorkerServiceStub)

    async def _call(self, method: Any, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        return await self._peer.call(method, request, credential=self._own_token(), seconds=seconds)
