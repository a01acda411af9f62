"""The agent's settings, read from `MODELYARD_AGENT_*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREFIX = "MODELYARD_AGENT_"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the target agent needs to know."""

    data: str
    """A folder of its own: bundles, environments, model servers, what it was told last."""
    token_file: str
    """The file with the agent's own token; it holds RIGHT_CONTROL."""
    environments: str = ""
    """Where virtual environments are kept; a worker may share it; empty: in `data`."""
    id: str = "agent"
    """The agent's name in its reports: at most 63 characters of `[a-z0-9-]`."""
    environment: str = "projects/-/environments/-"
    """Which environments it serves: one, or all."""
    base_port: int = 7080
    """Predictions of the first environment are served here, of the next one on the next port."""
    ready_seconds: float = 120.0
    """How long a model server may take to be ready, once its environment is installed."""
    drain_seconds: float = 30.0
    """How long a replaced model server may take to finish its requests."""

    @property
    def folder(self) -> Path:
        """Return the data folder."""
        return Path(self.data).expanduser().absolute()

    @property
    def environments_folder(self) -> Path:
        """Return the folder of virtual environments."""
        return Path(self.environments or self.folder / "environments").expanduser().absolute()
