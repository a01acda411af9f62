"""Installations to be broken: the four services in one process, on a folder or on servers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from modelyard import Client
from modelyard.errors import ModelyardError

from services.common.sql.checks import Finding
from services.suite.check_state import check_state, in_settings
from services.suite.children import SERVICES, Layout, children
from services.suite.migrate import migrate_all
from services.suite.start import free_port
from tests.e2e.suite import until
from tests.faults.process import Process
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Bucket, S3Server

PROJECT = "projects/default"
DATABASES = ("metadata", "artifact", "builder", "deployer")
QUICK = {
    "MODELYARD_REDIS_URL": "",
    "MODELYARD_LOG_LEVEL": "ERROR",
    "MODELYARD_BUILDER_LEASE_SECONDS": "1",
    "MODELYARD_BUILDER_RETRY_SECONDS": "0.1",
    "MODELYARD_BUILDER_TICK_SECONDS": "0.1",
    "MODELYARD_DEPLOYER_LEASE_SECONDS": "1",
    "MODELYARD_DEPLOYER_TICK_SECONDS": "0.1",
}


@dataclass
class Installation:
    """Where the services keep what they keep, and how they are run there."""

    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layout = Layout(self.data, free_port(), free_port())
        self.layout.prepare()
        (child,) = [child for child in children(self.layout) if child.name == SERVICES]
        self.environment = {**child.environment, **QUICK, **self.settings}

    @property
    def address(self) -> str:
        """Return where they answer."""
        return self.layout.address

    def token(self, name: str = "admin") -> str:
        """Return one of the installation's own tokens."""
        return (self.layout.tokens / f"{name}.token").read_text().strip()

    def client(self, timeout: float = 5.0) -> Client:
        """Connect as the administrator."""
        return Client(self.address, token=self.token(), project="default", timeout=timeout)

    @contextmanager
    def services(self, *under: str, **variables: str) -> Iterator[Process]:
        """Run the four services in one process, killed at the end if it still runs.

        Args:
            under: the command that runs them, such as `strace …`.
            variables: more of its environment.
        """
        log = self.layout.logs / "services.log"
        process = Process(list(under), {**self.environment, **variables}, log)
        try:
            yield process
        finally:
            process.kill()

    def comes_up(self, process: Process) -> bool:
        """Wait until they answer; False when they died before."""
        until(lambda: process.poll() is not None or self.answers(), what="the services to answer")
        return process.poll() is None

    def answers(self) -> bool:
        """Say whether they answer."""
        if not self.layout.admin_token.exists():
            return False
        try:
            with self.client(timeout=2) as client:
                return bool(client.projects.get())
        except ModelyardError:
            time.sleep(0.05)
            return False

    def check(self) -> list[Finding]:
        """Return what must not be, of what is kept as it lies there now."""
        return list(check_state(in_settings(self.environment)))

    def prepare(self) -> None:
        """Have the services make what they make at their first start."""
        with self.services() as process:
            assert self.comes_up(process), self.log()
            process.terminate()
            assert process.ends()

    def log(self) -> str:
        """Return the end of what they logged."""
        return (self.layout.logs / "services.log").read_text()[-4_000:]


class OnDisk:
    """Installations on SQLite and a folder, all alike."""

    def __init__(self, folder: Path) -> None:
        self._prepared = folder / "prepared"
        Installation(self._prepared).prepare()

    @contextmanager
    def fresh(self, folder: Path, **settings: str) -> Iterator[Installation]:
        """Make one; it is removed afterwards."""
        shutil.copytree(self._prepared, folder)
        yield Installation(folder, settings)
        shutil.rmtree(folder)


class OnServers:
    """Installations on PostgreSQL and S3, all alike."""

    def __init__(self, folder: Path, postgres: PostgresServer, s3: S3Server) -> None:
        self._prepared = folder / "prepared"
        self._postgres, self._s3 = postgres, s3
        self._count = 0
        for database in DATABASES:
            self._execute(f"CREATE DATABASE template_{database}")
        settings = self._settings("template", s3.fresh_bucket())
        list(migrate_all(settings))
        Installation(self._prepared, settings).prepare()

    @contextmanager
    def fresh(self, folder: Path, **settings: str) -> Iterator[Installation]:
        """Make one; its databases are dropped afterwards."""
        self._count += 1
        prefix = f"crash_{self._count}"
        for database in DATABASES:
            self._execute(f"CREATE DATABASE {prefix}_{database} TEMPLATE template_{database}")
        shutil.copytree(self._prepared, folder)
        yield Installation(folder, {**self._settings(prefix, self._s3.fresh_bucket()), **settings})
        for database in DATABASES:
            self._execute(f"DROP DATABASE {prefix}_{database} WITH (FORCE)")
        shutil.rmtree(folder)

    def _settings(self, prefix: str, bucket: S3Bucket) -> dict[str, str]:
        urls = {
            f"MODELYARD_{database.upper()}_DATABASE_URL": self._postgres.url(f"{prefix}_{database}")
            for database in DATABASES
        }
        return urls | {
            "MODELYARD_ARTIFACT_S3_ENDPOINT": f"http://{bucket.endpoint}",
            "MODELYARD_ARTIFACT_S3_BUCKET": bucket.bucket,
            "MODELYARD_ARTIFACT_S3_ACCESS_KEY": bucket.access_key,
            "MODELYARD_ARTIFACT_S3_SECRET_KEY": bucket.secret_key,
        }

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._postgres.url(), autocommit=True) as connection:
            connection.execute(statement.encode())
