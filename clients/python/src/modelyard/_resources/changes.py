"""`client.watch`: what changes, as it changes."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, followed, unary
from modelyard._transport.calls import Call, call
from modelyard._transport.resume import Follow
from modelyard.metadata.v1 import model_service_pb2, run_service_pb2


class _Changes(Group):
    @unary
    def cursor(self, *, runs: bool = False) -> Call[str]:
        """Return where to watch from to hear of all that changes from now on.

        Take it, then list, then watch from it: nothing falls between the two. A cursor of runs is
        no cursor of models.
        """
        if runs:
            every = run_service_pb2.ListRunsRequest(parent=self._names.model(), page_size=1)
            return call(every, run_service_pb2.ListRunsResponse, lambda r: r.watch_cursor)
        request = model_service_pb2.ListModelsRequest(parent=self._names.project(), page_size=1)
        return call(request, model_service_pb2.ListModelsResponse, lambda r: r.watch_cursor)

    @followed
    def models(
        self, model: Ref | None = None, *, filter: str = "", cursor: str = ""
    ) -> Follow[model_service_pb2.ModelChange]:
        """Iterate over the changes of models, versions and aliases, for ever.

        A broken connection is opened again where it broke. To go on later, keep the `cursor` of
        the last change; without one, changes from now on are told.

        Raises:
            OutOfRangeError: CURSOR_EXPIRED: what came after the cursor was forgotten; take a new
                `cursor` and list again.
        """
        request = model_service_pb2.WatchModelsRequest(
            parent=self._names.model(model), filter=filter, cursor=cursor
        )
        response = model_service_pb2.WatchModelsResponse
        return Follow(request, response, lambda r: r.changes, endless=True)

    @followed
    def runs(
        self, model: Ref | None = None, *, filter: str = "", cursor: str = ""
    ) -> Follow[run_service_pb2.RunChange]:
        """Iterate over the changes of runs, for ever; otherwise like `models`."""
        request = run_service_pb2.WatchRunsRequest(
            parent=self._names.model(model), filter=filter, cursor=cursor
        )
        response = run_service_pb2.WatchRunsResponse
        return Follow(request, response, lambda r: r.changes, endless=True)


class Changes(_Changes, SyncGroup):
    """What changes, as it changes."""


class AsyncChanges(_Changes, AsyncGroup):
    """What changes, as it changes."""
