"""The gRPC edge of notices: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import notice_service_pb2 as pb
from modelyard.metadata.v1 import notice_service_pb2_grpc

from services.common.auth import current_call
from services.metadata.notices import codec
from services.metadata.notices.telling import Telling

Context = grpc.aio.ServicerContext[Any, Any]


class NoticeServicer(notice_service_pb2_grpc.NoticeServiceServicer):
    """Serve `modelyard.metadata.v1.NoticeService`."""

    def __init__(self, *, telling: Telling) -> None:
        self._telling = telling

    async def PublishExecution(
        self, request: pb.PublishExecutionRequest, context: Context
    ) -> pb.PublishExecutionResponse:
        """Tell how an execution ended."""
        call = current_call()
        await self._telling.tell(codec.notice(request, call.caller), key=call.key(request))
        return pb.PublishExecutionResponse()
