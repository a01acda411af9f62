"""What a build order says: what to build and how, and the limits of each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

MAX_PARAMS = 1_000
MAX_LABELS = 64
MAX_ALIASES = 64
MAX_DATA = 64
MAX_VARIABLES = 256
MAX_SECRETS = 64
MAX_DIFF_BYTES = 1024 * 1024
MAX_PHASE_TIMEOUT = timedelta(days=30)
MAX_PRIORITY = 100
MAX_RETRIES = 10
DEFAULT_POOL = "default"


class PhaseKind(StrEnum):
    """The six phases, in their order."""

    PROVISION = "PROVISION"
    ENVIRONMENT = "ENVIRONMENT"
    TRAIN = "TRAIN"
    TEST = "TEST"
    PACKAGE = "PACKAGE"
    REGISTER = "REGISTER"


DEFAULT_TIMEOUT = timedelta(hours=1)
DEFAULT_TRAIN_TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class SourceOrigin:
    """From which commit a source tree was taken."""

    repository: str = ""
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    diff: str = ""


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository, what to take of it, and the secret that lets us in."""

    url: str
    ref: str = ""
    subdirectory: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class DataInput:
    """A dataset version that a build reads under a name."""

    name: str
    dataset_version: str


@dataclass(frozen=True, slots=True)
class Resources:
    """What train and test may use; 0: what the worker gives a build by default."""

    cpu_cores: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    process_count: int = 0

    @property
    def asks(self) -> bool:
        """Say whether it asks for anything that a worker may lack."""
        return bool(self.cpu_cores or self.memory_bytes or self.disk_bytes)


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How often a build is tried again, by why an attempt ended."""

    worker_lost: int = 2
    out_of_memory: int = 0
    timeout: int = 0

    def budget(self, reason: str) -> int:
        """Return how often an attempt that failed for a reason is followed by another."""
        budgets = {
            "WORKER_LOST": self.worker_lost,
            "OUT_OF_MEMORY": self.out_of_memory,
            "TIMEOUT": self.timeout,
        }
        return budgets.get(reason, 0)


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """What to build and how."""

    source: str = ""
    """The artifact with the source; empty when it comes from `git`."""
    git: GitSource | None = None
    entry: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Values are bool, int, float, str or lists of them."""
    python_version: str = ""
    requirements: str = ""
    """A path in the source; empty: found by its name."""
    data: tuple[DataInput, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment variable → the secret's full name."""
    resources: Resources = field(default_factory=Resources)
    timeouts: Mapping[PhaseKind, float] = field(default_factory=dict)
    """Seconds; phases that are not in it have their default."""
    network: bool = False
    skip_tests: bool = False
    skip_image: bool = False
    priority: int = 0
    """Higher goes first."""
    pool: str = DEFAULT_POOL
    retries: RetryBudget = field(default_factory=RetryBudget)
    group: str = ""
    origin: SourceOrigin | None = None
    aliases: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    reproduces: str = ""
    """The version that is built anew, by its full name; nothing is registered then."""

    @property
    def secret_names(self) -> list[str]:
        """Return the full names of all secrets that the build needs, each once."""
        git = [self.git.secret] if self.git and self.git.secret else []
        return sorted({*self.secrets.values(), *git})

    def timeout(self, phase: PhaseKind) -> float:
        """Return how many seconds a phase may take."""
        default = DEFAULT_TRAIN_TIMEOUT if phase is PhaseKind.TRAIN else DEFAULT_TIMEOUT
        return self.timeouts.get(phase, default.total_seconds())
