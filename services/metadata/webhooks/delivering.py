"""From the queues to the addresses: leased, signed, posted, tried again.

A webhook has one attempt in progress at most, in whichever replica, so that what it is
told stays in order and a slow or dead address delays no other. An attempt that ends
without a word, because its process died, is made again when its lease has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.errors import ServiceError
from services.common.sealing import Seal, UnreadableSecretError
from services.common.sql.database import Database, Transaction
from services.metadata.webhooks import delivery_store
from services.metadata.webhooks.bodies import CONTENT_TYPE
from services.metadata.webhooks.domain import Attempt, Outcome, Retries
from services.metadata.webhooks.sending import Sender
from services.metadata.webhooks.signatures import signed_headers

logger = logging.getLogger(__name__)

TRIM_SECONDS = 600.0
TRIM_BATCH = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """When a delivery is tried again, how long an attempt is leased, how long all are kept."""

    retries: Retries
    lease: timedelta
    poll_seconds: float
    kept: timedelta


class Courier:
    """Delivers what is due."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        seal: Seal,
        sender: Sender,
        pace: Pace,
    ) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal
        self._sender = sender
        self._pace = pace
        self._woken = asyncio.Event()
        self._busy: set[int] = set()

    def wake(self) -> None:
        """Look for due deliveries at once."""
        self._woken.set()

    async def run_forever(self) -> None:
        """Deliver, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._woken.clear()
                try:
                    attempts, seconds = await self._lease()
                except ServiceError as error:  # the database is away; it is asked again
                    logger.warning("deliveries not leased", extra={"reason": error.reason})
                    attempts, seconds = [], self._pace.poll_seconds
                for attempt in attempts:
                    self._busy.add(attempt.webhook_pk)
                    tasks.create_task(self._attempt(attempt))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._woken.wait()

    async def trim_forever(self) -> None:
        """Forget old deliveries now and then, until cancelled."""
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            try:
                await self.trim()
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("deliveries not trimmed", extra={"reason": error.reason})

    async def trim(self) -> None:
        """Forget old deliveries once, a few at a time."""
        while await self._trim() == TRIM_BATCH:
            pass

    async def _trim(self) -> int:
        before = self._clock() - self._pace.kept
        return await self._database.write(
            lambda tx: delivery_store.trim_deliveries(
                tx.connection, before=before, limit=TRIM_BATCH
            )
        )

    async def _lease(self) -> tuple[list[Attempt], float]:
        """Lease a delivery of each webhook that has one due; say when to look again."""
        due = await self._database.read(lambda tx: delivery_store.next_due(tx.connection))
        now, lease = self._clock(), secrets.token_hex(16)
        idle = {pk: time for pk, time in due.items() if pk not in self._busy}
        ready = sorted(pk for pk, time in idle.items() if time <= now)
        waits = [(time - now).total_seconds() for time in idle.values() if time > now]
        lease_end = now + self._pace.lease

        def claim(tx: Transaction) -> list[Attempt]:
            found = (
                delivery_store.claim(tx.connection, pk, lease=lease, now=now, lease_end=lease_end)
                for pk in ready
            )
            return [attempt for attempt in found if attempt is not None]

        attempts = await self._database.write(claim) if ready else []
        return attempts, min([self._pace.poll_seconds, *waits])

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            await self._settle(attempt, await self._post(attempt))
        except ServiceError as error:  # the lease ends, then it is tried again
            logger.warning("delivery not settled", extra={"reason": error.reason})
        finally:
            self._busy.discard(attempt.webhook_pk)
            self._woken.set()

    async def _post(self, attempt: Attempt) -> Outcome:
        try:
            return await self._sender.post(attempt.url, self._headers(attempt), attempt.body)
        except UnreadableSecretError:
            logger.error("a webhook's secret was sealed with another key")
            return Outcome(problem="its secret cannot be read; create the webhook anew")
        except Exception:  # one strange address must not end the others' deliveries
            logger.exception("delivery not tried")
            return Outcome(problem="it could not be tried")

    def _headers(self, attempt: Attempt) -> Mapping[str, str]:
        secret = self._seal.open(attempt.sealed_secret)
        signed = signed_headers(secret, attempt.delivery, attempt.body, self._clock())
        return {"Content-Type": CONTENT_TYPE, **signed}

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        now = self._clock()
        again = None if outcome.gone else self._pace.retries.after(attempt.step, now)

        def settle(tx: Transaction) -> None:
            if outcome.gone:
                delivery_store.disable_webhook(tx.connection, attempt.webhook_pk, now)
            delivery_store.settle(tx.connection, attempt, outcome, again)

        await self._database.write(settle)
