"""Changes of a build's state, each with its events, in the transaction that makes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from services.builder import codec, store
from services.builder.domain import (
    FRESH_PHASES,
    LEASED,
    Attempt,
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
from services.common.errors import not_found
from services.common.names import BuildName
from services.common.sql.database import Transaction

QUEUE = "queue"
"""The topic that wakes whoever waits for work."""
RECALLS = "recalls"
"""The topic of the builds whose workers should look at once whether to go on."""
_NO_FAULT = frozenset(
    {FailureReason.WORKER_LOST, FailureReason.WORKER_STOPPED, FailureReason.RIGHT_LOST}
)


def load(tx: Transaction, name: BuildName) -> Build:
    """Return a build, locked until the transaction ends."""
    build = store.find_build(tx.connection, name, lock=True)
    if build is None:
        raise not_found(name)
    return build


def load_held(tx: Transaction, lease: Lease) -> Build:
    """Return the build that a lease is about, locked, or refuse with LEASE_LOST."""
    return _held(store.find_build(tx.connection, lease.build, lock=True), lease)


def look_held(tx: Transaction, lease: Lease) -> Build:
    """Return the build that a lease is about as it is now, or refuse with LEASE_LOST."""
    return _held(store.find_build(tx.connection, lease.build), lease)


def _held(build: Build | None, lease: Lease) -> Build:
    if build is None or not build.held_by(lease):
        raise lease_lost(lease.build)
    return build


def enqueue(tx: Transaction, build: Build, now: datetime, failure: Failure | None = None) -> Build:
    """Put a build into the queue, new or again."""
    queued = replace(build, state=BuildState.QUEUED, worker="")
    _announce(tx, queued, now, failure)
    wake_workers(tx)
    return queued


def wake_workers(tx: Transaction) -> None:
    """Have whoever waits for work look again; what the event holds is of no account."""
    tx.publish(QUEUE, CHANGE)


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
        attempt_start_time=now,
        retry_time=None,
    )
    _announce(tx, started, now, None)
    return started


def move_phase(tx: Transaction, build: Build, phase: Phase, now: datetime) -> Build:
    """Start or end a phase, as `phase` says."""
    moved = build.move_phase(phase, now=now)
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
        _recall(tx, build)
        return cancelling
    return build


def fail_attempt(
    tx: Transaction, build: Build, failure: Failure, now: datetime, *, first_delay: timedelta
) -> Build:
    """End an attempt that failed: its build is tried again as far as its budget goes."""
    if build.state is BuildState.CANCELLING:
        return end(tx, build, BuildState.CANCELLED, now)
    if not build.tries_again(failure):
        return end(tx, build, BuildState.FAILED, now, failure)
    stopped = _stop_phase(tx, build, *_phase_end(BuildState.FAILED, failure), now)
    _finish_run(tx, stopped, BuildState.FAILED, failure)
    attempt = Attempt(
        build.attempt, build.run, build.worker, failure, build.attempt_start_time or now, now
    )
    again = replace(
        stopped,
        fence=build.fence + 1,
        past_attempts=(*build.past_attempts, attempt),
        retry_time=now + build.retry_delay(failure, first_delay),
    )
    return enqueue(tx, again, now, failure)


def end(
    tx: Transaction,
    build: Build,
    state: BuildState,
    now: datetime,
    failure: Failure | None = None,
) -> Build:
    """End a build for good; its fence rises, so that no lease of it holds any more."""
    stopped = _stop_phase(tx, build, *_phase_end(state, failure), now)
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
    if build.state in LEASED:
        wake_workers(tx)  # it no longer counts for any limit
        if failure is not None and failure.reason is FailureReason.RIGHT_LOST:
            _recall(tx, build)
    return ended


def _phase_end(state: BuildState, failure: Failure | None) -> tuple[PhaseState, Failure | None]:
    """Say how the phase in progress ends; what is not its own fault cancels it."""
    failed = failure is not None and failure.reason not in _NO_FAULT
    if state is BuildState.FAILED and failed:
        return PhaseState.FAILED, failure
    return PhaseState.CANCELLED, None


def _recall(tx: Transaction, build: Build) -> None:
    tx.publish(RECALLS, CHANGE, str(build.name).encode())


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
