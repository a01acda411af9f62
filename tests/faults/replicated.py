"""A production-shaped suite with two replicas of every service behind the shipped proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.suite.start import free_port
from tests.e2e.production import SERVICES, ProductionSuite
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import running as valkey_running

# How long a replica must have served before the next is touched: two looks of the proxy's.
SETTLED = 2.5


class ReplicatedSuite(ProductionSuite):
    """As `deploy/compose.yaml`, with a second endpoint for every cluster of the proxy."""

    def start(self) -> None:
        """Start everything, each service twice."""
        self.second = {service: free_port() for service in SERVICES}
        super().start()
        for service, port in self.second.items():
            self.start_replica(service, port)

    def roll(self, service: str) -> list[float]:
        """Restart the replicas of a service one by one; return how many seconds each stop took."""
        return [
            self._restart(service, port)
            for port in (self.ports[SERVICES[service]], self.second[service])
        ]

    def _restart(self, service: str, port: int) -> float:
        child = self._children[f"{service}-{port}"]
        began = time.monotonic()
        child.terminate()
        assert child.wait(60) == 0, f"{service} did not end well"
        took = time.monotonic() - began
        self.start_replica(service, port)
        time.sleep(SETTLED)
        return took

    def _proxy(self) -> Path:
        path = super()._proxy()
        lines = []
        for line in path.read_text().splitlines():
            lines.append(line)
            for service, port in self.second.items():
                first = f"port_value: {self.ports[SERVICES[service]]} "
                if "- endpoint:" in line and first in line:
                    lines.append(line.replace(first, f"port_value: {port} "))
        path.write_text("\n".join(lines))
        return path


@contextmanager
def replicated(
    folder: Path, postgres: PostgresServer, s3: S3Server, **variables: str
) -> Iterator[ReplicatedSuite]:
    """Run two replicas of every service, on a Valkey server and a bucket of their own."""
    with valkey_running() as valkey:
        suite = ReplicatedSuite(folder, postgres, s3.fresh_bucket(), valkey.url)
        suite.environment |= variables
        suite.start()
        yield suite
        suite.stop()
