"""The data plane: model servers behind Envoy, changed one variant at a time.

A reconcile loop says `open_environment`, `ensure` (started and ready, no request yet),
`set_weights` (who answers), `drain` (no new request, the last one answered) and `remove`. Each
step may be repeated. A variant that dies by itself leaves Envoy at once and is told by
`next_failure`; `ensure` starts it again. Calls for different models may run at the same time.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from services.deployer.agent.envoy import ConfigRejectedError, Envoy, EnvoyError
from services.deployer.agent.envoy_admin import EnvoyUnreachableError
from services.deployer.agent.model_server import (
    SAMPLE_SUFFIX,
    SAMPLES,
    ModelServerError,
    ModelServerSpec,
)
from services.deployer.agent.replicas import ReplicaSet
from services.deployer.agent.routing import (
    PREDICTION_SECONDS,
    Backend,
    Listener,
    Route,
    stat_name,
)
from services.deployer.rollouts.plans import HeaderMatch, ServingSpec, Traffic

logger = logging.getLogger(__name__)

READY_SECONDS = 120.0
DRAIN_SECONDS = 30.0
STOP_SECONDS = 7.0
"""How long an end of it all may take: Envoy's, and then the model servers'."""
_END_SECONDS = 2.0
_POLL_SECONDS = 0.05
_QUIET_POLLS = 3  # a request that Envoy routes just now is counted a moment later


@dataclass(frozen=True, slots=True)
class VariantKey:
    """Names a variant: a revision of a model's deployment in an environment (a resource name)."""

    environment: str
    model: str
    revision: int

    def __str__(self) -> str:
        return f"{self.environment}/{self.model}/{self.revision}"


@dataclass(frozen=True, slots=True)
class Variant:
    """What should run for a revision: a version's bundle, and the Python of its environment.

    Both paths are absolute.
    """

    key: VariantKey
    version: str
    bundle: Path
    python: Path
    serving: ServingSpec = field(default_factory=ServingSpec)
    mirror_percent: int = 0
    header_match: HeaderMatch | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """How a running variant is."""

    weight: int
    ready_count: int
    restart_count: int
    wanted_count: int = 1
    scaling: str = ""
    """Why so many are wanted; empty: so many were ordered."""


@dataclass(frozen=True, slots=True)
class VariantFailure:
    """A variant that was ready and died by itself."""

    key: VariantKey
    error: ModelServerError


@dataclass(slots=True)
class _Running:
    """A variant with ready model servers, and its share of the requests."""

    variant: Variant
    servers: ReplicaSet
    watcher: asyncio.Task[None]
    weight: int = 0
    scaling: str = ""
    is_draining: bool = False  # it gets no copies either, nor what has its header


@dataclass(slots=True)
class _Environment:
    """An open environment and the model servers in it."""

    port: int
    host: str
    running: dict[VariantKey, _Running] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)  # also those of which no variant is ready


class DataPlane:
    """Envoy and the model servers of this machine; an async context manager that owns them."""

    def __init__(self, folder: Path, *, envoy_concurrency: int = 1) -> None:
        self._folder = folder.resolve()
        self._envoy = Envoy(self._folder / "envoy", concurrency=envoy_concurrency)
        self._environments: dict[str, _Environment] = {}
        self._failures: asyncio.Queue[VariantFailure] = asyncio.Queue()
        self._changing = asyncio.Lock()
        self._starting: dict[VariantKey, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        await self._envoy.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        found = [r for e in self._environments.values() for r in e.running.values()]
        for running in found:
            running.watcher.cancel()
        await self._envoy.__aexit__()
        # Their callers went with Envoy: nobody waits for an answer any more.
        await asyncio.gather(*(running.servers.stop(_END_SECONDS) for running in found))

    @property
    def envoy(self) -> Envoy:
        """Return the Envoy in front."""
        return self._envoy

    async def open_environment(
        self, name: str, *, port: int, host: str = "127.0.0.1", model: str = ""
    ) -> None:
        """Serve an environment on a port, and say of a model that it is not ready yet.

        Raises:
            ConfigRejectedError: The port is taken.
        """
        async with self._changing:  # several models may ask for it at the same time
            known = self._environments.get(name)
            environment = replace(known or _Environment(port, host), port=port, host=host)
            news = {model} - environment.models - {""}
            environment.models.update(news)
            if news or environment != known:
                await self._envoy.apply(_listeners({**self._environments, name: environment}))
                self._environments[name] = environment

    async def close_environment(self, name: str) -> None:
        """Stop serving an environment and end whatever runs in it."""
        environment = self._environments.get(name)
        if environment is None:
            return
        for key in list(environment.running):
            await self.remove(key)
        async with self._changing:
            del self._environments[name]
            await self._apply()

    async def ensure(self, variant: Variant, *, deadline: float = READY_SECONDS) -> None:
        """Have a variant run and be ready; it gets no request before `set_weights`.

        Raises:
            ModelServerError: It could not be made ready; nothing is left of it.
        """
        key = variant.key
        async with self._starting.setdefault(key, asyncio.Lock()):
            environment = self._environments[key.environment]
            known = environment.running.get(key)
            if known is not None and known.servers.ready_count:
                return
            servers = ReplicaSet(
                _spec(variant),
                folder=self._server_folder(key),
                count=_first_count(variant.serving),
                ready_seconds=deadline,
                on_change=self._tell_envoy,
            )
            await servers.start()
            watcher = asyncio.create_task(self._watch(key, servers))
            environment.running[key] = _Running(variant, servers, watcher)
            environment.models.add(key.model)

    async def set_weights(self, environment: str, model: str, weights: Mapping[int, int]) -> None:
        """Share a model's requests among its ready revisions; the ones not named get none.

        Raises:
            KeyError: A revision that is given a weight does not run.
        """
        async with self._changing:
            running = self._environments[environment].running
            for revision, weight in weights.items():
                if weight > 0 and VariantKey(environment, model, revision) not in running:
                    raise KeyError(f"revision {revision} of {model} does not run")
            for key, found in running.items():
                if key.model == model:
                    found.weight = weights.get(key.revision, 0)
            await self._apply()

    async def drain(self, key: VariantKey, *, within: float = DRAIN_SECONDS) -> bool:
        """Send a variant no new request and wait for the ones it has; False: some remained."""
        running = self._environments[key.environment].running.get(key)
        if running is None:
            return True
        async with self._changing:
            running.weight, running.is_draining = 0, True
            await self._apply()
        try:
            async with asyncio.timeout(within):
                await self._wait_quiet(key)
        except TimeoutError:
            logger.warning("requests remained after the drain", extra={"variant": str(key)})
            return False
        return True

    async def remove(self, key: VariantKey, *, keep_model: bool = False) -> None:
        """Take a variant out of Envoy, then end its model server.

        Args:
            key: The variant.
            keep_model: Whether its model's callers are told to wait when no other variant is
                ready, rather than that there is no such model.
        """
        environment = self._environments[key.environment]
        running = environment.running.pop(key, None)
        self._starting.pop(key, None)
        if running is not None:
            running.watcher.cancel()
        others = any(other.model == key.model for other in environment.running)
        if not (others or keep_model):
            environment.models.discard(key.model)
        try:
            async with self._changing:
                await self._apply()
        finally:  # also when Envoy cannot be told: nothing may be left running
            if running is not None:
                await running.servers.stop()
        await asyncio.to_thread(shutil.rmtree, self._server_folder(key), ignore_errors=True)

    def ready(self) -> dict[VariantKey, Condition]:
        """Return the variants that answer, and how they are."""
        return {
            key: Condition(
                running.weight,
                running.servers.ready_count,
                running.servers.restart_count,
                running.servers.wanted_count,
                running.scaling,
            )
            for environment in self._environments.values()
            for key, running in environment.running.items()
            if running.servers.ready_count
        }

    def autoscaled(self) -> dict[VariantKey, ServingSpec]:
        """Return how those running variants are served that are autoscaled."""
        return {
            key: running.variant.serving
            for environment in self._environments.values()
            for key, running in environment.running.items()
            if running.variant.serving.autoscaling is not None and not running.is_draining
        }

    def scale(self, key: VariantKey, count: int, why: str) -> None:
        """Have a running variant get so many model servers; those too many are drained first."""
        running = self._environments[key.environment].running.get(key)
        if running is not None:
            running.scaling = why
            running.servers.resize(count)

    async def traffic(self) -> dict[VariantKey, Traffic]:
        """Return what was counted of each running variant since Envoy started.

        Raises:
            EnvoyUnreachableError: Envoy is being started again.
        """
        counted = await self._envoy.traffic()
        running = {key for e in self._environments.values() for key in e.running}
        return {key: counted.get(stat_name(str(key)), Traffic()) for key in running}

    def tail(self, key: VariantKey, count: int) -> list[str]:
        """Return the last log lines of a running variant."""
        running = self._environments[key.environment].running.get(key)
        return [] if running is None else running.servers.tail(count)

    def sample_files(self, key: VariantKey) -> list[Path]:
        """Return the samples that a variant's model servers wrote, oldest first."""
        return sorted(self._server_folder(key).glob(f"*/{SAMPLES}/*{SAMPLE_SUFFIX}"))

    async def next_failure(self) -> VariantFailure:
        """Wait for a variant that dies by itself; requests no longer go to it."""
        return await self._failures.get()

    async def _watch(self, key: VariantKey, servers: ReplicaSet) -> None:
        error = await servers.failure()
        running = self._environments[key.environment].running
        if key in running and running[key].servers is servers:
            del running[key]
        await servers.stop(0)
        await self._tell_envoy()
        self._failures.put_nowait(VariantFailure(key, error))

    async def _tell_envoy(self) -> None:
        """Have Envoy send requests to those model servers only that are ready now."""
        async with self._changing:
            try:
                await self._apply()
            except (ConfigRejectedError, EnvoyError, OSError) as refused:
                # Envoy answers 503 for it anyway; the next change tells it again.
                logger.warning("Envoy was not told", extra={"problem": str(refused)})

    def _server_folder(self, key: VariantKey) -> Path:
        return self._folder / "servers" / stat_name(str(key))

    async def _wait_quiet(self, key: VariantKey) -> None:
        """Wait until Envoy has no request of a variant in hand, several times in a row."""
        quiet = 0
        while quiet < _QUIET_POLLS:
            try:
                active = await self._envoy.active_requests(str(key))
            except EnvoyUnreachableError:
                active = 1  # not known: it is being started again
            quiet = 0 if active else quiet + 1
            await asyncio.sleep(_POLL_SECONDS)

    async def _apply(self) -> None:
        await self._envoy.apply(_listeners(self._environments))


def _spec(variant: Variant) -> ModelServerSpec:
    return ModelServerSpec(
        variant.python, variant.bundle, variant.key.model, variant.version, variant.serving
    )


def _listeners(environments: Mapping[str, _Environment]) -> list[Listener]:
    return [
        Listener(name, environment.port, _routes(environment), environment.host)
        for name, environment in environments.items()
    ]


def _routes(environment: _Environment) -> tuple[Route, ...]:
    """Return a route for each model, with its ready variants."""
    backends: dict[str, list[Backend]] = {model: [] for model in sorted(environment.models)}
    for key, running in environment.running.items():
        backend = _backend(key, running)
        if backend.ports:
            backends[key.model].append(backend)
    return tuple(Route(model, tuple(found)) for model, found in backends.items())


def _backend(key: VariantKey, running: _Running) -> Backend:
    variant = running.variant
    return Backend(
        str(key),
        running.servers.ports,
        running.weight,
        0 if running.is_draining else variant.mirror_percent,
        variant.serving.timeout_seconds or PREDICTION_SECONDS,
        None if running.is_draining else variant.header_match,
    )


def _first_count(serving: ServingSpec) -> int:
    """Return how many model servers a variant begins with."""
    plan = serving.autoscaling
    if plan is None:
        return serving.replica_count
    return min(max(serving.replica_count, plan.min_count), plan.max_count)
