"""`client.aliases`: movable pointers to versions, with their history."""

from __future__ import annotations

from datetime import datetime

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard._values import encode_time
from modelyard.metadata.v1 import alias_pb2
from modelyard.metadata.v1 import model_service_pb2 as service

NOWHERE = 0
"""The `if_version` of an alias that must not point anywhere yet."""


class _Aliases(Group):
    @unary
    def set(
        self,
        model: Ref,
        alias: str,
        *,
        version: Ref | int,
        if_version: Ref | int | None = None,
        etag: str = "",
        reason: str = "",
    ) -> Call[alias_pb2.Alias]:
        """Point an alias to a version.

        With `if_version` it moves only from there (0: only if it points nowhere), with an etag
        only if nobody moved it since; otherwise AbortedError.
        """
        moved = alias_pb2.Alias(
            name=self._names.alias(model, alias),
            version=self._names.version(version, model=model),
            etag=etag,
        )
        request = service.UpdateAliasRequest(
            alias=moved, reason=reason, request_id=new_request_id()
        )
        if if_version is not None:
            request.expected_version = (
                "" if if_version == NOWHERE else self._names.version(if_version, model=model)
            )
        return call(request, service.UpdateAliasResponse, lambda r: r.alias)

    @unary
    def get(
        self, model: Ref, alias: str | None = None, *, as_of: datetime | None = None
    ) -> Call[alias_pb2.Alias]:
        """Get an alias, `("churn", "production")` or `"churn@production"`, as it is or was."""
        request = service.GetAliasRequest(
            name=self._names.alias(model, alias), as_of=encode_time(as_of)
        )
        return call(request, service.GetAliasResponse, lambda r: r.alias)

    @paged
    def list(self, model: Ref) -> Pages[alias_pb2.Alias]:
        """List a model's aliases."""
        request = service.ListAliasesRequest(parent=self._names.model(model))
        return pages(request, service.ListAliasesResponse, lambda r: r.aliases)

    @paged
    def history(self, model: Ref, alias: str = "-") -> Pages[alias_pb2.AliasChange]:
        """List where an alias, or each of a model's, has pointed; newest change first."""
        request = service.ListAliasChangesRequest(parent=self._names.alias(model, alias))
        return pages(request, service.ListAliasChangesResponse, lambda r: r.alias_changes)

    @unary
    def delete(
        self, model: Ref, alias: str | None = None, *, etag: str = "", reason: str = ""
    ) -> Call[None]:
        """Delete an alias; its history stays."""
        request = service.DeleteAliasRequest(
            name=self._names.alias(model, alias), etag=etag, reason=reason
        )
        return call(request, service.DeleteAliasResponse, lambda _: None)


class Aliases(_Aliases, SyncGroup):
    """Movable pointers to versions, with their history."""


class AsyncAliases(_Aliases, AsyncGroup):
    """Movable pointers to versions, with their history."""
