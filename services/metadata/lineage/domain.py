"""Uses of versions by deployments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.common.names import DeploymentName, VersionName


@dataclass(frozen=True, slots=True)
class VersionUse:
    """A version's use by a deployment; `end_time` is None while it lasts."""

    version: VersionName
    user: DeploymentName
    start_time: datetime
    end_time: datetime | None
