"""Tracing what came of what: level by level, one query a kind and a level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from services.common.errors import not_found
from services.common.names import DatasetName, ModelName
from services.common.sql.database import Database, Transaction
from services.metadata.lineage import graph_store
from services.metadata.lineage.domain import Direction, Edge, Kind, Lineage, Node, kind_of


class Tracing:
    """Answers where something came from and what came of it."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def trace(
        self, start: ModelName | DatasetName | str, direction: Direction, *, past: bool, limit: int
    ) -> Lineage:
        """Return the graph around something, nearest first, at most `limit` nodes.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND.
        """
        return await self._database.read(
            lambda tx: _trace(tx, start, direction, past=past, limit=limit)
        )


def _trace(
    tx: Transaction,
    start: ModelName | DatasetName | str,
    direction: Direction,
    *,
    past: bool,
    limit: int,
) -> Lineage:
    begin = _begin(tx, start)
    if not _nodes(tx, begin):
        raise not_found(start)
    walk = _Walk(tx, begin, past=past, limit=limit)
    if direction is not Direction.UPSTREAM:
        walk.go(down=True)
    if direction is not Direction.DOWNSTREAM:
        walk.go(down=False)
    known = {node.name: node for node in _nodes(tx, walk.order)}
    nodes = [known[name] for name in walk.order if name in known]
    edges = [edge for edge in walk.edges if edge.source in known and edge.target in known]
    return Lineage(nodes, edges, walk.truncated)


def _begin(tx: Transaction, start: ModelName | DatasetName | str) -> list[str]:
    if isinstance(start, ModelName):
        return graph_store.versions_of(tx.connection, start)
    if isinstance(start, DatasetName):
        return graph_store.versions_of_dataset(tx.connection, start)
    return [start]


class _Walk:
    """Walks from one beginning, each in its direction: ancestors and descendants, no cousins."""

    def __init__(self, tx: Transaction, begin: list[str], *, past: bool, limit: int) -> None:
        self._tx = tx
        self._past = past
        self._limit = limit
        self._begin = begin[:limit]
        self.order = dict.fromkeys(self._begin)
        self.edges: dict[Edge, None] = {}
        self.truncated = len(begin) > limit

    def go(self, *, down: bool) -> None:
        """Walk one way until nothing new is found."""
        seen = set(self._begin)
        frontier = self._begin
        while frontier:
            found: list[str] = []
            for edge in self._step(frontier, down=down):
                name = edge.target if down else edge.source
                if name not in self.order and len(self.order) >= self._limit:
                    self.truncated = True
                    continue
                self.edges[edge] = None
                self.order[name] = None
                if name not in seen:
                    seen.add(name)
                    found.append(name)
            frontier = found

    def _step(self, names: list[str], *, down: bool) -> list[Edge]:
        step = graph_store.edges_down if down else graph_store.edges_up
        edges: list[Edge] = []
        for kind, some in _by_kind(names).items():
            edges += step(self._tx.connection, kind, some, past=self._past)
        return edges


def _nodes(tx: Transaction, names: Iterable[str]) -> list[Node]:
    nodes: list[Node] = []
    for kind, some in _by_kind(names).items():
        nodes += graph_store.nodes_of(tx.connection, kind, some)
    return nodes


def _by_kind(names: Iterable[str]) -> dict[Kind, list[str]]:
    kinds: dict[Kind, list[str]] = defaultdict(list)
    for name in names:
        kind = kind_of(name)
        if kind is not None:
            kinds[kind].append(name)
    return kinds
