"""Secrets as the builder sees them, and their limits. A value is never part of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from services.common.errors import invalid_field
from services.common.names import SecretName

MAX_VALUE_BYTES = 64 * 1024
MAX_DESCRIPTION = 4_096
MAX_SECRETS_OF_A_PROJECT = 1_000


@dataclass(frozen=True, slots=True)
class Secret:
    """What may be shown of a secret."""

    name: SecretName
    description: str
    updater: str
    create_time: datetime
    update_time: datetime
    revision: int

    @property
    def etag(self) -> str:
        """Return what changes with every change of it."""
        return str(self.revision)


@dataclass(frozen=True, slots=True)
class SecretChange:
    """What to set; None: leave it as it is."""

    description: str | None = None
    value: str | None = field(default=None, repr=False)

    def check(self) -> None:
        """Refuse with INVALID_FIELD what a secret may not have."""
        if self.description is not None and len(self.description) > MAX_DESCRIPTION:
            raise invalid_field("description", f"must have at most {MAX_DESCRIPTION} characters")
        if self.value is None:
            return
        if not 0 < len(self.value.encode()) <= MAX_VALUE_BYTES:
            raise invalid_field("value", f"must have 1 to {MAX_VALUE_BYTES} bytes")
        if "\0" in self.value:
            raise invalid_field("value", "must hold no NUL: it becomes an environment variable")
