"""Changes of a build's state, each with its events, in the transaction that makes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.builder import codec, store
from services.builder.domain import (
    FRESH_PHASES,
    MAX_ATTEMPTS,
    Build,
    BuildState,
    Failure,
    FailureReason,
    Lease,
    Phase,
    PhaseState,
    lease_lost,
)
from services.builder.ledger import CHANGE, END
from services.common.database import Transaction
from services.common.errors import not_found
from services.common.names import BuildName

QUEUE = "queue"


def load(tx: Transaction, name: BuildName) -> Build:
    """Return a build, locked until the transaction ends."""
    build = store.find_build(tx.connection, name, lock=True)
    if build is None:
        raise not_found(name)
    return build


def load_held(tx: Transaction, lease: Lease) -> Build:
    """Return the build that a lease is about, locked, or refuse with LEASE_LOST."""
    build = store.find_build(tx.connection, lease.build, lock=True)
    if build is None or not build.held_by(lease):
        raise lease_lost(lease.build)
    return build


def enqueue(tx: Transaction, build: Build, now: datetime, failure: Failure | None = None) -> Build:
    """Put a build into the queue, new or again."""
    queued = replace(build, state=BuildState.QUEUED, worker="")
    _announce(tx, queued, now, failure)
    # Whoever waits for work looks again; what the event holds is of no account.
    tx.publish(QUEUE, CHANGE)
    return queued


def start(tx: Transaction, build: Build, worker: str, now: datetime) -> Build:
    """Give a build to a worker: a new attempt with a new fence."""
    started = replace(
        build,
        state=BuildState.RUNNING,
        worker=worker,
        attempt=build.attempt + 1,
        fence=build.fence + 1,
        acknowledged=0,
        phases=FRESH_PHASES,
        run="",
        start_time=build.start_time or now,
    )
    _announce(tx, started, now, None)
    return started


def move_phase(tx: Transaction, build: Build, phase: Phase, now: datetime) -> Build:
    """Start or end a phase, as `phase` says."""
    moved = build.move_phase(phase.kind, phase.state, failure=phase.failure, now=now)
    event = codec.phase_event(now, attempt=build.attempt, phase=phase)
    tx.publish(build.topic, CHANGE, event)
    return moved


def cancel(tx: Transaction, build: Build, now: datetime) -> Build:
    """Cancel a build as far as can be done now."""
    if build.state is BuildState.QUEUED:
        return end(tx, build, BuildState.CANCELLED, now)
    if build.state is BuildState.RUNNING and build.winner is None:
        cancelling = replace(build, state=BuildState.CANCELLING)
        _announce(tx, cancelling, now, None)
        return cancelling
    return build


def lose_worker(tx: Transaction, build: Build, message: str, now: datetime) -> Build:
    """Take a build away from a worker: to be tried again, unless that was its last attempt."""
    failure = Failure(FailureReason.WORKER_LOST, message)
    if build.state is BuildState.CANCELLING:
        return end(tx, build, BuildState.CANCELLED, now)
    if build.attempt >= MAX_ATTEMPTS:
        return end(tx, build, BuildState.FAILED, now, failure)
    stopped = _stop_phase(tx, build, PhaseState.CANCELLED, None, now)
    _finish_run(tx, stopped, BuildState.FAILED, failure)
    return enqueue(tx, replace(stopped, fence=build.fence + 1), now, failure)


def end(
    tx: Transaction,
    build: Build,
    state: BuildState,
    now: datetime,
    failure: Failure | None = None,
) -> Build:
    """End a build for good; its fence rises, so that no lease of it holds any more."""
    lost = failure is not None and failure.reason in {
        FailureReason.WORKER_LOST,
        FailureReason.RIGHT_LOST,
    }
    failed = state is BuildState.FAILED and not lost
    phase_state = PhaseState.FAILED if failed else PhaseState.CANCELLED
    stopped = _stop_phase(tx, build, phase_state, failure if failed else None, now)
    ended = replace(
        stopped,
        state=state,
        failure=failure,
        fence=build.fence + (state is not BuildState.SUCCEEDED),
        end_time=now,
    )
    event = codec.state_event(now, attempt=ended.attempt, state=state, failure=failure)
    tx.publish(build.topic, END, event)
    _finish_run(tx, ended, state, failure)
    return ended


def _announce(tx: Transaction, build: Build, now: datetime, failure: Failure | None) -> None:
    event = codec.state_event(now, attempt=build.attempt, state=build.state, failure=failure)
    tx.publish(build.topic, CHANGE, event)


def _stop_phase(
    tx: Transaction,
    build: Build,
    state: PhaseState,
    failure: Failure | None,
    now: datetime,
) -> Build:
    """End the phase in progress, if there is one, with its build."""
    running = build.running_phase()
    if running is None:
        return build
    return move_phase(tx, build, Phase(running.kind, state, failure), now)


def _finish_run(tx: Transaction, build: Build, state: BuildState, failure: Failure | None) -> None:
    if not build.run:
        return
    run = store.UnfinishedRun(
        run=build.run,
        build=build.name,
        state=state.value,
        reason="BUILD_FAILED" if failure else "",
        message=f"{failure.reason}: {failure.message}" if failure else "",
    )
    store.add_unfinished_run(tx.connection, run)
