"""What a model server needs before it can start: the verified bundle, its environment."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import defaultdict
from pathlib import Path

import modelyard
from modelyard import bundle as bundles
from modelyard.digests import folder_digest
from modelyard.errors import ModelyardError

from services.common import telemetry
from services.common.environments.lock import EnvironmentFailedError, lock_digest
from services.common.environments.making import Environments
from services.common.errors import ServiceError, retry_after
from services.common.names import ArtifactName, DeploymentName, EnvironmentName, VersionName
from services.deployer.agent.control_plane import ControlPlane
from services.deployer.agent.data_plane import Variant, VariantKey
from services.deployer.domain import AssignedVariant, Failure

logger = logging.getLogger(__name__)

SPARE_BUNDLES = 8
PULL_SECONDS = 30.0


class PreparationError(Exception):
    """A variant that cannot be prepared, whatever is tried again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class NotNowError(Exception):
    """A variant that cannot be prepared now: something is away, or has too much to do."""

    def __init__(self, message: str, *, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Preparer:
    """Fetches bundles and makes environments; both are kept for the next time."""

    def __init__(
        self,
        folder: Path,
        *,
        control_plane: ControlPlane,
        server: str,
        root_certificates: str,
        environments: Environments,
    ) -> None:
        self._folder = folder
        self._control_plane = control_plane
        self._server = server
        self._root_certificates = root_certificates
        self._environments = environments
        # Held as long as the agent lives: its model servers, which end with it, run in them.
        self._by_project: dict[str, Environments] = {}
        self._fetching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self, name: DeploymentName, assigned: AssignedVariant) -> Variant:
        """Have on disk what a variant needs.

        Raises:
            PreparationError: FETCH_FAILED or ENVIRONMENT_FAILED.
            NotNowError: a service of the suite is away, or has too much to do.
        """
        with telemetry.span("agent fetch"):
            directory = await self._bundle(name, assigned)
        with telemetry.span("agent environment"):
            python = await self._environment(directory, assigned)
        return Variant(
            key=variant_key(name, assigned.revision),
            version=str(VersionName.parse(assigned.version).version),
            bundle=directory,
            python=python,
            serving=assigned.serving,
            mirror_percent=assigned.mirror_percent,
            header_match=assigned.header_match,
        )

    def sweep(self) -> None:
        """Remove what a killed agent left half fetched; before anything is prepared."""
        for path in self._folder.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)

    async def prune(self, needed: set[str]) -> None:
        """Remove bundles that nobody needs, but for the few used last."""
        keep = {_digest(artifact) for artifact in needed}
        await asyncio.to_thread(_prune, self._folder, keep)

    async def _bundle(self, name: DeploymentName, assigned: AssignedVariant) -> Path:
        directory = self._folder / _digest(assigned.artifact)
        async with self._fetching[assigned.artifact]:
            if await asyncio.to_thread(is_whole, directory):
                await asyncio.to_thread(directory.touch)
                return directory
            try:
                grant = await self._control_plane.grant(name, assigned.artifact)
                await asyncio.to_thread(self._fetch, grant, assigned.artifact, directory)
            except (ModelyardError, ServiceError, OSError) as error:
                raise _refusal(error) from error
        return directory

    def _fetch(self, grant: str, artifact: str, directory: Path) -> None:
        """Pull a bundle, and put it in the place of one that changed: a server may run from it."""
        new, old = (directory.with_name(f".{directory.name}.{what}") for what in ("new", "old"))
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
        self._pull(grant, artifact, new)
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
        shutil.rmtree(old, ignore_errors=True)

    def _pull(self, grant: str, artifact: str, directory: Path) -> None:
        certificates = Path(self._root_certificates) if self._root_certificates else None
        project = ArtifactName.parse(artifact).project
        client = modelyard.Client(
            self._server,
            token=grant,
            project=project,
            root_certificates=certificates,
            timeout=PULL_SECONDS,
        )
        try:
            client.artifacts.pull(artifact, directory)
        finally:
            client.close()

    async def _environment(self, directory: Path, assigned: AssignedVariant) -> Path:
        try:
            bundle = await asyncio.to_thread(bundles.read, directory)
            lock = await asyncio.to_thread(_read_lock, directory)
        except (bundles.BundleError, OSError, UnicodeDecodeError) as error:
            raise PreparationError(Failure("FETCH_FAILED", f"no bundle: {error}")) from error
        wanted = assigned.environment_digest
        if wanted and lock_digest(lock) != wanted:
            message = f"the bundle's {bundles.LOCK_FILE} is not the one the version names"
            raise PreparationError(Failure("ENVIRONMENT_FAILED", message))
        project = ArtifactName.parse(assigned.artifact).project
        if project not in self._by_project:
            self._by_project[project] = self._environments.within(project)
        environments = self._by_project[project]
        try:
            environment = await environments.ensure(lock, python=bundle.python, on_line=_log_line)
        except EnvironmentFailedError as error:
            raise PreparationError(Failure("ENVIRONMENT_FAILED", str(error))) from error
        return environment.python


def is_whole(directory: Path) -> bool:
    """Say whether a bundle is there, each file as it was registered."""
    if not directory.is_dir():
        return False
    try:
        found = folder_digest(directory)
    except (ModelyardError, OSError):
        found = ""
    if found != directory.name:
        logger.warning("bundle changed on disk; fetched anew", extra={"digest": directory.name})
    return found == directory.name


def variant_key(name: DeploymentName, revision: int) -> VariantKey:
    """Name a revision in the data plane."""
    return VariantKey(str(environment_of(name)), name.deployment, revision)


def environment_of(name: DeploymentName) -> EnvironmentName:
    """Name a deployment's environment."""
    return name.parent


def _log_line(line: str) -> None:
    logger.debug("installer", extra={"line": line})


def _digest(artifact: str) -> str:
    return ArtifactName.parse(artifact).artifact


def _refusal(error: ModelyardError | ServiceError | OSError) -> Exception:
    told = retry_after(error)
    if told is None:
        return PreparationError(Failure("FETCH_FAILED", str(error)))
    return NotNowError(str(error), retry_seconds=told)


def _read_lock(directory: Path) -> str:
    path = directory / bundles.LOCK_FILE
    return path.read_bytes().decode() if path.exists() else ""


def _prune(folder: Path, keep: set[str]) -> None:
    # What begins with a dot is being fetched, or replaced: it may be gone the next moment.
    found = [p for p in folder.iterdir() if p.name not in keep and not p.name.startswith(".")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[SPARE_BUNDLES:]:
        logger.info("bundle removed", extra={"digest": path.name})
        shutil.rmtree(path, ignore_errors=True)
