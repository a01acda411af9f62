"""Rings that nobody needs any more are forgotten; who comes back too late begins anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.common.errors import Reason, ServiceError
from services.common.events import EventBus
from services.common.names import EnvironmentName
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import read_events
from services.deployer.controllers.assignments import Assignments
from services.deployer.controllers.delegations import Delegations
from services.deployer.rollouts import journal
from services.deployer.rollouts.trimming import Trimming
from services.deployer.wiring import MIGRATIONS

EVERYTHING = EnvironmentName("-", "-")
NAME = b"projects/p/environments/production/deployments/churn"


class NoDelegations(Delegations):
    """Needed by grants only."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_old_rings_are_trimmed(database_url: str) -> None:
    database = Database.open(database_url, migrations=MIGRATIONS)
    topics = (journal.WORK, journal.ASSIGNMENTS)

    def kept(tx: Transaction) -> list[int]:
        return [len(read_events(tx.connection, topic, 0)) for topic in topics]

    def ring(tx: Transaction) -> None:
        for topic in topics:
            tx.publish(topic, "changed", NAME)

    try:
        for _ in range(3):
            await database.write(ring)
        trimming, now = Trimming(database), datetime.now(UTC)
        await trimming.trim(now)
        assert await database.read(kept) == [3, 3]
        await trimming.trim(now + timedelta(hours=1))
        assert await database.read(kept) == [1, 3]
        await trimming.trim(now + timedelta(days=2))
        assert await database.read(kept) == [1, 1]

        assignments = Assignments(database, EventBus(None, service="test"), NoDelegations())
        with pytest.raises(ServiceError) as expired:
            await anext(assignments.watch(EVERYTHING, 1, controller="agent"))
        assert expired.value.reason is Reason.CURSOR_EXPIRED
        batch = await anext(assignments.watch(EVERYTHING, 2, controller="agent"))
        assert (batch.sequence, batch.complete) == (3, True)
    finally:
        database.close()
