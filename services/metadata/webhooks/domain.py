"""What webhooks are: where changes go, and how each of them stands on its way."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.common.names import WebhookDeliveryName, WebhookName

TEST = "webhook.test"
GONE = 410
FACTOR = 5
LONGEST = timedelta(hours=12)
JITTER = 0.2


class DeliveryState(StrEnum):
    """How a delivery stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class WebhookDraft:
    """What a caller says of a webhook."""

    url: str
    filter: str = ""
    description: str = ""
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook; its secret is kept apart, sealed."""

    name: WebhookName
    url: str
    filter: str
    description: str
    disabled: bool
    revision: int
    creator: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something to be delivered: what happened to what, and the body that tells of it."""

    delivery: str
    kind: str
    subject: str
    body: bytes
    time: datetime
    # The change's place in its project's ledger; None of a test.
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery, as its log shows it; a status of 0 is no answer."""

    name: WebhookDeliveryName
    kind: str
    subject: str
    state: DeliveryState
    attempt_count: int
    response_status: int
    problem: str
    next_attempt_time: datetime | None
    create_time: datetime
    attempt_time: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A delivery that this process has leased to try once; `step` counts from 1."""

    pk: int
    webhook_pk: int
    delivery: str
    body: bytes
    url: str
    sealed_secret: bytes
    lease: str
    step: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt; a status of 0 is no answer, a problem is for the log."""

    status: int = 0
    problem: str = ""

    @property
    def delivered(self) -> bool:
        """Say whether the address took it."""
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Say whether the address wants nothing any more."""
        return self.status == GONE


@dataclass(frozen=True, slots=True)
class Retries:
    """When a failed delivery is tried again: each wait is five times the one before.

    With the defaults, ten attempts after 10 s, 50 s, 4 min, 21 min, 1.7 h, 8.7 h and
    three times 12 h, each 20 % longer or shorter at random: two days.
    """

    first: timedelta
    attempts: int

    def after(self, step: int, now: datetime) -> datetime | None:
        """Return when to try again after a failed attempt; None: never."""
        if step >= self.attempts:
            return None
        # The exponent is bounded, so that no schedule can overflow.
        wait: timedelta = min(self.first * FACTOR ** min(step - 1, 20), LONGEST)
        return now + wait * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
