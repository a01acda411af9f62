"""The end of a project: deleted, restored, removed for ever.

Only an empty project goes: its models were deleted before, each with its own guard, so that
no single call takes down what is live. While it is deleted nothing comes into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from services.common.errors import etag_mismatch, not_found, wrong_state
from services.common.names import ProjectName
from services.common.sql.database import Database, Transaction
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.datasets.store import remove_datasets
from services.metadata.members.store import delete_members
from services.metadata.models import releases_store, removal_store
from services.metadata.models.domain import in_use
from services.metadata.models.releases_store import Release
from services.metadata.models.removing import Removing
from services.metadata.projects import store
from services.metadata.projects.domain import Project
from services.metadata.webhooks.store import remove_webhooks


class Ending:
    """Deletes projects, takes that back, and removes them."""

    def __init__(
        self, *, database: Database, removing: Removing, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._removing = removing
        self._clock = clock

    async def delete(self, name: ProjectName, *, etag: str, actor: str) -> Project:
        """Delete a project that has no models but deleted ones; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE.
        """
        now = self._clock()

        def delete(tx: Transaction) -> Project:
            project = _lock(tx, name)
            if etag and etag != str(project.revision):
                raise etag_mismatch(name, current=str(project.revision))
            if project.delete_time is not None:
                return project
            models = removal_store.some_models(tx.connection, name.project)
            if models:
                raise in_use(name, [str(model) for model in models])
            return _set(tx, project, now, actor)

        return await self._database.write(delete)

    async def restore(self, name: ProjectName, *, actor: str) -> Project:
        """Take back that a project was deleted; again changes nothing."""

        def restore(tx: Transaction) -> Project:
            project = _lock(tx, name)
            if project.delete_time is None:
                return project
            return _set(tx, project, None, actor)

        return await self._database.write(restore)

    async def purge(self, name: ProjectName, *, actor: str) -> None:
        """Remove a deleted project for ever, with its models, datasets and webhooks.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is not deleted.
        """
        now = self._clock()

        def purge(tx: Transaction) -> None:
            if _lock(tx, name).delete_time is None:
                raise wrong_state(name, "ACTIVE", f"{name} is not deleted; delete it first")
            removal_store.begin_removals(tx.connection, name.project, actor)
            datasets = remove_datasets(tx.connection, name.project)
            given_back = [Release(str(dataset), actor) for dataset in datasets]
            releases_store.owe(tx.connection, given_back, now)
            remove_webhooks(tx.connection, name.project)
            delete_members(tx.connection, name.project)
            store.set_purged(tx.connection, name.project, now)
            publish(tx, name.project, ChangeKind.PROJECT_PURGED, Change(str(name), actor=actor))

        await self._database.write(purge)
        self._removing.begin()


def _lock(tx: Transaction, name: ProjectName) -> Project:
    project = store.find_project(tx.connection, name.project, lock=True)
    if project is None:
        raise not_found(name)
    return project


def _set(tx: Transaction, project: Project, delete_time: datetime | None, actor: str) -> Project:
    kind = ChangeKind.PROJECT_DELETED if delete_time else ChangeKind.PROJECT_RESTORED
    changed = replace(project, delete_time=delete_time, revision=project.revision + 1)
    store.change_project(tx.connection, changed)
    name = str(ProjectName(project.project))
    publish(tx, project.project, kind, Change(name, actor=actor))
    return changed
