"""Registration: from the artifact of the attempt that won to exactly one version.

The winner is fixed in the builder's own ledger first, under the worker's fence.
From then on the build no longer depends on the worker: whoever comes first, the
worker asking again or this service's own retry, registers the version with a
request id derived from the build, so that there is never a second one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from services.builder import store, transitions
from services.builder.delegations import Delegations
from services.builder.domain import (
    Build,
    BuildState,
    Failure,
    FailureReason,
    Lease,
    Phase,
    PhaseState,
    Winner,
    lease_lost,
)
from services.builder.downstream import Downstream, Registered
from services.builder.spec import PhaseKind
from services.common.errors import Reason, ServiceError, may_pass, wrong_state
from services.common.names import BuildName, VersionName
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

_LOST = {Reason.RIGHT_MISSING, Reason.INVALID_CREDENTIAL}


class Registrar:
    """Registers the versions of builds that won."""

    def __init__(
        self,
        *,
        database: Database,
        downstream: Downstream,
        delegations: Delegations,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._downstream = downstream
        self._delegations = delegations
        self._clock = clock

    async def register(self, lease: Lease, winner: Winner) -> str:
        """Record the winner and register its version; return the version's name.

        Raises:
            ServiceError: LEASE_LOST, BYTES_MISSING; SERVICE_UNAVAILABLE when it must be
                asked again, or will be finished without.
        """
        build = await self._database.read(lambda tx: _claimed(tx, lease))
        if build.state is BuildState.SUCCEEDED:
            return build.version
        if build.winner is None:
            build = await self._delegations.fresh(build)
            credential = build.delegation.credential
            for artifact in (winner.artifact, *winner.companions):
                await self._downstream.require_artifact(artifact, credential=credential)
            build = await self._database.write(lambda tx: _record(tx, lease, winner))
        return await self._finish(build)

    async def resume(self) -> None:
        """Go on with registrations that were cut short."""
        builds = await self._database.read(lambda tx: store.leased_builds(tx.connection))
        for build in builds:
            if build.winner is None:
                continue
            try:
                await self._finish(build)
            except ServiceError as error:
                logger.warning(
                    "registration waits",
                    extra={"build": str(build.name), "reason": error.reason.value},
                )

    async def _finish(self, build: Build) -> str:
        try:
            # Renewed by us, the delegation shows metadata that the build is ours.
            build = replace(build, delegation=await self._delegations.renew(build))
            registered = await self._register(build)
        except ServiceError as error:
            # What was trained also waits for a limit to be raised, or a disk to be emptied.
            if may_pass(error):
                raise
            await self._fail(build.name, _failure(error))
            raise
        if registered.failure:
            failure = Failure(FailureReason.REGISTER_FAILED, registered.failure)
            await self._fail(build.name, failure)
            raise wrong_state(registered.version, "FAILED", registered.failure)
        if not registered.ready:
            message = f"{registered.version} waits until its bytes are held; ask again"
            raise ServiceError(Reason.SERVICE_UNAVAILABLE, message)
        await self._finish_run(build)
        return await self._database.write(
            lambda tx: _succeed(tx, build.name, registered, self._clock())
        )

    async def _register(self, build: Build) -> Registered:
        """Register the version, and have it hold what belongs to it; again changes nothing.

        What reproduces a version registers none: the build itself holds what came of it.
        """
        winner, credential = build.winner, build.delegation.credential
        if winner is None:
            raise ValueError("the build has no winner")
        if build.spec.reproduces:
            for artifact in (winner.artifact, *winner.companions):
                await self._downstream.hold_artifact(build.name, artifact, credential=credential)
            return Registered("", ready=True)
        registered = await self._downstream.register_version(build)
        if not registered.failure:
            holder = VersionName.parse(registered.version)
            for artifact in winner.companions:
                await self._downstream.hold_artifact(holder, artifact, credential=credential)
        return registered

    async def _finish_run(self, build: Build) -> None:
        """End the run before the build says that it ended; if that fails, it is done later."""
        run = store.UnfinishedRun(build.run, build.name, BuildState.SUCCEEDED.value, "", "")
        try:
            await self._downstream.finish_run(run, credential=build.delegation.credential)
        except ServiceError as error:
            logger.warning("run not finished", extra={"reason": error.reason.value})

    async def _fail(self, name: BuildName, failure: Failure) -> None:
        await self._database.write(lambda tx: _fail(tx, name, failure, self._clock()))


def _failure(error: ServiceError) -> Failure:
    if error.reason in _LOST:
        return Failure(FailureReason.RIGHT_LOST, error.message)
    return Failure(FailureReason.REGISTER_FAILED, error.message)


def _claimed(tx: Transaction, lease: Lease) -> Build:
    """Return the build that a lease is about, also when it just succeeded under it."""
    build = store.find_build(tx.connection, lease.build)
    if build is None or build.lease != lease:
        raise lease_lost(lease.build)
    if build.state is BuildState.CANCELLING:
        raise wrong_state(build.name, build.state.value, f"{build.name} is being cancelled")
    if build.state is not BuildState.SUCCEEDED and not build.held_by(lease):
        raise lease_lost(lease.build)
    return build


def _record(tx: Transaction, lease: Lease, winner: Winner) -> Build:
    build = transitions.load_held(tx, lease)
    if build.state is BuildState.CANCELLING:
        raise wrong_state(build.name, build.state.value, f"{build.name} is being cancelled")
    running = build.running_phase()
    if running is None or running.kind is not PhaseKind.REGISTER:
        message = f"{build.name} is not in its register phase"
        raise wrong_state(build.name, build.state.value, message)
    build = replace(build, winner=build.winner or winner)
    store.save_build(tx.connection, build)
    return build


def _succeed(tx: Transaction, name: BuildName, registered: Registered, now: datetime) -> str:
    build = transitions.load(tx, name)
    if build.state.ended:
        return build.version
    build = transitions.move_phase(tx, build, Phase(PhaseKind.REGISTER, PhaseState.SUCCEEDED), now)
    build = replace(build, version=registered.version)
    store.save_build(tx.connection, transitions.end(tx, build, BuildState.SUCCEEDED, now))
    return build.version


def _fail(tx: Transaction, name: BuildName, failure: Failure, now: datetime) -> None:
    build = transitions.load(tx, name)
    if not build.state.ended:
        ended = transitions.end(tx, build, BuildState.FAILED, now, failure)
        store.save_build(tx.connection, ended)
