"""The deployer's settings, read from `MODELYARD_DEPLOYER_*`."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "MODELYARD_DEPLOYER_"


@dataclass(frozen=True, slots=True)
class DeployerSettings:
    """What the deployer needs to know."""

    database_url: str
    """Such as `sqlite:////data/deployer.db` or `postgresql://…`."""
    token_file: str
    """The file with the deployer's own token: it renews delegations, nothing else."""
    lease_seconds: float = 15.0
    """How long a replica that died keeps others from driving its deployments."""
    tick_seconds: float = 1.0
    """How often deployments in motion are looked at when no event arrives."""
    progress_seconds: float = 600.0
    """When a rollout that makes no progress is given up; installing a model's
    environment counts."""
    renew_hours: float = 24.0
    """How often the delegations of what runs are renewed, so that none grows too old to be."""
