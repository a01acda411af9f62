"""The two clients: `Client` blocks, `AsyncClient` is awaited; otherwise they are alike."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from modelyard._names import Names, Ref
from modelyard._resolver import AsyncResolver, Resolver
from modelyard._resources.aliases import Aliases, AsyncAliases
from modelyard._resources.artifacts import Artifacts, AsyncArtifacts
from modelyard._resources.audit import AsyncAudit, Audit
from modelyard._resources.automations import AsyncAutomations, Automations
from modelyard._resources.builds import AsyncBuilds, Builds
from modelyard._resources.changes import AsyncChanges, Changes
from modelyard._resources.comparisons import AsyncComparisons, Comparisons
from modelyard._resources.datasets import AsyncDatasets, Datasets
from modelyard._resources.deployments import AsyncDeployments, Deployments
from modelyard._resources.environments import AsyncEnvironments, Environments
from modelyard._resources.evidence import AsyncImages, Images
from modelyard._resources.lineage import AsyncLineage, Lineage
from modelyard._resources.members import AsyncMembers, Members
from modelyard._resources.models import AsyncModels, Models
from modelyard._resources.projects import AsyncProjects, Projects
from modelyard._resources.queue import AsyncQueue, Queue
from modelyard._resources.retention import AsyncRetention, Retention
from modelyard._resources.runs import AsyncRuns, Runs
from modelyard._resources.secrets import AsyncSecrets, Secrets
from modelyard._resources.signatures import AsyncSignatures, Signatures
from modelyard._resources.storage import AsyncStorage, Storage
from modelyard._resources.tokens import AsyncTokens, Tokens
from modelyard._resources.versions import AsyncVersions, Versions
from modelyard._resources.webhooks import AsyncWebhooks, Webhooks
from modelyard._transport.channel import DEFAULT_TIMEOUT
from modelyard._transport.config import ConnectionSettings, find_settings
from modelyard._transport.connection import AsyncConnection, Connection

if TYPE_CHECKING:
    from modelyard.metadata.v1.comparison_service_pb2 import CompareResponse
    from modelyard.metadata.v1.model_service_pb2 import ModelChange


class Client:
    """A client that blocks; safe to share between threads.

    Without arguments it finds its server in the environment or the config file. `timeout` is the
    deadline of each unary call in seconds; `root_certificates` is PEM, or the path of a file.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        project: str | None = None,
        root_certificates: bytes | str | Path | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        settings = find_settings(
            server, token=token, project=project, root_certificates=root_certificates
        )
        self._attach(Connection(settings, timeout=timeout), settings.project)

    @property
    def settings(self) -> ConnectionSettings:
        """Where the server is, as whom and in which project."""
        return self.connection.settings

    def with_options(self, *, project: str | None = None, timeout: float | None = None) -> Client:
        """Return a client over the same channel with another project or deadline."""
        twin = object.__new__(Client)
        connection = self.connection.with_timeout(timeout or self.connection.timeout)
        twin._attach(connection, project or self.settings.project)
        return twin

    def compare(self, names: Sequence[Ref], *, code: bool = True) -> CompareResponse:
        """Put runs, versions and builds side by side; the others are held against the first.

        `churn/7`, `churn@production`, `churn`, `churn/RUN` and a build's id are all names; `code`
        says whether to tell how the code differs, too.
        """
        return self._comparisons.compare(names, code=code)

    def watch(
        self, model: Ref | None = None, *, filter: str = "", cursor: str = ""
    ) -> Iterator[ModelChange]:
        """Iterate over the changes of a model, or of all, for ever; see `changes.models`."""
        return self.changes.models(model, filter=filter, cursor=cursor)

    def resolver(self, *models: Ref) -> Resolver:
        """Return what knows, without asking, where the aliases of some models point; open it.

        `with client.resolver("churn") as resolver: version = resolver.resolve("production")`
        """
        return Resolver(self.connection, self._names, models)

    @property
    def project(self) -> str:
        """Return the full name of the project that short forms are resolved in."""
        return self._names.default

    def close(self) -> None:
        """Close the connection; whatever uses it ends with an error."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _attach(self, connection: Connection, project: str) -> None:
        names = self._names = Names(project)
        self.connection = connection
        self.aliases = Aliases(connection, names)
        self.artifacts = Artifacts(connection, names)
        self.audit = Audit(connection, names)
        self.automations = Automations(connection, names)
        self.builds = Builds(connection, names)
        self.images = Images(connection, names)
        self.changes = Changes(connection, names)
        self._comparisons = Comparisons(connection, names)
        self.datasets = Datasets(connection, names)
        self.deployments = Deployments(connection, names)
        self.environments = Environments(connection, names)
        self.lineage = Lineage(connection, names)
        self.members = Members(connection, names)
        self.models = Models(connection, names)
        self.projects = Projects(connection, names)
        self.queue = Queue(connection, names)
        self.runs = Runs(connection, names)
        self.storage = Storage(connection, names)
        self.tokens = Tokens(connection, names)
        self.versions = Versions(connection, names)
        self.retention = Retention(connection, names)
        self.secrets = Secrets(connection, names)
        self.signatures = Signatures(connection, names)
        self.webhooks = Webhooks(connection, names)


class AsyncClient:
    """A client for asyncio, of the same methods; made and used in one event loop.

    Its arguments are those of `Client`.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        project: str | None = None,
        root_certificates: bytes | str | Path | None = None,
        timeout: float = DEFAULT_TIMEOUT,  # of each call, not of this one
    ) -> None:
        settings = find_settings(
            server, token=token, project=project, root_certificates=root_certificates
        )
        self._attach(AsyncConnection(settings, timeout=timeout), settings.project)

    @property
    def settings(self) -> ConnectionSettings:
        """Where the server is, as whom and in which project."""
        return self.connection.settings

    def with_options(
        self, *, project: str | None = None, timeout: float | None = None
    ) -> AsyncClient:
        """Return a client over the same channel with another project or deadline."""
        twin = object.__new__(AsyncClient)
        connection = self.connection.with_timeout(timeout or self.connection.timeout)
        twin._attach(connection, project or self.settings.project)
        return twin

    async def compare(self, names: Sequence[Ref], *, code: bool = True) -> CompareResponse:
        """Put runs, versions and builds side by side, as `Client.compare` does."""
        return await self._comparisons.compare(names, code=code)

    def watch(
        self, model: Ref | None = None, *, filter: str = "", cursor: str = ""
    ) -> AsyncIterator[ModelChange]:
        """Iterate over the changes of a model, or of all, for ever; see `changes.models`."""
        return self.changes.models(model, filter=filter, cursor=cursor)

    def resolver(self, *models: Ref) -> AsyncResolver:
        """Return what knows, without asking, where the aliases of some models point; open it.

        `async with client.resolver("churn") as resolver: resolver.resolve("production")`
        """
        return AsyncResolver(self.connection, self._names, models)

    @property
    def project(self) -> str:
        """Return the full name of the project that short forms are resolved in."""
        return self._names.default

    async def close(self) -> None:
        """Close the connection; whatever uses it ends with an error."""
        await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _attach(self, connection: AsyncConnection, project: str) -> None:
        names = self._names = Names(project)
        self.connection = connection
        self.aliases = AsyncAliases(connection, names)
        self.artifacts = AsyncArtifacts(connection, names)
        self.audit = AsyncAudit(connection, names)
        self.automations = AsyncAutomations(connection, names)
        self.builds = AsyncBuilds(connection, names)
        self.images = AsyncImages(connection, names)
        self.changes = AsyncChanges(connection, names)
        self._comparisons = AsyncComparisons(connection, names)
        self.datasets = AsyncDatasets(connection, names)
        self.deployments = AsyncDeployments(connection, names)
        self.environments = AsyncEnvironments(connection, names)
        self.lineage = AsyncLineage(connection, names)
        self.members = AsyncMembers(connection, names)
        self.models = AsyncModels(connection, names)
        self.projects = AsyncProjects(connection, names)
        self.queue = AsyncQueue(connection, names)
        self.runs = AsyncRuns(connection, names)
        self.storage = AsyncStorage(connection, names)
        self.tokens = AsyncTokens(connection, names)
        self.versions = AsyncVersions(connection, names)
        self.retention = AsyncRetention(connection, names)
        self.secrets = AsyncSecrets(connection, names)
        self.signatures = AsyncSignatures(connection, names)
        self.webhooks = AsyncWebhooks(connection, names)
