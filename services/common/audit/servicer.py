"""The gRPC edge of the audit trail, the same in every service but for its package."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.common.v1 import audit_pb2

from services.common.audit.entries import Sealed
from services.common.audit.trail import Trail
from services.common.listing.pagination import page_size
from services.common.sql.outbox import moment

Context = grpc.aio.ServicerContext[Any, Any]


class AuditServicer:
    """Serve a package's `AuditService`."""

    def __init__(self, trail: Trail, messages: Any) -> None:
        self._trail = trail
        self._response = messages.ListAuditEntriesResponse

    async def ListAuditEntries(self, request: Any, context: Context) -> Any:
        """List entries of the trail."""
        page = await self._trail.list_entries(
            where=request.filter,
            order=request.order_by,
            size=page_size(request.page_size),
            token=request.page_token,
        )
        return self._response(
            audit_entries=[_entry(self._trail.service, sealed) for sealed in page.entries],
            next_page_token=page.next_token,
            head=audit_pb2.AuditHead(sequence=page.head.sequence, hash=page.head.hash),
        )


def _entry(service: str, sealed: Sealed) -> audit_pb2.AuditEntry:
    entry = sealed.entry
    message = audit_pb2.AuditEntry(
        service=service,
        sequence=sealed.sequence,
        actor=entry.actor,
        delegation=entry.delegation,
        method=entry.method,
        resource=entry.resource,
        request_id=entry.request_id,
        outcome=entry.outcome,
        count=entry.count,
        hash=sealed.hash,
    )
    message.time.FromDatetime(moment(entry.time_us))
    return message
