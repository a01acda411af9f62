"""How the parts of webhooks are put together from the service's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.events import EventBus
from services.common.sealing import make_seal
from services.common.service import Background
from services.common.settings import SettingsError
from services.common.sql.database import Database
from services.metadata.projects.store import keep_signing_key
from services.metadata.settings import PREFIX, MetadataSettings
from services.metadata.webhooks.addresses import AddressRules
from services.metadata.webhooks.delivering import Courier, Pace
from services.metadata.webhooks.domain import Retries
from services.metadata.webhooks.moving import Mover
from services.metadata.webhooks.sending import Sender, tls_context
from services.metadata.webhooks.servicer import WebhookServicer
from services.metadata.webhooks.subscriptions import Subscriptions

LEASE_SPARE_SECONDS = 1.0
SEAL_PURPOSE = "webhooks"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What the composition root needs of webhooks."""

    servicer: WebhookServicer
    background: Sequence[Background]


async def webhooks(
    settings: MetadataSettings,
    *,
    database: Database,
    bus: EventBus,
    clock: Callable[[], datetime],
) -> Webhooks:
    """Put webhooks together.

    Raises:
        SettingsError: a setting has a value it may not have.
    """
    rules = _rules(settings)

    async def keep(key: bytes) -> bytes:
        now = clock()
        return await database.write(
            lambda tx: keep_signing_key(tx.connection, SEAL_PURPOSE, key, now)
        )

    seal = await make_seal(settings.webhook_key_file, keep)
    sender, pace = _sender(settings, rules), _pace(settings)
    courier = Courier(database=database, clock=clock, seal=seal, sender=sender, pace=pace)
    mover = Mover(
        database=database,
        bus=bus,
        clock=clock,
        poll_seconds=settings.webhook_poll_seconds,
        moved=courier.wake,
    )

    def wake() -> None:
        mover.wake()
        courier.wake()

    subscriptions = Subscriptions(database=database, clock=clock, seal=seal, rules=rules, wake=wake)
    return Webhooks(
        WebhookServicer(subscriptions=subscriptions),
        (mover.run_forever, courier.run_forever, courier.trim_forever),
    )


def _rules(settings: MetadataSettings) -> AddressRules:
    try:
        return AddressRules.read(settings.webhook_networks)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}WEBHOOK_NETWORKS: {error}") from None


def _sender(settings: MetadataSettings, rules: AddressRules) -> Sender:
    try:
        context = tls_context(settings.webhook_root_certificates)
    except OSError as error:  # of TLS too
        raise SettingsError(f"{PREFIX}WEBHOOK_ROOT_CERTIFICATES: {error.strerror}") from None
    return Sender(rules=rules, seconds=settings.webhook_timeout_seconds, context=context)


def _pace(settings: MetadataSettings) -> Pace:
    first = timedelta(seconds=settings.webhook_retry_seconds)
    return Pace(
        retries=Retries(first, settings.webhook_attempts),
        # No attempt outlives its lease while its process is well.
        lease=timedelta(seconds=1.5 * settings.webhook_timeout_seconds + LEASE_SPARE_SECONDS),
        poll_seconds=settings.webhook_poll_seconds,
        kept=timedelta(days=settings.webhook_days),
    )
