"""Duties: one replica at a time, whatever became of the one before and of its clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from services.artifact.schema import METADATA
from services.artifact.storage.sweep_store import take_duty

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LASTS = timedelta(minutes=20)


def test_one_replica_has_it_until_it_has_not_asked_for_long() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        METADATA.create_all(connection)

        def take(holder: str, now: datetime) -> bool:
            return take_duty(connection, "sweep", holder, now=now, until=now + LASTS)

        assert take("one", NOON)
        assert not take("other", NOON + LASTS / 2)
        assert take("one", NOON + LASTS / 2)
        assert take("other", NOON + 2 * LASTS)


def test_what_was_taken_while_a_clock_was_wrong_is_not_kept() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        METADATA.create_all(connection)
        then = NOON + timedelta(days=400)
        assert take_duty(connection, "sweep", "one", now=then, until=then + LASTS)
        assert take_duty(connection, "sweep", "other", now=NOON, until=NOON + LASTS)
