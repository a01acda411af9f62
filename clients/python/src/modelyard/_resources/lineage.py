"""`client.lineage`: what something came from and what came of it."""

from __future__ import annotations

from typing import Literal

from modelyard._names import Ref, text_of
from modelyard._resources.comparisons import anything
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, unary
from modelyard._transport.calls import Call, call
from modelyard.metadata.v1 import lineage_service_pb2 as service

Direction = Literal["both", "upstream", "downstream"]
_DIRECTIONS = {
    "both": service.LINEAGE_DIRECTION_UNSPECIFIED,
    "upstream": service.LINEAGE_DIRECTION_UPSTREAM,
    "downstream": service.LINEAGE_DIRECTION_DOWNSTREAM,
}


class _Lineage(Group):
    @unary
    def trace(
        self,
        name: Ref,
        *,
        direction: Direction = "both",
        include_past: bool = False,
        max_nodes: int = 0,
    ) -> Call[service.GetLineageResponse]:
        """Find what something came from and what came of it.

        A dataset is `datasets/customers` or `datasets/customers/3`; all else as in `compare`.
        """
        request = service.GetLineageRequest(
            name=self._full(name),
            direction=_DIRECTIONS[direction],
            include_past=include_past,
            max_nodes=max_nodes,
        )
        return call(request, service.GetLineageResponse, lambda r: r)

    def _full(self, name: Ref) -> str:
        text = text_of(name)
        if not text.startswith("datasets/"):
            return anything(self._names, name)
        dataset, _, number = text.removeprefix("datasets/").partition("/")
        full = self._names.dataset(dataset)
        return f"{full}/versions/{number.removeprefix('versions/')}" if number else full


class Lineage(_Lineage, SyncGroup):
    """What something came from and what came of it."""


class AsyncLineage(_Lineage, AsyncGroup):
    """What something came from and what came of it."""
