"""What the services keep their data in where it is not this machine's disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.artifact.settings import ArtifactSettings
from services.artifact.wiring import MIGRATIONS as ARTIFACT
from services.builder.wiring import MIGRATIONS as BUILDER
from services.common.sql.engines import create_engine, migrate
from services.deployer.wiring import MIGRATIONS as DEPLOYER
from services.metadata.wiring import MIGRATIONS as METADATA
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Bucket

_MIGRATIONS = {"artifact": ARTIFACT, "builder": BUILDER, "deployer": DEPLOYER, "metadata": METADATA}


@dataclass(frozen=True, slots=True)
class Production:
    """A PostgreSQL database for each service, a bucket, a Redis server."""

    databases: dict[str, str]
    bucket: S3Bucket
    redis_url: str

    @classmethod
    @contextmanager
    def opened(
        cls, postgres: PostgresServer, bucket: S3Bucket, redis_url: str
    ) -> Iterator[Production]:
        """Make the databases; drop them afterwards."""
        with ExitStack() as databases:
            urls = {name: databases.enter_context(postgres.database()) for name in _MIGRATIONS}
            for name, url in urls.items():
                engine = create_engine(url)
                migrate(engine, _MIGRATIONS[name])
                engine.dispose()
            yield cls(urls, bucket, redis_url)

    def services(self, data: Path) -> dict[str, Any]:
        """Return what the services are to be run with, beside the builder's settings."""
        return {
            "databases": self.databases,
            "artifact": self._artifact(data),
            "redis_url": self.redis_url,
        }

    def _artifact(self, data: Path) -> ArtifactSettings:
        return ArtifactSettings(
            data=str(data / "artifact"),
            database_url=self.databases["artifact"],
            s3_endpoint=f"http://{self.bucket.endpoint}",
            s3_bucket=self.bucket.bucket,
            s3_access_key=self.bucket.access_key,
            s3_secret_key=self.bucket.secret_key,
        )
