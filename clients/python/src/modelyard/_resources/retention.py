"""`client.retention`: which versions of a model go by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, unary
from modelyard._transport.calls import BYTES_TIMEOUT, Call, call, new_request_id
from modelyard.metadata.v1 import retention_pb2
from modelyard.metadata.v1 import retention_service_pb2 as service


class _Retention(Group):
    @unary
    def set(
        self,
        model: Ref,
        *,
        keep_last: int,
        keep_for: timedelta | None = None,
        purge_after: timedelta | None = None,
        etag: str = "",
    ) -> Call[retention_pb2.Retention]:
        """Let versions go that no rule keeps.

        The newest `keep_last` READY ones stay, those younger than `keep_for`, and always those
        that an alias points to or a deployment uses. What has been deleted for `purge_after` is
        removed for ever, and its bytes freed; without it, never.
        """
        retention = retention_pb2.Retention(
            model=self._names.model(model), keep_last_count=keep_last, etag=etag
        )
        if keep_for is not None:
            retention.keep_duration.FromTimedelta(keep_for)
        if purge_after is not None:
            retention.purge_after_duration.FromTimedelta(purge_after)
        request = service.SetRetentionRequest(retention=retention, request_id=new_request_id())
        return call(request, service.SetRetentionResponse, lambda r: r.retention)

    @unary
    def get(self, model: Ref) -> Call[retention_pb2.Retention]:
        """Get a model's rules."""
        request = service.GetRetentionRequest(model=self._names.model(model))
        return call(request, service.GetRetentionResponse, lambda r: r.retention)

    @unary
    def remove(self, model: Ref) -> Call[None]:
        """Remove a model's rules: nothing goes by itself any more."""
        request = service.DeleteRetentionRequest(model=self._names.model(model))
        return call(request, service.DeleteRetentionResponse, lambda _: None)

    @unary
    def apply(
        self, model: Ref, *, dry_run: bool = False
    ) -> Call[Sequence[retention_pb2.RetentionVerdict]]:
        """Follow a model's rules now, or say what that would do: a verdict for each version."""
        request = service.ApplyRetentionRequest(model=self._names.model(model), dry_run=dry_run)
        return call(
            request, service.ApplyRetentionResponse, lambda r: r.verdicts, timeout=BYTES_TIMEOUT
        )


class Retention(_Retention, SyncGroup):
    """Which versions of a model go by themselves."""


class AsyncRetention(_Retention, AsyncGroup):
    """Which versions of a model go by themselves."""
