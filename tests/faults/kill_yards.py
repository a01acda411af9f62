"""Installations whose processes are killed one at a time, looked at, and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil

from services.common.sql.checks import Finding
from services.suite.check_state import check_state, in_folder, in_settings
from tests.e2e.production import SERVICES, ProductionSuite, is_serving
from tests.e2e.suite import EmbeddedSuite, Suite, gone, until
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import ValkeyServer
from tests.servers.valkey import running as valkey_running

SETTINGS = {
    "MODELYARD_BUILDER_LEASE_SECONDS": "5",
    "MODELYARD_BUILDER_TICK_SECONDS": "0.3",
    "MODELYARD_BUILDER_RETRY_SECONDS": "0.2",
    "MODELYARD_DEPLOYER_TICK_SECONDS": "0.3",
    "MODELYARD_WORKER_GRACE_SECONDS": "1",
    **{f"MODELYARD_{service.upper()}_LAME_DUCK_SECONDS": "0" for service in SERVICES},
}
BUILDS = {"order", "building"}
ROLLOUTS = {"deploy", "rollout"}
REGISTRATIONS = {"push", "version"}
RECORDS = {"version", "alias", "run", "metric"}
ALL = BUILDS | ROLLOUTS | REGISTRATIONS | RECORDS
# Which work under way needs whom.
NEEDS: Mapping[str, set[str]] = {
    "metadata": ALL - {"push"},
    "artifact": REGISTRATIONS | {"building"},
    "builder": BUILDS,
    "deployer": ROLLOUTS,
    "worker": {"building"},
    "agent": {"rollout"},
    "redis": BUILDS,
    "services": ALL,
    "everything": ALL,
}


class Yard(Protocol):
    """An installation of which anything may be killed."""

    @property
    def suite(self) -> Suite:
        """It."""

    @property
    def victims(self) -> tuple[str, ...]:
        """What may be killed."""

    def kill(self, victim: str) -> list[psutil.Process]:
        """Kill a process, so that it is not started again yet; return what ran under it."""

    def restart(self, victim: str) -> None:
        """Start it again and wait until it is there."""

    def check(self) -> list[Finding]:
        """Return what must not be, of what is kept as it lies there now."""


class OnServers:
    """A process a service, on PostgreSQL, S3 and Redis."""

    victims = ("metadata", "artifact", "builder", "deployer", "worker", "agent", "redis")

    def __init__(self, suite: ProductionSuite, valkey: ValkeyServer) -> None:
        self.suite = suite
        self._valkey = valkey

    def kill(self, victim: str) -> list[psutil.Process]:
        if victim != "redis":
            return self.suite.kill(victim)
        self._valkey.stop()
        return []

    def restart(self, victim: str) -> None:
        if victim == "redis":
            self._valkey.start()
        elif victim in SERVICES:
            self.suite.start_service(victim)
        else:
            self.suite.start_caller(victim)

    def check(self) -> list[Finding]:
        return list(check_state(in_settings(self.suite.environment)))


class OnDisk:
    """The embedded suite, on SQLite and a folder; its supervisor starts again what was killed."""

    victims = ("services", "worker", "agent", "redis", "everything")
    _lines: Mapping[str, tuple[str, ...]] = {
        "services": ("-m", "services"),
        "worker": ("-m", "services.builder.worker"),
        "agent": ("-m", "services.deployer.agent"),
    }

    def __init__(self, suite: EmbeddedSuite) -> None:
        self.suite = suite

    def kill(self, victim: str) -> list[psutil.Process]:
        if victim == "everything":
            return self.suite.kill()
        process = self._find(victim)
        # It would start it again before anybody has looked.
        os.kill(self._supervisor().pid, signal.SIGSTOP)
        under = process.children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: gone([process]), what=f"the end of {victim}")
        return under

    def restart(self, victim: str) -> None:
        if victim == "everything":
            self.suite.start()
            back = set(self._lines)
        else:
            os.kill(self._supervisor().pid, signal.SIGCONT)
            back = {victim}
        until(lambda: all(self._is_back(each) for each in back), what=f"{victim} to be back")

    def check(self) -> list[Finding]:
        return list(check_state(in_folder(self.suite.layout.data)))

    def _is_back(self, victim: str) -> bool:
        if victim == "services":
            return is_serving(self.suite.address)
        return bool(self._found(victim))

    def _find(self, victim: str) -> psutil.Process:
        (found,) = self._found(victim)
        return found

    def _found(self, victim: str) -> list[psutil.Process]:
        if victim == "redis":
            return self.suite.find("valkey-server")
        line = self._lines[victim]
        return [p for p in self.suite.find(line[-1]) if tuple(p.cmdline()[-2:]) == line]

    def _supervisor(self) -> psutil.Process:
        module = "services.suite.supervisor"
        (found,) = [p for p in self.suite.find(module) if p.cmdline()[1:3] == ["-m", module]]
        return found


@contextmanager
def on_servers(folder: Path, postgres: PostgresServer, s3: S3Server) -> Iterator[OnServers]:
    """Run an installation on servers."""
    with valkey_running() as valkey:
        suite = ProductionSuite(folder, postgres, s3.fresh_bucket(), valkey.url)
        suite.environment |= SETTINGS
        suite.start()
        try:
            yield OnServers(suite, valkey)
        finally:
            suite.stop()


@contextmanager
def on_disk(folder: Path) -> Iterator[OnDisk]:
    """Run an embedded suite."""
    suite = EmbeddedSuite(folder / "suite", SETTINGS)
    suite.start()
    try:
        yield OnDisk(suite)
    finally:
        suite.stop()
