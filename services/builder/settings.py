"""The builder's settings, read from `MODELYARD_BUILDER_*`."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "MODELYARD_BUILDER_"


@dataclass(frozen=True, slots=True)
class BuilderSettings:
    """What the builder needs to know."""

    database_url: str = "sqlite:///modelyard-data/builder.db"
    """Such as `sqlite:////data/builder.db` or `postgresql://user@host/builder`."""
    token_file: str = ""
    """The file with the builder's own token: it renews delegations, nothing else."""
    secret_key_file: str = ""
    """Fernet keys, one a line, that secrets are encrypted with: the first encrypts, all decrypt.
    Empty: a key that is kept in the database."""
    lease_seconds: float = 15.0
    """How long a silent worker keeps its build."""
    retry_seconds: float = 1.0
    """How long before the second attempt of a build; twice as long before each further one."""
    project_limit: int = 0
    """How many builds of a project run at a time where it has no limit of its own; 0: any."""
    model_limit: int = 0
    """The same of a model."""
    event_days: float = 180.0
    """How long the events of builds are kept after their end, but for the last; 0: for ever."""
    tick_seconds: float = 1.0
    """How often leases, delegations and unfinished business are looked at."""

    watch_seconds: float = 5.0
    """How often automations look for new runs, evaluations and dataset versions."""
