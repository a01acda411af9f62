"""The gRPC edge of format reports: check, one call, encode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
from modelyard.artifact.v1 import format_service_pb2 as pb
from modelyard.artifact.v1 import format_service_pb2_grpc

from services.artifact.formats.domain import Finding, Verdict
from services.artifact.formats.reporting import Reporting
from services.artifact.manifest import ManifestEntry
from services.common.names import ArtifactName

Context = grpc.aio.ServicerContext[Any, Any]
LISTED = 1_000


class FormatServicer(format_service_pb2_grpc.FormatServiceServicer):
    """Serve `modelyard.artifact.v1.FormatService`."""

    def __init__(self, *, reporting: Reporting) -> None:
        self._reporting = reporting

    async def GetFormatReport(
        self, request: pb.GetFormatReportRequest, context: Context
    ) -> pb.GetFormatReportResponse:
        """Say what an artifact's files are."""
        return _report(await self._reporting.report(ArtifactName.parse(request.artifact)))


def _report(found: Sequence[tuple[ManifestEntry, Finding]]) -> pb.GetFormatReportResponse:
    counts = Counter(finding.verdict for _, finding in found)
    doubtful = [one for one in found if one[1].verdict is not Verdict.ALLOWED]
    doubtful.sort(key=lambda one: (-one[1].verdict, one[0].path))
    worst = max(counts, default=Verdict.ALLOWED)
    return pb.GetFormatReportResponse(
        verdict=pb.FormatVerdict.Value(f"FORMAT_VERDICT_{worst.name}"),
        files=[
            pb.FileFormat(
                path=entry.path,
                format=finding.format,
                verdict=pb.FormatVerdict.Value(f"FORMAT_VERDICT_{finding.verdict.name}"),
                reasons=finding.reasons,
            )
            for entry, finding in doubtful[:LISTED]
        ],
        allowed_count=counts[Verdict.ALLOWED],
        unverified_count=counts[Verdict.UNVERIFIED],
        unsafe_count=counts[Verdict.UNSAFE],
    )
