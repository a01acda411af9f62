"""Aliases: moved by compare-and-set, every move recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from services.common.auth import Right, right_missing
from services.common.errors import Reason, ServiceError, etag_mismatch, not_found
from services.common.names import AliasName, ModelName, VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.listing import Listing, Page
from services.metadata.models import alias_store, store, version_store
from services.metadata.models.domain import (
    Alias,
    AliasChange,
    AliasMove,
    alias_moved,
    not_choosable,
)
from services.metadata.projects.store import find_project
from services.metadata.watching.cursors import Stream, watchable


class Pointing:
    """Moves, reads and deletes aliases."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def move(self, move: AliasMove, *, key: Key | None) -> Alias:
        """Point an alias to a READY version, if it points where the caller expects.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ALIAS_MOVED, ETAG_MISMATCH, WRONG_STATE.
        """
        now = self._clock()
        return await self._database.write(
            lambda tx: once(tx, key, Alias, lambda: _move(tx, move, now)),
            locks=str(move.name.parent),
        )

    async def delete(
        self, name: AliasName, *, actor: str, reason: str, etag: str, may_deploy: bool
    ) -> None:
        """Delete an alias; its history stays.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, RIGHT_MISSING.
        """
        now = self._clock()

        def delete(tx: Transaction) -> None:
            check_protection(tx, [name], may_deploy=may_deploy)
            model_pk = store.lock_model(tx.connection, name.parent)
            current = alias_store.find_alias(tx.connection, name)
            if model_pk is None or current is None:
                raise not_found(name)
            _check_etag(name, current, etag)
            change = AliasChange(name, str(current.version), "", actor, reason, now)
            alias_store.drop_alias(tx.connection, model_pk, change=change, old=current.version)
            gone = Change(str(name), actor=actor, old_version=str(current.version))
            publish(tx, name.project, ChangeKind.ALIAS_DELETED, gone)

        await self._database.write(delete)

    async def get(self, name: AliasName, *, as_of: datetime | None) -> Alias:
        """Return an alias as it is, or as it was at a moment."""

        def find(tx: Transaction) -> Alias | None:
            if as_of is None:
                return alias_store.find_alias(tx.connection, name)
            return alias_store.alias_at(tx.connection, name, as_of)

        found = await self._database.read(find)
        if found is None:
            raise not_found(name) if as_of is None else _pointed_nowhere(name, as_of)
        return found

    async def list_aliases(self, parent: ModelName, listing: Listing) -> Page[Alias]:
        """Return a page of a model's aliases."""
        return await self._database.read(
            lambda tx: watchable(
                tx,
                Stream.MODELS,
                parent.project,
                listing,
                lambda: alias_store.list_aliases(tx.connection, parent, listing),
            )
        )

    async def list_changes(self, parent: AliasName, listing: Listing) -> Page[AliasChange]:
        """Return a page of an alias's history, newest first."""
        return await self._database.read(
            lambda tx: alias_store.list_changes(tx.connection, parent, listing)
        )


def point(
    tx: Transaction,
    model_pk: int,
    version_pk: int,
    version: VersionName,
    aliases: Sequence[str],
    *,
    actor: str,
    now: datetime,
) -> None:
    """Point aliases to a version that just became READY; the model must be locked."""
    for alias in aliases:
        move = AliasMove(version.parent.alias(alias), version, actor, "registered", None, "")
        _put(tx, model_pk, version_pk, move, now)


def _move(tx: Transaction, move: AliasMove, now: datetime) -> Alias:
    check_protection(tx, [move.name], may_deploy=move.may_deploy)
    model_pk = store.lock_model(tx.connection, move.name.parent)
    standing = version_store.find_standing(tx.connection, move.version)
    if model_pk is None or standing is None:
        raise not_found(move.version)
    if not standing.may_be_chosen:
        raise not_choosable(move.version, standing, "aliased")
    current = alias_store.find_alias(tx.connection, move.name)
    where = str(current.version) if current else ""
    if move.expected_version is not None and move.expected_version != where:
        raise alias_moved(move.name, where)
    _check_etag(move.name, current, move.etag)
    return _put(tx, model_pk, standing.pk, move, now)


def check_protection(tx: Transaction, names: Sequence[AliasName], *, may_deploy: bool) -> None:
    """Refuse aliases that their project protects, unless the caller may deploy.

    Raises:
        ServiceError: RIGHT_MISSING.
    """
    if may_deploy or not names:
        return
    project = find_project(tx.connection, names[0].project)
    if project is not None and not {name.alias for name in names}.isdisjoint(
        project.protected_aliases
    ):
        raise right_missing(Right.DEPLOY)


def _put(tx: Transaction, model_pk: int, version_pk: int, move: AliasMove, now: datetime) -> Alias:
    """Record a move; one to where the alias points already is no move."""
    current = alias_store.find_alias(tx.connection, move.name)
    if current is not None and current.version == move.version:
        return current
    old = current.version if current else None
    where = str(old) if old else ""
    change = AliasChange(move.name, where, str(move.version), move.actor, move.reason, now)
    alias = alias_store.put_alias(
        tx.connection, model_pk, version_pk, change=change, old=old, new=move.version
    )
    moved = Change(
        str(move.name), actor=move.actor, old_version=where, new_version=str(move.version)
    )
    publish(tx, move.name.project, ChangeKind.ALIAS_MOVED, moved)
    return alias


def _pointed_nowhere(name: AliasName, as_of: datetime) -> ServiceError:
    message = f"{name} pointed nowhere at {as_of.isoformat()}"
    return ServiceError(Reason.RESOURCE_NOT_FOUND, message, resource=str(name))


def _check_etag(name: AliasName, current: Alias | None, etag: str) -> None:
    now = str(current.change) if current else ""
    if etag and etag != now:
        raise etag_mismatch(name, current=now)
