"""Uses of versions by deployments, and the graph of what came of what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.common.names import (
    AliasName,
    BuildName,
    DatasetVersionName,
    DeploymentName,
    ResourceName,
    RunName,
    VersionName,
)


@dataclass(frozen=True, slots=True)
class VersionUse:
    """A version's use by a deployment; `end_time` is None while it lasts."""

    version: VersionName
    user: DeploymentName
    start_time: datetime
    end_time: datetime | None


class Kind(StrEnum):
    """What a node of the graph is."""

    DATASET_VERSION = "DATASET_VERSION"
    RUN = "RUN"
    BUILD = "BUILD"
    VERSION = "VERSION"
    ALIAS = "ALIAS"
    DEPLOYMENT = "DEPLOYMENT"


class Direction(StrEnum):
    """Which way to look."""

    BOTH = "UNSPECIFIED"
    UPSTREAM = "UPSTREAM"
    DOWNSTREAM = "DOWNSTREAM"


@dataclass(frozen=True, slots=True)
class Edge:
    """One thing that came of another, and how."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True)
class Node:
    """One thing in the graph, and what a person wants to know of it."""

    name: str
    kind: Kind
    title: str
    state: str
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What came of what; `truncated` when there is more."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    truncated: bool


_KINDS: tuple[tuple[type[ResourceName], Kind], ...] = (
    (DatasetVersionName, Kind.DATASET_VERSION),
    (RunName, Kind.RUN),
    (BuildName, Kind.BUILD),
    (VersionName, Kind.VERSION),
    (AliasName, Kind.ALIAS),
    (DeploymentName, Kind.DEPLOYMENT),
)


def kind_of(name: str) -> Kind | None:
    """Return what a name is the name of; None when it is no node's."""
    return next((kind for type_, kind in _KINDS if type_.expression.fullmatch(name)), None)
