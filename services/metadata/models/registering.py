"""How a version comes to be: reserved, its bytes held elsewhere, READY.

The crossing to the artifact service has one owner, this file. A version is first
recorded PENDING; then its artifact is held, which is idempotent; only then is it
READY. Whatever dies in between, the sweep takes up what is left PENDING, with a
fresh delegation of the version's creator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NoReturn

from services.common.auth import Right
from services.common.errors import Reason, ServiceError, not_found
from services.common.names import ArtifactName, ModelName, RunName, VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.models import store, version_store
from services.metadata.models.artifacts import Holds
from services.metadata.models.domain import (
    PendingVersion,
    Version,
    VersionDraft,
    VersionState,
    bytes_missing,
)
from services.metadata.models.pointing import check_protection, point
from services.metadata.models.registry import ensure_model
from services.metadata.projects.access import Access
from services.metadata.runs import store as run_store
from services.metadata.values import Failure

logger = logging.getLogger(__name__)

HOLD_SECONDS = 10.0
SWEEP_BATCH = 100
GONE = frozenset({Reason.BYTES_MISSING, Reason.CORRUPT_BYTES})
REFUSED = frozenset({Reason.RIGHT_MISSING, Reason.INVALID_CREDENTIAL})


@dataclass(frozen=True, slots=True)
class Reserved:
    """The answer kept for a request id: which version it made."""

    name: VersionName


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A version as it was just recorded."""

    pk: int
    version: Version
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reservation:
    """A version that a request made: now, and then it is fresh, or when it first came."""

    name: VersionName
    fresh: _Fresh | None


class Registering:
    """Registers versions, and finishes those left half done."""

    def __init__(
        self,
        *,
        database: Database,
        holds: Holds,
        access: Access,
        clock: Callable[[], datetime],
        pending: timedelta,
        interval: timedelta,
    ) -> None:
        self._database = database
        self._holds = holds
        self._access = access
        self._clock = clock
        self._pending = pending
        self._interval = interval

    async def create(
        self,
        parent: ModelName,
        draft: VersionDraft,
        *,
        creator: str,
        credential: str,
        seconds: float,
        key: Key | None,
    ) -> Version:
        """Register a version: READY, or PENDING while the artifact service is away.

        Args:
            parent: the model, created if need be.
            draft: what the caller says of the version.
            creator: the caller's principal.
            credential: the caller's credential, to hold the artifact with.
            seconds: how long the caller waits.
            key: what makes it idempotent.

        Raises:
            ServiceError: BYTES_MISSING, RESOURCE_EXISTS, RESOURCE_NOT_FOUND, REQUEST_ID_REUSED.
        """
        now = self._clock()

        def reserve(tx: Transaction) -> _Reservation:
            made: list[_Fresh] = []

            def make() -> Reserved:
                made.append(_reserve(tx, parent, draft, creator=creator, now=now))
                return Reserved(made[0].version.name)

            name = once(tx, key, Reserved, make).name
            return _Reservation(name, made[0] if made else None)

        reserved = await self._database.write(reserve, locks=str(parent))
        # A repeat may find its version finished, deleted or gone by now.
        version = None if reserved.fresh else await self._get(reserved.name)
        if version is None or version.state is VersionState.PENDING:
            artifact = str(ArtifactName(parent.project, draft.artifact))
            pending = PendingVersion(reserved.name, artifact, creator)
            finished = await self._finish(
                pending, credential, seconds=min(seconds, HOLD_SECONDS), fresh=reserved.fresh
            )
            version = finished or await self._get(reserved.name)
        if version.state is VersionState.FAILED:
            _refuse(version)
        return version

    async def sweep_forever(self) -> None:
        """Finish versions left PENDING, until cancelled."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.sweep()
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("pending versions not swept", extra={"reason": error.reason})

    async def sweep(self) -> None:
        """Try once to finish every version that has been PENDING for a while."""
        before = self._clock() - self._pending
        pending = await self._database.read(
            lambda tx: version_store.list_pending(tx.connection, before=before, limit=SWEEP_BATCH)
        )
        for version in pending:
            rights = (Right.READ, Right.WRITE)
            issued = self._access.mint(version.creator, str(version.name), rights)
            if not await self._finish(version, issued.credential, seconds=HOLD_SECONDS):
                return  # the artifact service is away; the others would wait in vain

    async def _finish(
        self,
        pending: PendingVersion,
        credential: str,
        *,
        seconds: float,
        fresh: _Fresh | None = None,
    ) -> Version | None:
        """Hold a version's bytes and decide its state; None while the artifact service is away."""
        name = pending.name
        try:
            await self._holds.hold(
                pending.artifact, str(name), credential=credential, seconds=seconds
            )
        except ServiceError as error:
            if error.reason in GONE:
                failure = Failure(Reason.BYTES_MISSING.value, error.message)
                return await self._database.write(lambda tx: _fail(tx, name, failure))
            if error.reason in REFUSED:
                failure = Failure(error.reason.value, "its creator may no longer write here")
                return await self._database.write(lambda tx: _fail(tx, name, failure))
            logger.warning(
                "version stays pending", extra={"version": str(name), "reason": error.reason}
            )
            is_away = error.reason is Reason.SERVICE_UNAVAILABLE
            return None if is_away else await self._get(name)
        now = self._clock()
        actor = pending.creator
        if fresh is not None and not fresh.aliases:
            ready = await self._database.write(
                lambda tx: _complete_fresh(tx, fresh, actor, now), locks=str(name.parent)
            )
            if ready is not None:
                return ready
        return await self._database.write(
            lambda tx: _complete(tx, name, actor, now), locks=str(name.parent)
        )

    async def _get(self, name: VersionName) -> Version:
        return await self._database.lookup(lambda tx: _found(tx, name))


def _found(tx: Transaction, name: VersionName) -> Version:
    found = version_store.find_version(tx.connection, name)
    if found is None:
        raise not_found(name)
    return found


def _reserve(
    tx: Transaction, parent: ModelName, draft: VersionDraft, *, creator: str, now: datetime
) -> _Fresh:
    """Record a PENDING version with what its run knows by now."""
    aliases = [parent.alias(alias) for alias in draft.aliases]
    check_protection(tx, aliases, may_deploy=draft.may_deploy)
    model_pk, number = _allot(tx, parent, now, creator)
    run_pk = None
    if draft.run:
        run_pk = run_store.find_run_pk(
            tx.connection, RunName.parse(draft.run, "version.run"), deleted=False
        )
        if run_pk is None:
            raise not_found(draft.run)
    pk = version_store.insert_version(
        tx.connection, model_pk, number, draft, creator=creator, now=now
    )
    if pk is None:
        message = f"{parent} has a version with the label {draft.label}"
        raise ServiceError(Reason.RESOURCE_EXISTS, message, resource=str(parent))
    if run_pk is not None:
        run_store.copy_results(tx.connection, run_pk, version_pk=pk)
    name = parent.version(number)
    change = Change(str(name), actor=creator, state=VersionState.PENDING.value)
    publish(tx, name.project, ChangeKind.VERSION_PENDING, change)
    # What its run knows lies in the database; all else of it is what the caller said.
    version = _found(tx, name) if draft.run else _pending(name, draft, creator=creator, now=now)
    return _Fresh(pk, version, draft.aliases)


def _allot(tx: Transaction, parent: ModelName, now: datetime, creator: str) -> tuple[int, int]:
    """Return a model's row, locked, and its next version number; it is created if need be."""
    allotted = store.next_number(tx.connection, parent)
    if allotted is None:
        ensure_model(tx, parent, now, creator)
        allotted = store.next_number(tx.connection, parent)
    if allotted is None:
        raise not_found(parent)
    return allotted


def _pending(name: VersionName, draft: VersionDraft, *, creator: str, now: datetime) -> Version:
    """Return a new version of no run as the database has it."""
    return Version(
        name=name,
        state=VersionState.PENDING,
        failure=None,
        artifact=str(ArtifactName(name.project, draft.artifact)),
        run=draft.run,
        build=draft.build,
        label=draft.label,
        description=draft.description,
        labels=dict(draft.labels),
        card=draft.card,
        license=draft.license,
        image=draft.image,
        params={},
        metrics={},
        environment_digest=draft.environment_digest,
        tests_passed=draft.tests_passed,
        creator=creator,
        create_time=now,
        ready_time=None,
        archive_time=None,
        delete_time=None,
        revision=1,
        aliases=(),
    )


def _complete_fresh(tx: Transaction, fresh: _Fresh, creator: str, now: datetime) -> Version | None:
    """Make a version READY that wants no aliases; None if it is not as it was recorded."""
    if not version_store.set_fresh_ready(tx.connection, fresh.pk, now):
        return None
    made = fresh.version
    _tell_ready(tx, made.name, creator)
    return replace(made, state=VersionState.READY, ready_time=now, revision=made.revision + 1)


def _complete(tx: Transaction, name: VersionName, creator: str, now: datetime) -> Version:
    """Make a PENDING version READY, with its aliases; another may have done it."""
    model_pk = store.lock_model(tx.connection, name.parent)
    found = version_store.find_standing(tx.connection, name)
    if model_pk is None or found is None:
        raise not_found(name)
    aliases = version_store.set_ready(tx.connection, found.pk, now)
    if aliases is not None:
        _tell_ready(tx, name, creator)
        point(tx, model_pk, found.pk, name, aliases, actor=creator, now=now)
    return _found(tx, name)


def _tell_ready(tx: Transaction, name: VersionName, creator: str) -> None:
    change = Change(str(name), actor=creator, state=VersionState.READY.value)
    publish(tx, name.project, ChangeKind.VERSION_READY, change)


def _fail(tx: Transaction, name: VersionName, failure: Failure) -> Version:
    found = version_store.find_standing(tx.connection, name)
    if found is not None and version_store.set_failed(tx.connection, found.pk, failure):
        change = Change(str(name), state=VersionState.FAILED.value)
        publish(tx, name.project, ChangeKind.VERSION_FAILED, change)
    return _found(tx, name)


def _refuse(version: Version) -> NoReturn:
    raise bytes_missing(ArtifactName.parse(version.artifact).artifact)
