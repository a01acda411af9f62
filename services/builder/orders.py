"""Build orders: taken, shown, cancelled."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.builder import store, transitions
from services.builder.domain import Build
from services.builder.downstream import Downstream
from services.builder.queue.queueing import Queue
from services.builder.secrets.keeping import Vault
from services.builder.spec import BuildSpec
from services.common.auth import Right
from services.common.errors import not_found
from services.common.listing.filtering import parse_filter
from services.common.names import BuildName, SecretName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once

_NAMESPACE = uuid.UUID("0d7a1c64-2f6b-4c8e-8a57-5be9c3a4f4a2")


@dataclass(frozen=True, slots=True)
class _Created:
    """The answer that is kept for a repeat."""

    project: str
    build: str


class Orders:
    """Takes build orders and shows how they go."""

    def __init__(
        self,
        *,
        database: Database,
        downstream: Downstream,
        vault: Vault,
        queue: Queue,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._queue = queue
        self._downstream = downstream
        self._vault = vault
        self._clock = clock

    async def create(
        self,
        project: str,
        model: str,
        spec: BuildSpec,
        *,
        creator: str,
        credential: str,
        key: Key | None,
    ) -> Build:
        """Queue a build that acts for its creator.

        Raises:
            ServiceError: BYTES_MISSING, CAPACITY_EXCEEDED, RESOURCE_NOT_FOUND (a secret, a dataset
                version), RIGHT_MISSING, REQUEST_ID_REUSED.
        """
        name = BuildName(project, _new_id(key))
        await self._queue.refuse_over_ask(spec)
        await self._vault.require([SecretName.parse(secret) for secret in spec.secret_names])
        await self._hold_inputs(name, spec, credential)
        rights = (Right.READ, Right.WRITE)
        delegation = await self._downstream.issue_delegation(name, rights, credential=credential)
        build = Build(name, model, spec, creator, self._clock(), delegation)
        created = await self._database.write(
            lambda tx: once(tx, key, _Created, lambda: _add(tx, build))
        )
        return await self.get(BuildName(created.project, created.build))

    async def _hold_inputs(self, name: BuildName, spec: BuildSpec, credential: str) -> None:
        """Keep what the build is made from: it may wait, and be repeated."""
        held = [spec.source] if spec.source else []
        for data in spec.data:
            version = data.dataset_version
            held.append(await self._downstream.data_artifact(version, credential=credential))
        for artifact in held:
            await self._downstream.hold_artifact(name, artifact, credential=credential)

    async def get(self, name: BuildName) -> Build:
        """Return a build, or refuse with RESOURCE_NOT_FOUND."""
        build = await self._database.read(lambda tx: store.find_build(tx.connection, name))
        if build is None:
            raise not_found(name)
        return (await self._queue.explained([build]))[0]

    async def list(
        self, project: str, *, where: str, before: tuple[datetime, str] | None, limit: int
    ) -> list[Build]:
        """Return a project's builds, newest first, from before a (create time, id) on."""
        expression = parse_filter(where)
        builds = await self._database.read(
            lambda tx: store.list_builds(
                tx.connection, project, where=expression, before=before, limit=limit
            )
        )
        return await self._queue.explained(builds)

    async def cancel(self, name: BuildName) -> Build:
        """Cancel a build; one that ended stays as it is."""
        return await self._database.write(lambda tx: _cancel(tx, name, self._clock()))


def _new_id(key: Key | None) -> str:
    """Allot an id; a repeated request is allotted the same, so that it changes nothing."""
    if key is None:
        return f"b-{secrets.token_hex(8)}"
    return f"b-{uuid.uuid5(_NAMESPACE, f'{key.principal}/{key.request_id}').hex[:16]}"


def _add(tx: Transaction, build: Build) -> _Created:
    store.add_build(tx.connection, build)
    transitions.enqueue(tx, build, build.create_time)
    return _Created(build.name.project, build.name.build)


def _cancel(tx: Transaction, name: BuildName, now: datetime) -> Build:
    build = transitions.cancel(tx, transitions.load(tx, name), now)
    store.save_build(tx.connection, build)
    return build
