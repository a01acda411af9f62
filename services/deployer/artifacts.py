"""What the deployer asks of the artifact service: an artifact's files and their formats."""

from __future__ import annotations

from typing import Any

from modelyard.artifact.v1 import (
    artifact_pb2,
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    format_service_pb2,
    format_service_pb2_grpc,
)

from services.common.rpc.peers import Peer
from services.deployer.domain import FormatReport

_PAGE = 1_000
_NAMED = 3
_REPORT_SECONDS = 60.0


class Artifacts:
    """The artifact service, as the deployer sees it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def files(self, artifact: str, *, credential: str) -> list[artifact_pb2.File]:
        """Return every file of an artifact, with its digest."""
        request = artifact_service_pb2.ListFilesRequest(artifact=artifact, page_size=_PAGE)
        stub: Any = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        found: list[artifact_pb2.File] = []
        while True:
            answer = await self._peer.call(stub.ListFiles, request, credential=credential)
            found += answer.files
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def formats(self, artifact: str, *, credential: str) -> FormatReport:
        """Return what is known of an artifact's files by their content."""
        request = format_service_pb2.GetFormatReportRequest(artifact=artifact)
        stub: Any = self._peer.stub(format_service_pb2_grpc.FormatServiceStub)
        answer = await self._peer.call(
            stub.GetFormatReport, request, credential=credential, seconds=_REPORT_SECONDS
        )
        verdicts = format_service_pb2.FormatVerdict
        verdict = verdicts.Name(answer.verdict).removeprefix("FORMAT_VERDICT_")
        named = ", ".join(f"{f.path} ({', '.join(f.reasons)})" for f in answer.files[:_NAMED])
        explanation = f"{answer.allowed_count} files are allowed by their format"
        if answer.files:
            explanation += (
                f", {answer.unverified_count} unverified, {answer.unsafe_count} unsafe: {named}"
            )
        return FormatReport(verdict, explanation)
