"""What is posted: CloudEvents 1.0 in JSON."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from services.common.names import ProjectName, WebhookName
from services.metadata.watching.domain import Told
from services.metadata.webhooks.domain import TEST, Parcel

CONTENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "dev.modelyard."


def of_change(project: str, told: Told) -> Parcel:
    """Wrap a change up; its id is its place in the project's ledger, at every webhook."""
    subject, kind = told.change.name, told.kind.value
    data = {key: value for key, value in msgspec.to_builtins(told.change).items() if value}
    body = _body(str(told.sequence), told.time, project=project, kind=kind, of=subject, data=data)
    return Parcel(new_delivery(), kind, subject, body, told.time, told.sequence)


def of_test(name: WebhookName, actor: str, now: datetime) -> Parcel:
    """Wrap up a test of a webhook."""
    delivery, data = new_delivery(), {"name": str(name), "actor": actor}
    body = _body(delivery, now, project=name.project, kind=TEST, of=str(name), data=data)
    return Parcel(delivery, TEST, str(name), body, now)


def new_delivery() -> str:
    """Make the id of a delivery."""
    return f"d{uuid.uuid4().hex}"


def _body(
    ident: str, time: datetime, *, project: str, kind: str, of: str, data: Mapping[str, object]
) -> bytes:
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": ident,
            "source": str(ProjectName(project)),
            "type": TYPE_PREFIX + kind,
            "subject": of,
            "time": time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
        }
    )
