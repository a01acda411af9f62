"""The gRPC edge of links: check, one call, encode."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
from modelyard.artifact.v1 import link_service_pb2 as pb
from modelyard.artifact.v1 import link_service_pb2_grpc

from services.artifact.codec import timestamp
from services.artifact.links.linking import LONGEST, USUAL, Links
from services.common.errors import invalid_field
from services.common.names import ArtifactName

Context = grpc.aio.ServicerContext[Any, Any]


class LinkServicer(link_service_pb2_grpc.LinkServiceServicer):
    """Serve `modelyard.artifact.v1.LinkService`."""

    def __init__(self, *, links: Links) -> None:
        self._links = links

    async def CreateLink(
        self, request: pb.CreateLinkRequest, context: Context
    ) -> pb.CreateLinkResponse:
        """Make a URL."""
        name = ArtifactName.parse(request.artifact, "artifact")
        link = await self._links.create(name, request.path, _lifetime(request))
        return pb.CreateLinkResponse(url=link.url, expire_time=timestamp(link.expire_time))


def _lifetime(request: pb.CreateLinkRequest) -> timedelta:
    if not request.HasField("lifetime_duration"):
        return USUAL
    seconds, nanos = request.lifetime_duration.seconds, request.lifetime_duration.nanos
    if nanos < 0 or not 0 < seconds <= LONGEST.total_seconds():
        raise invalid_field("lifetime_duration", "must be a second to a day")
    return timedelta(seconds=seconds)
