"""Workers, limits, and how a build stands with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.builder.domain import Build, BuildState, Waiting, WaitingReason
from services.builder.spec import BuildSpec, Resources
from services.common.errors import Reason, ServiceError

MAX_RUNNING = 100_000
KEPT = timedelta(days=1)
"""How long a worker that was lost counts for what its pool can hold."""

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Ask:
    """A worker that asks for a build; 0 in a resource: it does not say."""

    worker: str
    pool: str
    max_builds: int
    free: Resources
    total: Resources


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker, as it last told of itself."""

    worker: str
    pool: str
    max_builds: int
    total: Resources
    start_time: datetime
    sign_time: datetime
    builds: tuple[str, ...] = ()
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Scope:
    """What a limit is for: a model, or a project as a whole (no model)."""

    project: str
    model: str = ""

    @property
    def name(self) -> str:
        """Return the resource's full name."""
        project = f"projects/{self.project}"
        return f"{project}/models/{self.model}" if self.model else project


@dataclass(frozen=True, slots=True)
class Defaults:
    """The installation's limits, where no own ones are set; 0: none."""

    project: int = 0
    model: int = 0

    def of(self, scope: Scope) -> int | None:
        """Return the limit of a scope that has none of its own."""
        return (self.model if scope.model else self.project) or None


@dataclass(frozen=True, slots=True)
class Standing:
    """A scope's limits and how it stands with them."""

    scope: Scope
    own: int | None
    effective: int | None
    running: int
    queued: int


@dataclass(frozen=True, slots=True)
class Situation:
    """All that decides about waiting builds, at one moment."""

    now: datetime
    running: Mapping[Scope, int]
    limits: Mapping[Scope, int]
    defaults: Defaults
    workers: Sequence[Worker]
    """Those that are alive."""

    def explained(self, builds: Sequence[Build]) -> list[Build]:
        """Say of each queued build why it waits."""
        return [
            replace(build, waiting=self._waiting(build))
            if build.state is BuildState.QUEUED
            else build
            for build in builds
        ]

    def _waiting(self, build: Build) -> Waiting:
        if build.retry_time is not None and build.retry_time > self.now:
            until = f"{build.retry_time:%H:%M:%S} UTC"
            return Waiting(WaitingReason.RETRY_DELAY, f"the next attempt begins at {until}")
        return next(self._limits(build), None) or self._workers(build)

    def _limits(self, build: Build) -> Iterator[Waiting]:
        project = Scope(build.name.project)
        model = Scope(build.name.project, build.model.rpartition("/")[2])
        reasons = {project: WaitingReason.PROJECT_LIMIT, model: WaitingReason.MODEL_LIMIT}
        for scope, reason in reasons.items():
            limit, running = self._limit(scope), self.running.get(scope, 0)
            if limit is not None and running >= limit:
                message = f"{running} builds of {scope.name} run, of at most {limit}"
                yield Waiting(reason, message)

    def _limit(self, scope: Scope) -> int | None:
        return self.limits.get(scope, self.defaults.of(scope))

    def _workers(self, build: Build) -> Waiting:
        pool = build.spec.pool
        workers = [worker for worker in self.workers if worker.pool == pool]
        if not workers:
            return Waiting(WaitingReason.NO_WORKER, f"no worker of the pool {pool} is there")
        shortage = short_of(build.spec, workers)
        if shortage is not None:
            return Waiting(WaitingReason.NO_CAPACITY, shortage.message)
        return Waiting(WaitingReason.WORKERS_BUSY, f"no worker of the pool {pool} has taken it yet")


def short_of(spec: BuildSpec, workers: Sequence[Worker]) -> ServiceError | None:
    """Return the refusal of an order that asks for more than any of some workers has.

    No workers, no refusal: one may come.
    """
    if not workers or any(_holds(worker.total, spec.resources) for worker in workers):
        return None
    asked, pool = spec.resources, spec.pool
    largest = max(workers, key=lambda w: (w.total.memory_bytes, w.total.cpu_cores)).total
    for resource, wanted, most in (
        ("memory", asked.memory_bytes, largest.memory_bytes),
        ("disk", asked.disk_bytes, largest.disk_bytes),
        ("cpu_cores", asked.cpu_cores, largest.cpu_cores),
    ):
        if most and wanted > most:
            return _shortage(pool, resource, wanted, most)
    return _shortage(pool, "resources", 0, 0)


def _holds(total: Resources, asked: Resources) -> bool:
    pairs = (
        (total.cpu_cores, asked.cpu_cores),
        (total.memory_bytes, asked.memory_bytes),
        (total.disk_bytes, asked.disk_bytes),
    )
    return all(not there or wanted <= there for there, wanted in pairs)


def _shortage(pool: str, resource: str, asked: float, largest: float) -> ServiceError:
    if resource == "resources":
        message = f"no worker of the pool {pool} has all that the build asks for at once"
    elif resource == "cpu_cores":
        message = f"no worker of the pool {pool} has {asked:g} cores; the largest has {largest:g}"
    else:
        most = f"the largest has {_gib(largest)}"
        message = f"no worker of the pool {pool} has {_gib(asked)} of {resource}; {most}"
    return ServiceError(
        Reason.CAPACITY_EXCEEDED,
        message,
        pool=pool,
        resource=resource,
        asked=f"{asked:g}" if resource == "cpu_cores" else str(int(asked)),
        largest=f"{largest:g}" if resource == "cpu_cores" else str(int(largest)),
    )


def _gib(count: float) -> str:
    return f"{count / GIB:,.2f}".rstrip("0").rstrip(".") + " GiB"
