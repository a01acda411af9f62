"""The registry of models: creating, finding, changing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from services.common.errors import already_exists, etag_mismatch, not_found
from services.common.names import AliasName, ModelName, ProjectName, VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.listing import Listing, Page
from services.metadata.models import store, version_store
from services.metadata.models.domain import Model, ModelDraft, Version
from services.metadata.models.resolutions import Resolutions
from services.metadata.watching.cursors import Stream, watchable

TEXTS = ("display_name", "description")


class Registry:
    """Answers everything about models and versions but how versions come to be."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        encode: Callable[[Version], bytes],
    ) -> None:
        self._database = database
        self._encode = encode
        self._clock = clock
        self._resolutions = Resolutions()
        database.on_commit(self._resolutions.forget)

    async def create_model(
        self, name: ModelName, draft: ModelDraft, *, actor: str, key: Key | None
    ) -> Model:
        """Create a model.

        Raises:
            ServiceError: RESOURCE_EXISTS; RESOURCE_NOT_FOUND when there is no such project.
        """
        now = self._clock()

        def create(tx: Transaction) -> Model:
            if add_model(tx, name, draft, now, actor) is None:
                raise already_exists(name)
            return _found(store.find_model(tx.connection, name), name)

        return await self._database.write(lambda tx: once(tx, key, Model, lambda: create(tx)))

    async def get_model(self, name: ModelName) -> Model:
        """Return a model."""
        found = await self._database.read(lambda tx: store.find_model(tx.connection, name))
        return _found(found, name)

    async def list_models(self, parent: ProjectName, listing: Listing) -> Page[Model]:
        """Return a page of a project's models."""
        return await self._database.read(
            lambda tx: watchable(
                tx,
                Stream.MODELS,
                parent.project,
                listing,
                lambda: store.list_models(tx.connection, parent.project, listing),
            )
        )

    async def update_model(
        self,
        name: ModelName,
        draft: ModelDraft,
        *,
        paths: Collection[str],
        etag: str,
        actor: str,
        key: Key | None,
    ) -> Model:
        """Change the fields named by `paths`.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """
        now = self._clock()

        def change(tx: Transaction) -> Model:
            pk = store.lock_model(tx.connection, name)
            current = _found(store.find_model(tx.connection, name), name)
            if etag and etag != str(current.revision):
                raise etag_mismatch(name, current=str(current.revision))
            if pk is not None and paths:
                _apply(tx, pk, draft, paths, now)
                changed = Change(str(name), actor=actor)
                publish(tx, name.project, ChangeKind.MODEL_UPDATED, changed)
            return _found(store.find_model(tx.connection, name), name)

        return await self._database.write(lambda tx: once(tx, key, Model, lambda: change(tx)))

    async def get_version(self, name: VersionName) -> Version:
        """Return a version."""
        found = await self._database.lookup(
            lambda tx: version_store.find_version(tx.connection, name)
        )
        return _found_version(found, name)

    async def find_labelled(self, name: ModelName, label: str) -> bytes:
        """Return the version of a model that has a label, encoded."""
        found = await self._database.read(
            lambda tx: version_store.find_labelled(tx.connection, name, label)
        )
        return self._encode(_found_version(found, f"{name} with the label {label}"))

    async def resolve(self, name: VersionName | AliasName | ModelName) -> bytes:
        """Return the version that a version, an alias or a model (its newest one) names, encoded.

        Encoded, because it is kept for those who ask the same next.
        """

        def find(tx: Transaction) -> Version | None:
            if isinstance(name, VersionName):
                return version_store.find_version(tx.connection, name)
            if isinstance(name, AliasName):
                return version_store.find_aliased(tx.connection, name.parent, name.alias)
            return version_store.newest_ready(tx.connection, name)

        async def read() -> bytes | None:
            version = await self._database.lookup(find)
            return None if version is None else self._encode(version)

        found = await self._resolutions.find(str(name), read)
        if found is None:
            raise not_found(name)
        return found


def add_model(
    tx: Transaction, name: ModelName, draft: ModelDraft, now: datetime, actor: str
) -> int | None:
    """Create a model in a transaction and return its row; None when it exists."""
    pk = store.insert_model(tx.connection, name, draft, now)
    if pk is not None:
        publish(tx, name.project, ChangeKind.MODEL_CREATED, Change(str(name), actor=actor))
    return pk


def ensure_model(tx: Transaction, name: ModelName, now: datetime, actor: str) -> int:
    """Return a model's row, locked until the transaction's end; created if need be.

    Raises:
        ServiceError: RESOURCE_NOT_FOUND when there is no such project; WRONG_STATE when it or
            the model is deleted.
    """
    pk = store.lock_model(tx.connection, name)
    if pk is None:
        pk = add_model(tx, name, ModelDraft(), now, actor)
        pk = pk or store.lock_model(tx.connection, name)
    if pk is None:
        raise not_found(name)
    return pk


def _apply(
    tx: Transaction, pk: int, draft: ModelDraft, paths: Collection[str], now: datetime
) -> None:
    texts = {path: getattr(draft, path) for path in TEXTS if path in paths}
    store.change_model(tx.connection, pk, texts=texts, now=now)
    store.replace_maps(
        tx.connection,
        pk,
        labels=draft.labels if "labels" in paths else None,
        goals=draft.metric_goals if "metric_goals" in paths else None,
    )


def _found(model: Model | None, name: ModelName) -> Model:
    if model is None:
        raise not_found(name)
    return model


def _found_version(version: Version | None, name: object) -> Version:
    if version is None:
        raise not_found(name)
    return version
