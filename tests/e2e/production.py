"""A production-shaped suite: a process a service, PostgreSQL, S3, Redis, the proxy.

Its settings are those of `deploy/modelyard.env` and its proxy is `deploy/envoy.yaml`;
only addresses, folders and secrets are put in.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.suite import SHARED, Suite, until
from tests.servers import proxy
from tests.servers.postgres import PostgresServer
from tests.servers.processes import free_port
from tests.servers.seaweedfs import S3Bucket

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVICES, PROXY = proxy.SERVICES, proxy.LISTENS
CALLERS = {"agent": "services.deployer.agent", "worker": "services.builder.worker"}


class ProductionSuite(Suite):
    """Processes as `deploy/compose.yaml` starts them."""

    def __init__(
        self, folder: Path, postgres: PostgresServer, bucket: S3Bucket, redis_url: str
    ) -> None:
        self.folder = folder
        self._resources = ExitStack()
        self.ports = {PROXY: free_port()} | {port: free_port() for port in SERVICES.values()}
        super().__init__(f"127.0.0.1:{self.ports[PROXY]}", "")
        self.environment = self._environment(postgres, bucket, redis_url)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Migrate, then start everything, each process once."""
        subprocess.run([_program("modelyard"), "migrate"], env=self.environment, check=True)
        # Several may run side by side: what a hot restart is for, they would take each other for.
        options = ["--log-level", "warn", "--disable-hot-restart"]
        self._start("proxy", [_program("envoy"), "-c", str(self._proxy()), *options])
        for service in SERVICES:
            self.start_service(service)
        until(lambda: self._alive("proxy") and _connects(self.address), what="the proxy to listen")
        for caller in CALLERS:
            self.start_caller(caller)
        self.token = (self.folder / "tokens" / "admin.token").read_text().strip()

    def start_service(self, service: str) -> None:
        """Start a service and wait until it answers."""
        self.start_replica(service, self.ports[SERVICES[service]])

    def start_replica(self, service: str, port: int) -> None:
        """Start a replica of a service on a port and wait until it answers."""
        name, address = f"{service}-{port}", f"127.0.0.1:{port}"
        listen = {f"MODELYARD_{service.upper()}_LISTEN": address}
        self._start(name, _python("-m", f"services.{service}"), listen)
        until(lambda: self._alive(name) and is_serving(address), what=f"{service} to serve")

    def start_caller(self, caller: str) -> None:
        """Start the agent or the worker."""
        self._start(caller, _python("-m", CALLERS[caller]))

    def kill(self, name: str) -> list[psutil.Process]:
        """Kill a service, the agent or the worker by SIGKILL; return what ran under it."""
        child = self._children[f"{name}-{self.ports[SERVICES[name]]}" if name in SERVICES else name]
        under = psutil.Process(child.pid).children(recursive=True)
        child.kill()
        child.wait()
        return under

    def memory(self) -> dict[str, int]:
        """Return how many bytes of memory each process of a service has, by its name."""
        return {
            name: int(psutil.Process(child.pid).memory_info().rss)
            for name, child in self._children.items()
            if name.partition("-")[0] in SERVICES
        }

    def errors(self) -> list[str]:
        """Return the lines of logs in which a process says that it did not expect something."""
        logs = [(self.folder / f"{name}.log").read_text() for name in self._children]
        return [line for log in logs for line in log.splitlines() if '"level":"ERROR"' in line]

    def gone(self) -> list[str]:
        """Return the names of what does not run any more."""
        return [name for name, child in self._children.items() if child.poll() is not None]

    def stop(self) -> None:
        """Stop everything, the users of others first."""
        for name in reversed(self._children):
            self._children[name].terminate()
            self._children[name].wait(60)
        self._resources.close()

    def _start(
        self, name: str, command: list[str], variables: dict[str, str] | None = None
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            # A program sees to it that they end with us: a fork that runs Python first would
            # take the threads of our gRPC channels into the child.
            self._children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                env={**self.environment, **(variables or {})},
                stdout=log,
                stderr=log,
            )
        self.processes.append(psutil.Process(self._children[name].pid))

    def _alive(self, name: str) -> bool:
        log = self.folder / f"{name}.log"
        assert self._children[name].poll() is None, f"{name} ended: {log.read_text()[-2000:]}"
        return True

    def _environment(
        self, postgres: PostgresServer, bucket: S3Bucket, redis_url: str
    ) -> dict[str, str]:
        lines = (DEPLOY / "modelyard.env").read_text().splitlines()
        shipped = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        return {**os.environ, **{k: self._put_in(k, v) for k, v in shipped.items()}} | {
            **SHARED,
            "MODELYARD_REDIS_URL": redis_url,
            "MODELYARD_ARTIFACT_S3_ENDPOINT": f"http://{bucket.endpoint}",
            "MODELYARD_ARTIFACT_S3_BUCKET": bucket.bucket,
            "MODELYARD_ARTIFACT_S3_ACCESS_KEY": bucket.access_key,
            "MODELYARD_ARTIFACT_S3_SECRET_KEY": bucket.secret_key,
            "MODELYARD_AGENT_BASE_PORT": str(free_port()),
            **{
                f"MODELYARD_{service.upper()}_DATABASE_URL": self._database(
                    postgres, shipped, service
                )
                for service in SERVICES
            },
        }

    def _put_in(self, key: str, value: str) -> str:
        """Put this machine's ports and folders in the place of the shipped ones."""
        if key == "MODELYARD_SUITE_ADDRESS":
            return self.address
        if key.endswith("_LISTEN"):
            return f"127.0.0.1:{self.ports[int(value.rpartition(':')[2])]}"
        for shipped, own in (("/run/modelyard", ""), ("/var/lib/modelyard", "data")):
            if value.startswith(shipped):
                return str(self.folder / own) + value.removeprefix(shipped)
        return value

    def _database(self, postgres: PostgresServer, shipped: dict[str, str], service: str) -> str:
        url = urlsplit(shipped[f"MODELYARD_{service.upper()}_DATABASE_URL"])
        assert (url.scheme, url.path) == ("postgresql", f"/{service}")
        return self._resources.enter_context(postgres.database())

    def _proxy(self) -> Path:
        """Write the shipped proxy configuration with our ports in it."""
        path = self.folder / "envoy.yaml"
        path.write_text(proxy.configuration(self.ports))
        return path


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _connects(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def is_serving(address: str) -> bool:
    """Say whether a service answers there, and says so."""
    with grpc.insecure_channel(address) as channel:
        try:
            check: object = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
            answer = check(health_pb2.HealthCheckRequest(), timeout=1)  # type: ignore[operator]
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
