"""`client.storage`: the space that artifacts take, and whether their bytes are what they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelyard._names import Ref
from modelyard._resources.artifacts import artifact_of
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, unary
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import BYTES_TIMEOUT, Call, Download, Flow, call
from modelyard.artifact.v1 import storage_pb2
from modelyard.artifact.v1 import storage_service_pb2 as service
from modelyard.errors import ModelyardError

OnVerified = Callable[[int, int], None]
"""Called with the bytes read over and the bytes in all."""


@dataclass(slots=True)
class _Verification:
    """One reading over of an artifact's bytes."""

    progress: OnVerified | None
    damaged: list[storage_pb2.DamagedFile] = field(default_factory=list)
    done_bytes: int = 0

    def take(self, response: service.VerifyArtifactResponse) -> None:
        self.damaged.extend(response.damaged_files)
        self.done_bytes = response.done_bytes
        if self.progress is not None:
            self.progress(response.done_bytes, response.total_bytes)


class _Storage(Group):
    @flow
    def verify(
        self, source: Ref, *, progress: OnVerified | None = None
    ) -> Flow[Sequence[storage_pb2.DamagedFile]]:
        """Have a version's or an artifact's stored bytes read over; return the damaged files.

        Pushing the same files again repairs them. `DataLossError`: the list of files itself is
        damaged. When the server goes away it is begun again, and so is `progress`.
        """
        artifact = yield from artifact_of(self._names, source)
        request = service.VerifyArtifactRequest(artifact=artifact)
        breaks, furthest = Breaks(), 0
        while True:
            found = _Verification(progress)
            try:
                yield Download(request, service.VerifyArtifactResponse.FromString, found.take)
            except ModelyardError as error:
                yield breaks.after(error, advanced=found.done_bytes > furthest)
                furthest = max(furthest, found.done_bytes)
            else:
                return found.damaged

    @unary
    def usage(self, *, project: Ref | None = None) -> Call[storage_pb2.Usage]:
        """Get what a project stores, and how much it may."""
        request = service.GetUsageRequest(parent=self._names.project(project))
        return call(request, service.GetUsageResponse, lambda r: r.usage)

    @unary
    def set_quota(
        self, quota_bytes: int | None, *, project: Ref | None = None
    ) -> Call[storage_pb2.Usage]:
        """Limit how many bytes a project may store; None lifts the limit. For operators."""
        request = service.SetQuotaRequest(
            parent=self._names.project(project), quota_bytes=quota_bytes or 0
        )
        return call(request, service.SetQuotaResponse, lambda r: r.usage)

    @unary
    def sweep(
        self, *, dry_run: bool = False, project: Ref | None = None
    ) -> Call[service.SweepProjectResponse]:
        """Let go of what nothing in a project needs, or say what that would be, and why."""
        request = service.SweepProjectRequest(parent=self._names.project(project), dry_run=dry_run)
        return call(request, service.SweepProjectResponse, lambda r: r, timeout=BYTES_TIMEOUT)


class Storage(_Storage, SyncGroup):
    """The space that artifacts take, and whether their bytes are what they were."""


class AsyncStorage(_Storage, AsyncGroup):
    """The space that artifacts take, and whether their bytes are what they were."""
