"""Telling a project's ledger how executions of automations ended, once each."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.names import ExecutionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish

KINDS = {
    "SUCCEEDED": ChangeKind.EXECUTION_SUCCEEDED,
    "SKIPPED": ChangeKind.EXECUTION_SKIPPED,
    "FAILED": ChangeKind.EXECUTION_FAILED,
    "CANCELLED": ChangeKind.EXECUTION_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """How an execution ended."""

    execution: ExecutionName
    state: str
    """One of `KINDS`."""
    explanation: str
    version: str
    actor: str


@dataclass(frozen=True, slots=True)
class _Told:
    """The answer that is kept for a repeat."""


class Telling:
    """Appends notices to ledgers."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def tell(self, notice: Notice, *, key: Key | None) -> None:
        """Append a notice to its project's ledger; a repeat changes nothing."""

        def tell(tx: Transaction) -> _Told:
            change = Change(
                str(notice.execution),
                actor=notice.actor,
                state=notice.state,
                version=notice.version,
                explanation=notice.explanation,
            )
            publish(tx, notice.execution.project, KINDS[notice.state], change)
            return _Told()

        await self._database.write(lambda tx: once(tx, key, _Told, lambda: tell(tx)))
