"""`client.audit`: who did what, or was refused it, in all services."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

import builtins
import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, paged
from modelyard._transport.calls import Flow, Pages, ask, call, pages
from modelyard.artifact.v1 import audit_service_pb2 as artifact
from modelyard.auditing import SERVICES, Chain, Head, fields_of
from modelyard.builder.v1 import audit_service_pb2 as builder
from modelyard.deployer.v1 import audit_service_pb2 as deployer
from modelyard.metadata.v1 import audit_service_pb2 as metadata

if TYPE_CHECKING:
    from modelyard.common.v1 import audit_pb2

_PACKAGES: dict[str, Any] = {
    "metadata": metadata,
    "artifact": artifact,
    "builder": builder,
    "deployer": deployer,
}
_MOST = 1_000
_OLDEST_FIRST = "sequence"


class _Audit(Group):
    @flow
    def list(
        self, *, filter: str = "", limit: int = 50
    ) -> Flow[builtins.list[audit_pb2.AuditEntry]]:
        """Return the newest entries of all services together, newest first.

        `filter` asks for `time`, `actor`, `delegation`, `resource`, `method`, `request_id` and
        `outcome`, such as `actor = "user:ada" AND outcome != "OK"`.
        """
        found: builtins.list[builtins.list[audit_pb2.AuditEntry]] = []
        for service in SERVICES:
            newest = yield from _newest(service, filter, limit)
            found.append(newest)
        merged = heapq.merge(*found, key=lambda entry: entry.time.ToNanoseconds(), reverse=True)
        return [entry for entry, _ in zip(merged, range(limit), strict=False)]

    @paged
    def entries(self, service: str, *, filter: str = "") -> Pages[audit_pb2.AuditEntry]:
        """Iterate over one service's entries, oldest first: a whole chain without a filter.

        `service` is `metadata`, `artifact`, `builder` or `deployer`.
        """
        return _pages(service, filter, _OLDEST_FIRST)

    @flow
    def verify(self, known: Mapping[str, Head] | None = None) -> Flow[builtins.list[Chain]]:
        """Read every service's whole chain and see whether it is as it was written.

        `known` are heads of before, by service, as kept from the answer's `head`s: only with them
        is it found out that the newest entries were cut off, or the whole chain written anew.
        Each answer's `problems` are empty when it is sound.
        """
        chains = []
        for service in SERVICES:
            chain = Chain(service, known=(known or {}).get(service, Head()))
            yield from _read(chain)
            chains.append(chain)
        return chains


class Audit(_Audit, SyncGroup):
    """Who did what, or was refused it."""


class AsyncAudit(_Audit, AsyncGroup):
    """Who did what, or was refused it."""


def _pages(service: str, filter: str, order: str, size: int = _MOST) -> Pages[Any]:
    package = _PACKAGES[service]
    request = package.ListAuditEntriesRequest(filter=filter, order_by=order, page_size=size)
    return pages(request, package.ListAuditEntriesResponse, lambda r: r.audit_entries)


def _newest(service: str, filter: str, limit: int) -> Flow[list[Any]]:
    wanted, found, token = _pages(service, filter, "", min(max(limit, 1), _MOST)), [], ""
    while True:
        entries, token = yield from ask(wanted.page(token))
        found += entries
        if not token or len(found) >= limit:
            return found[:limit]


def _read(chain: Chain) -> Flow[None]:
    package, token = _PACKAGES[chain.service], ""
    # What is appended meanwhile comes after the head that is to be reached.
    head: Head | None = None
    while True:
        request = package.ListAuditEntriesRequest(
            order_by=_OLDEST_FIRST, page_size=_MOST, page_token=token
        )
        page = yield from ask(call(request, package.ListAuditEntriesResponse, lambda r: r))
        head = head or Head(page.head.sequence, page.head.hash)
        for entry in page.audit_entries:
            chain.add(fields_of(entry), entry.hash)
        token = page.next_page_token
        if not token:
            return chain.end(head)
