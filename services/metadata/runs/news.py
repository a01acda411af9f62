"""Telling the ledger of a project what happened to its runs."""

from __future__ import annotations

from services.common.sql.database import Transaction
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.runs.domain import Run


def publish_run(tx: Transaction, kind: ChangeKind, run: Run, *, actor: str = "") -> None:
    """Append a change of a run to its project's ledger, as the change left the run."""
    change = Change(
        str(run.name),
        actor=actor,
        state=run.state.value,
        group=run.group,
        build=run.build,
        creator=run.creator,
        tags=run.tags,
    )
    publish(tx, run.name.project, kind, change)
