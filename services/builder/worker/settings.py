"""The worker's settings, read from `MODELYARD_WORKER_*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelyard import registries
from modelyard._evidence import envelope as _envelope
from modelyard.errors import ModelyardError

from services.builder.worker.limits import LOG_BYTES
from services.common.safe_start import read_private
from services.common.settings import SettingsError

PREFIX = "MODELYARD_WORKER_"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs to know."""

    token_file: str
    """The file with the worker's own token."""
    data: str = "modelyard-data/worker"
    """A local folder for work in progress and for environments."""
    environments: str = ""
    """Where environments are kept; several workers may share it; empty: in `data`."""
    environments_max_bytes: int = 20 * 1024**3
    """How large all environments may be together; those used last stay."""
    environments_max_days: float = 30.0
    """After how long without use an environment is removed."""
    name: str = "worker"
    """How it is called in builds; at most 40 characters of `[a-z0-9-]`."""
    pool: str = "default"
    """Which builds it takes: those whose spec names this pool."""
    concurrency: int = 1
    """How many builds it runs at a time."""
    wait_seconds: float = 20.0
    """How long one call waits for a build; at most 30."""
    source_bytes: int = 1024**3
    """How large what is fetched from a git repository may be."""
    image_base: str = ""
    """An OCI image layout whose image, with a Python, images stand on; empty: on none."""
    image_repository: str = ""
    """Where images are pushed to, such as `registry.example/team`: `project/model` is put
    after it; empty: nowhere."""
    image_auth_file: str = ""
    """A `config.json` with the registry's credentials, as `docker login` writes it."""
    signing_key_file: str = ""
    """A private key in a PEM file that provenance is signed with; empty: it is not."""
    git_http: bool = False
    """Whether git repositories may be fetched over HTTP without TLS."""
    sandbox: Literal["on", "off"] = "on"
    """Whether train and test run in a sandbox; off: with all that this account may do."""
    sandbox_paths: str = ""
    """What else of the machine they see, read-only, devices too: patterns separated by `:`."""
    cpu_cores: float = 0.0
    """How many cores its builds may use together; 0: all of the machine's."""
    memory_bytes: int = 0
    """How much memory its builds may use together; 0: 80 % of the machine's."""
    disk_bytes: int = 0
    """How much its builds may write together; 0: 80 % of what is free when it starts."""
    process_count: int = 0
    """How many processes and threads its builds may have together; 0: 1,024 for each build."""
    log_bytes: int = LOG_BYTES
    """How much training may print, and the tests, and the smoke prediction."""
    grace_seconds: float = 8.0
    """How long builds may go on after SIGTERM before they are handed back."""

    def __post_init__(self) -> None:
        """Refuse what no build could use: a key, or a place for images."""
        if self.signing_key_file:
            try:
                _envelope.signer(self.signing_key_file)
                read_private(Path(self.signing_key_file))
            except (SettingsError, ModelyardError) as error:
                raise ValueError(f"signing_key_file: {error}") from None
        if not self.image_repository:
            return
        try:
            registries.require()
        except ModelyardError as error:
            raise ValueError(f"image_repository: {error.message}") from None
        registries.Target.parse(f"{self.image_repository}/project/model")
        if self.image_auth_file:
            try:
                read_private(Path(self.image_auth_file))
            except SettingsError as error:
                raise ValueError(f"image_auth_file: {error}") from None

    @property
    def folder(self) -> Path:
        """Return the local folder."""
        return Path(self.data).absolute()

    @property
    def environments_folder(self) -> Path:
        """Return the folder of environments."""
        return Path(self.environments or self.folder / "environments").absolute()

    @property
    def sandbox_patterns(self) -> tuple[str, ...]:
        """Return what else is seen in the sandbox."""
        return tuple(filter(None, self.sandbox_paths.split(":")))
