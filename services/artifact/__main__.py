"""The artifact service's composition root: `python -m services.artifact`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from modelyard.artifact.v1 import artifact_service_pb2_grpc

from services.artifact.blobs.disk import make_folder
from services.artifact.blobs.opening import open_blobs
from services.artifact.committing import FileCommitter
from services.artifact.depot import Depot
from services.artifact.holds import Holds
from services.artifact.packs import PackFolder
from services.artifact.reading import ContentReader
from services.artifact.servicer import ArtifactServicer
from services.artifact.settings import PREFIX, ArtifactSettings
from services.artifact.uploads import Uploads
from services.common.server import ServerSettings
from services.common.service import Chassis, Service, SuiteSettings, run
from services.common.settings import load_or_exit

MIGRATIONS = Path(__file__).parent / "migrations"
THREADS = 8


async def compose(chassis: Chassis) -> Service:
    """Put the service together, with settings from the environment."""
    return build(chassis, load_or_exit(ArtifactSettings, PREFIX))


def build(chassis: Chassis, settings: ArtifactSettings) -> Service:
    """Put the service together."""
    make_folder(settings.folder)
    folder = PackFolder(settings.folder / "unfinished", pack_bytes=settings.pack_bytes)
    folder.sweep(older_than_seconds=settings.temporary_seconds)
    blobs = open_blobs(settings)
    database, _ = chassis.database(settings.url, "artifact", MIGRATIONS)
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifact")
    content = ContentReader(database=database, blobs=blobs, threads=threads)
    depot = Depot(database=database, content=content, threads=threads, clock=now)
    servicer = ArtifactServicer(
        uploads=Uploads(database=database, blobs=blobs, folder=folder, threads=threads, clock=now),
        committer=FileCommitter(database=database, content=content, threads=threads, clock=now),
        depot=depot,
        holds=Holds(database=database, blobs=blobs, depot=depot, threads=threads, clock=now),
    )
    return Service(
        name="artifact",
        servicers=[(artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server, servicer)],
        close=[database.close, threads.shutdown],
    )


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


def main() -> None:
    """Run the service in its own process."""
    server = load_or_exit(ServerSettings, PREFIX)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    uvloop.run(run("artifact", [compose], server, suite))


if __name__ == "__main__":
    main()
