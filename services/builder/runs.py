"""Telling metadata how the runs of attempts ended, until it knows."""

from __future__ import annotations

import logging

from services.builder import store
from services.builder.delegations import Delegations
from services.builder.downstream import Downstream
from services.common.errors import ServiceError, is_passing
from services.common.sql.database import Database

logger = logging.getLogger(__name__)


class RunFinisher:
    """Finishes runs whose attempts ended; the note of it is kept until metadata has answered."""

    def __init__(
        self, *, database: Database, downstream: Downstream, delegations: Delegations
    ) -> None:
        self._database = database
        self._downstream = downstream
        self._delegations = delegations

    async def finish_due(self) -> None:
        """Finish what is noted; what cannot be finished now stays noted."""
        runs = await self._database.read(lambda tx: store.unfinished_runs(tx.connection))
        for run in runs:
            try:
                await self._finish(run)
            except ServiceError as error:
                reason = error.reason.value
                logger.warning("run not finished", extra={"run": run.run, "reason": reason})
                if is_passing(error):
                    return
            await self._database.write(
                lambda tx, run=run: store.delete_unfinished_run(tx.connection, run.run)  # type: ignore[misc]
            )

    async def _finish(self, run: store.UnfinishedRun) -> None:
        build = await self._database.read(lambda tx: store.find_build(tx.connection, run.build))
        if build is not None:
            build = await self._delegations.fresh(build)
            await self._downstream.finish_run(run, credential=build.delegation.credential)
