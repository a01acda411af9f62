"""Twelve bugs that services like these have had, each sown into a process of a test.

They show what the suites of this folder are worth: `test_seeded_bugs.py` demands that each
is found. Nothing of this is reached by the services themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from services.artifact.blobs import disk
from services.artifact.storage import sweep_store
from services.builder import ledger, registrar, store
from services.builder.domain import LEASED, Build, topic_of
from services.builder.scheduler import Scheduler
from services.builder.worker import processes
from services.builder.worker.sandbox import Sandbox
from services.common.sql import database, idempotency
from services.common.sql.engines import driver_of
from services.common.sql.outbox import append
from services.deployer.rollouts import journal
from services.metadata.models.artifacts import RemoteHolds

_FAR = timedelta(days=400)


def _answer_before_commit() -> None:
    tell, deliver = database._tell, database.Write.deliver

    def tell_and_answer(connection: Any, writes: Sequence[database.Write]) -> None:
        tell(connection, writes)
        database._deliver(writes)
        time.sleep(0.1)  # as long as a flush may take

    def deliver_once(write: database.Write) -> None:
        if not write.future.done():
            deliver(write)

    _replace(database, "_tell", tell_and_answer)
    _replace(database.Write, "deliver", deliver_once)


def _version_before_bytes() -> None:
    hold = RemoteHolds.hold
    later: set[asyncio.Task[None]] = set()

    async def hold_later(self: RemoteHolds, *args: Any, **named: Any) -> None:
        async def wait_and_hold() -> None:
            await asyncio.sleep(0.1)
            await hold(self, *args, **named)

        later.add(asyncio.create_task(wait_and_hold()))

    _replace(RemoteHolds, "hold", hold_later)


def _no_flush_of_files() -> None:
    sync = disk._sync
    _replace(disk, "_sync", lambda path: None if path.is_file() else sync(path))


def _no_flush_of_folders() -> None:
    sync = disk._sync
    _replace(disk, "_sync", lambda path: None if Path(path).is_dir() else sync(path))


def _request_ids_not_unique() -> None:
    _replace(idempotency, "_claim", lambda *_: True)


def _done_when_taken() -> None:
    async def expire(_: Scheduler) -> None:
        """Look at no lease: who took a build need not finish it."""

    _replace(Scheduler, "expire", expire)


def _events_outside_the_transaction() -> None:
    tell, commit = database._tell, database._CoalescingWriter._commit

    def tell_nothing(connection: Any, writes: Sequence[database.Write]) -> None:
        told = [write.told for write in writes]
        for write in writes:
            write.told = []
        tell(connection, writes)
        for write, events in zip(writes, told, strict=True):
            write.told = events

    def commit_then_tell(self: Any, connection: Any, batch: Sequence[database.Write]) -> None:
        commit(self, connection, batch)
        with connection.begin():
            told = [event for write in batch if write.error is None for event in write.told]
            batch[0].events = append(connection, told)

    _replace(database, "_tell", tell_nothing)
    _replace(database._CoalescingWriter, "_commit", commit_then_tell)


def _sweep_without_leases() -> None:
    for name in ("delete_artifacts", "delete_files", "condemn_chunks"):
        _replace(sweep_store, name, _from_afar(getattr(sweep_store, name)))


def _from_afar(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, now, **named: function(*args, now=now + _FAR, **named)


def _lease_without_fence() -> None:
    def find_claim(connection: Any, lease: Any) -> int | None:
        build = store.find_build(connection, lease.build, lock=True)
        return build.acknowledged if build is not None and build.state in LEASED else None

    _replace(Build, "held_by", lambda build, _: build.state in LEASED)
    _replace(store, "find_claim", find_claim)
    _replace(registrar, "_claimed", lambda tx, lease: store.find_build(tx.connection, lease.build))


def _lines_acknowledged_over_a_gap() -> None:
    def keep(tx: Any, lease: Any, sequence: int, batch: bytes) -> int:
        store.note_batch(tx.connection, lease.build, sequence)
        tx.publish(topic_of(lease.build), ledger.BATCH, batch)
        return sequence

    _replace(ledger, "_append", keep)


def _cancel_kills_only_the_child() -> None:
    prefix = Sandbox.prefix

    async def end(process: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def without_tie(self: Sandbox, *args: Any) -> list[str]:
        return [word for word in prefix(self, *args) if word != "--die-with-parent"]

    _replace(processes, "_end", end)
    _replace(Sandbox, "prefix", without_tie)


def _weights_before_journal() -> None:
    publish = journal.publish

    def commit_and_publish(tx: Any, *args: Any) -> None:
        driver = driver_of(tx.connection)
        driver.execute("COMMIT")
        driver.execute("BEGIN")
        publish(tx, *args)

    _replace(journal, "publish", commit_and_publish)


BUGS: Mapping[str, Callable[[], None]] = {
    "answer before commit": _answer_before_commit,
    "version before bytes": _version_before_bytes,
    "no flush of files": _no_flush_of_files,
    "no flush of folders": _no_flush_of_folders,
    "request ids not unique": _request_ids_not_unique,
    "done when taken": _done_when_taken,
    "events outside the transaction": _events_outside_the_transaction,
    "sweep without leases": _sweep_without_leases,
    "lease without fence": _lease_without_fence,
    "lines acknowledged over a gap": _lines_acknowledged_over_a_gap,
    "cancel kills only the child": _cancel_kills_only_the_child,
    "weights before journal": _weights_before_journal,
}


def sow(name: str) -> None:
    """Put a bug into this process."""
    BUGS[name]()


def _replace(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    setattr(owner, name, replacement)
