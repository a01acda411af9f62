"""What changed, as it is now: one batch of names, one read of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy.engine import Connection

from services.common.names import AliasName, ModelName, ResourceName, RunName, VersionName
from services.metadata.models import alias_store, store, version_store
from services.metadata.models.domain import Alias, Model, Version
from services.metadata.runs import search_store
from services.metadata.runs.domain import Run

Resource = Model | Version | Alias | Run
N = TypeVar("N", bound=ResourceName)


class _Named(Protocol):
    @property
    def name(self) -> Any: ...


def find_resources(connection: Connection, names: Iterable[str]) -> Mapping[str, Resource]:
    """Return those of some models, versions, aliases and runs of one project that exist."""
    wanted = sorted(set(names))
    found: dict[str, Resource] = {}
    found |= _found(wanted, ModelName, lambda some: store.find_models(connection, some))
    found |= _found(wanted, VersionName, lambda some: version_store.find_versions(connection, some))
    found |= _found(wanted, AliasName, lambda some: alias_store.find_aliases(connection, some))
    found |= _found(wanted, RunName, lambda some: search_store.find_runs(connection, some))
    return found


def _found(
    wanted: Sequence[str], kind: type[N], find: Callable[[list[N]], Sequence[_Named]]
) -> dict[str, Any]:
    names = [kind.parse(text) for text in wanted if kind.expression.fullmatch(text)]
    return {str(resource.name): resource for resource in find(names)} if names else {}
