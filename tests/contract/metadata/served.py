"""A registry that is served: the same operations as in `plain`, through the public client."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from modelyard import Client, ModelyardError
from modelyard._values import decode_value
from modelyard.metadata.v1 import run_pb2

from services.metadata.settings import MetadataSettings
from tests.contract.metadata.desk import artifacts_running, metadata_running
from tests.contract.metadata.plain import Answer, RefusedError
from tests.servers.processes import free_port

T = TypeVar("T")

_projects = itertools.count(1)


class ServedRegistry:
    """One project of a service."""

    def __init__(self, server: Server) -> None:
        self.project = f"p{next(_projects)}"
        self._server = server
        server.client.projects.create(self.project)
        self._client = server.in_project(self.project)
        self._artifact = server.push(self.project)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def create_model(self, model: str) -> Answer:
        """Create a model."""
        return _leaf(self._client.models.create(model).name)

    def delete_model(self, model: str) -> Answer:
        """Delete a model."""
        return self._client.models.delete(model).HasField("delete_time")

    def restore_model(self, model: str) -> Answer:
        """Take back that a model was deleted."""
        return self._client.models.restore(model).HasField("delete_time")

    def purge_model(self, model: str) -> Answer:
        """Remove a deleted model."""
        return self._client.models.purge(model)

    def list_models(self) -> Answer:
        """List models by id."""
        return [_leaf(model.name) for model in self._client.models.list()]

    def create_run(self, model: str, run: str, tags: dict[str, str]) -> Answer:
        """Start a run."""
        return _run(self._client.runs.create(model, run_id=run, tags=tags))

    def get_run(self, model: str, run: str) -> Answer:
        """Get a run."""
        return _run(self._client.runs.get(f"{model}/{run}"))

    def log(
        self, model: str, run: str, params: dict[str, Any], metrics: dict[str, float], step: int
    ) -> Answer:
        """Log parameters and one step's metrics."""
        with self._client.runs.writer(f"{model}/{run}") as writer:
            writer.log(metrics, params=params, step=step)

    def points(self, model: str, run: str, key: str) -> Answer:
        """Read a metric's points."""
        found = self._client.runs.metric_points(f"{model}/{run}", key)
        return list(zip(found.steps, map(repr, found.values), strict=True))

    def finish_run(self, model: str, run: str, state: str) -> Answer:
        """End a run."""
        reason = "EXCEPTION" if state == "FAILED" else ""
        return _run(self._client.runs.finish(f"{model}/{run}", state.lower(), reason=reason))

    def edit_run(self, model: str, run: str, notes: str, tags: dict[str, str]) -> Answer:
        """Change a run's notes and tags."""
        return _run(self._client.runs.update(f"{model}/{run}", notes=notes, tags=tags))

    def delete_run(self, model: str, run: str) -> Answer:
        """Delete a run."""
        return _run(self._client.runs.delete(f"{model}/{run}"))

    def restore_run(self, model: str, run: str) -> Answer:
        """Take back that a run was deleted."""
        return _run(self._client.runs.restore(f"{model}/{run}"))

    def purge_run(self, model: str, run: str) -> Answer:
        """Remove a deleted run."""
        return self._client.runs.purge(f"{model}/{run}")

    def search_runs(self, model: str, wanted: str, *, show_deleted: bool) -> Answer:
        """Find runs with a tag, by a metric and by id; two a page."""
        found = self._client.runs.search(
            model=model,
            filter=f'tags.team = "{wanted}"',
            order_by="metrics.loss, id",
            show_deleted=show_deleted,
            page_size=2,
        )
        return [_leaf(run.name) for run in found]

    def create_version(
        self, model: str, run: str, label: str, description: str, aliases: list[str]
    ) -> Answer:
        """Register a version."""
        version = self._client.versions.create(
            model,
            self._artifact,
            run=f"{model}/{run}" if run else None,
            label=label,
            description=description,
            aliases=aliases,
        )
        return _version(version)

    def get_version(self, model: str, number: int) -> Answer:
        """Get a version."""
        return _version(self._client.versions.get(f"{model}/{number}"))

    def newest_version(self, model: str) -> Answer:
        """Get a model's newest version."""
        return _version(self._client.versions.get(model))

    def version_by_label(self, model: str, label: str) -> Answer:
        """Get the version that has a label."""
        return _version(self._client.versions.get(f"{model}@{label}"))

    def edit_version(
        self, model: str, number: int, description: str, labels: dict[str, str]
    ) -> Answer:
        """Change a version's description and labels."""
        name = f"{model}/{number}"
        return _version(self._client.versions.update(name, description=description, labels=labels))

    def archive(self, model: str, number: int) -> Answer:
        """Archive a version."""
        return _version(self._client.versions.archive(f"{model}/{number}"))

    def unarchive(self, model: str, number: int) -> Answer:
        """Take back that a version was archived."""
        return _version(self._client.versions.unarchive(f"{model}/{number}"))

    def delete_version(self, model: str, number: int) -> Answer:
        """Delete a version."""
        return _version(self._client.versions.delete(f"{model}/{number}"))

    def restore_version(self, model: str, number: int) -> Answer:
        """Take back that a version was deleted."""
        return _version(self._client.versions.restore(f"{model}/{number}"))

    def purge_version(self, model: str, number: int) -> Answer:
        """Remove a deleted version."""
        return self._client.versions.purge(f"{model}/{number}")

    def evaluate(self, model: str, number: int, value: float) -> Answer:
        """Record an evaluation."""
        found = self._client.versions.evaluate(f"{model}/{number}", {"f1": value})
        return repr(found.metrics["f1"])

    def evaluations(self, model: str, number: int) -> Answer:
        """List a version's evaluations."""
        found = self._client.versions.evaluations(f"{model}/{number}")
        return [repr(one.metrics["f1"]) for one in found]

    def list_versions(self, model: str, *, show_deleted: bool, archived: bool | None) -> Answer:
        """List a model's versions, two a page."""
        found = self._client.versions.search(
            model=model,
            filter="" if archived is None else f"archived = {str(archived).lower()}",
            show_deleted=show_deleted,
            page_size=2,
        )
        return [int(_leaf(version.name)) for version in found]

    def set_alias(self, model: str, alias: str, number: int, expected: int | None) -> Answer:
        """Point an alias to a version."""
        moved = self._client.aliases.set(model, alias, version=number, if_version=expected)
        return int(_leaf(moved.version))

    def get_alias(self, model: str, alias: str) -> Answer:
        """Say where an alias points."""
        return int(_leaf(self._client.aliases.get(model, alias).version))

    def delete_alias(self, model: str, alias: str) -> Answer:
        """Delete an alias."""
        return self._client.aliases.delete(model, alias)

    def alias_history(self, model: str) -> Answer:
        """List where a model's aliases pointed, newest first."""
        return [
            (_leaf(change.alias), _number(change.old_version), _number(change.new_version))
            for change in self._client.aliases.history(model)
        ]


class Server:
    """A metadata service and its artifact service, in a thread of their own."""

    def __init__(self, settings: MetadataSettings, folder: Path) -> None:
        self._bytes = folder / "model"
        self._bytes.mkdir()
        (self._bytes / "weights").write_bytes(b"weights")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._house = self._do(self._start(settings, folder))
        self.client = self.in_project("default")

    def in_project(self, project: str) -> Client:
        """Connect as the administrator, to one project."""
        return self._connect(self._house.port, project)

    def push(self, project: str) -> str:
        """Store a few bytes in a project; return the artifact's name."""
        with self._connect(self._house.artifact_port, project) as client:
            return client.artifacts.push(self._bytes).name

    def close(self) -> None:
        """Stop everything."""
        self.client.close()
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _connect(self, port: int, project: str) -> Client:
        return Client(f"127.0.0.1:{port}", token=self._house.secret("admin"), project=project)

    async def _start(self, settings: MetadataSettings, folder: Path) -> Any:
        enter = self._stack.enter_async_context
        house = await enter(metadata_running(settings, free_port()))
        await enter(artifacts_running(house, folder / "artifact"))
        return house

    def _do(self, work: Awaitable[T]) -> T:
        async def done() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(60)


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what the client raises as a plain refusal."""
    try:
        yield
    except ModelyardError as error:
        raise RefusedError(error.reason) from error


def _run(run: run_pb2.Run) -> Answer:
    return (
        run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_"),
        run.notes,
        sorted(run.tags.items()),
        sorted((key, repr(decode_value(value))) for key, value in run.params.items()),
        sorted((metric.key, metric.count, repr(metric.last)) for metric in run.metrics),
        run.HasField("delete_time"),
    )


def _version(version: Any) -> Answer:
    return (
        int(_leaf(version.name)),
        version.label,
        version.description,
        sorted(version.labels.items()),
        sorted((key, repr(decode_value(value))) for key, value in version.params.items()),
        sorted((key, repr(value)) for key, value in version.metrics.items()),
        sorted(version.aliases),
        version.HasField("archive_time"),
        version.HasField("delete_time"),
    )


def _number(version: str) -> int:
    return int(_leaf(version)) if version else 0


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]
