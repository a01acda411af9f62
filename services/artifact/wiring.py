"""How the parts of the artifact service are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypedDict

from aiohttp import web
from modelyard.artifact.v1 import (
    artifact_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    format_service_pb2_grpc,
    link_service_pb2_grpc,
    storage_service_pb2_grpc,
    transfer_service_pb2_grpc,
)

from services.artifact.batches import Batches
from services.artifact.blobs import BlobStore
from services.artifact.blobs.disk import make_folder
from services.artifact.blobs.opening import open_disk, open_s3
from services.artifact.committing import FileCommitter
from services.artifact.depot import Depot
from services.artifact.domain import Lease
from services.artifact.formats.reporting import Reporting
from services.artifact.formats.servicer import FormatServicer
from services.artifact.holds import Holds
from services.artifact.http.pack_grants import PackGrants, PackReads
from services.artifact.http.reads import HttpReads
from services.artifact.http.server import HttpServer, HttpSettings
from services.artifact.links.linking import Links
from services.artifact.links.servicer import LinkServicer
from services.artifact.links.tokens import Tokens
from services.artifact.reading import ContentReader
from services.artifact.servicer import ArtifactServicer
from services.artifact.settings import PREFIX, ArtifactSettings
from services.artifact.storage import scrubbing, sweeping
from services.artifact.storage.compaction import Compaction
from services.artifact.storage.packs import PackFolder
from services.artifact.storage.scrubbing import Scrubbing
from services.artifact.storage.servicer import StorageServicer
from services.artifact.storage.spaces import Spaces
from services.artifact.storage.sweeping import Sweeping
from services.artifact.transfers.granting import Granting
from services.artifact.transfers.servicer import TransferServicer
from services.artifact.uploads import Uploads
from services.common.audit.servicer import AuditServicer
from services.common.audit.trail import Trail
from services.common.auth import Authenticator, CachingAuthenticator
from services.common.rpc.peers import RemoteAuthenticator
from services.common.safe_start import check_folder, check_secret
from services.common.service import Chassis, Service
from services.common.settings import load_or_exit
from services.common.sql.database import Database

_add_formats = format_service_pb2_grpc.add_FormatServiceServicer_to_server
_add_transfers = transfer_service_pb2_grpc.add_TransferServiceServicer_to_server
MIGRATIONS = Path(__file__).parent / "migrations"
THREADS = 8


async def compose(chassis: Chassis, settings: ArtifactSettings | None = None) -> Service:
    """Put the service together; settings are read from the environment unless given."""
    settings = settings or load_or_exit(ArtifactSettings, PREFIX)
    check_secret("the secret key of S3", settings.s3_secret_key)
    check_folder(settings.folder)
    make_folder(settings.folder)
    folder = PackFolder(settings.folder / "unfinished", pack_bytes=settings.pack_bytes)
    folder.sweep(older_than_seconds=settings.temporary_seconds)
    database, _ = chassis.database(settings.url, "artifact", MIGRATIONS)
    trail = Trail(database=database, service="artifact")
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifact")
    server = HttpServer(_http(settings))
    tokens = Tokens(database=database, clock=now)
    blobs, routes = _open(settings, server, tokens)
    lease = Lease(timedelta(seconds=settings.lease_seconds))
    store: _Store = {"database": database, "threads": threads, "clock": now}
    content = ContentReader(database=database, blobs=blobs, threads=threads)
    depot = Depot(**store, content=content, lease=lease)
    scrub = Scrubbing(
        **store, blobs=blobs, content=content, depot=depot, pace=_scrub_pace(settings)
    )
    compaction = Compaction(**store, blobs=blobs, folder=folder, share=settings.compact_share)
    pace = _sweep_pace(settings)
    sweep = Sweeping(**store, blobs=blobs, folder=folder, compaction=compaction, pace=pace)
    artifacts = ArtifactServicer(
        uploads=Uploads(**store, blobs=blobs, folder=folder, lease=lease),
        committer=FileCommitter(**store, content=content, lease=lease),
        depot=depot,
        batches=Batches(database=database, depot=depot, content=content),
        holds=Holds(**store, blobs=blobs, depot=depot, lease=lease),
    )
    storage = StorageServicer(sweeping=sweep, scrubbing=scrub, spaces=Spaces(database=database))
    reporting = Reporting(database=database, blobs=blobs, depot=depot, threads=threads)
    granting = Granting(**store, blobs=blobs, depot=depot, lease=lease)
    links = Links(tokens=tokens, depot=depot, clock=now, base=server.url)
    files = HttpReads(server, depot=depot, links=links, authenticator=_authenticator(chassis))
    return Service(
        name="artifact",
        servicers=[
            (
                audit_service_pb2_grpc.add_AuditServiceServicer_to_server,
                AuditServicer(trail, audit_service_pb2),
            ),
            (artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server, artifacts),
            (storage_service_pb2_grpc.add_StorageServiceServicer_to_server, storage),
            (link_service_pb2_grpc.add_LinkServiceServicer_to_server, LinkServicer(links=links)),
            (_add_formats, FormatServicer(reporting=reporting)),
            (_add_transfers, TransferServicer(granting=granting)),
        ],
        background=[
            trail.run,
            sweep.run_forever,
            scrub.run_forever,
        ],
        doors=[partial(server.run_forever, [*files.routes(), *routes])],
        trail=trail,
        close=[database.close, threads.shutdown],
    )


def _open(
    settings: ArtifactSettings, server: HttpServer, tokens: Tokens
) -> tuple[BlobStore, Sequence[web.RouteDef]]:
    """Open where packs lie; and what is served over HTTP for others to reach single ones."""
    if settings.s3_endpoint:
        return open_s3(settings), ()
    if not server.url:
        return open_disk(settings), ()
    grants = PackGrants(tokens=tokens, clock=now, base=server.url)
    blobs = open_disk(settings, grants)
    return blobs, PackReads(server, grants=grants, blobs=blobs).routes()


class _Store(TypedDict):
    """What all use cases share, by the names of their parameters."""

    database: Database
    threads: Executor
    clock: Callable[[], datetime]


def _http(settings: ArtifactSettings) -> HttpSettings:
    return HttpSettings(
        settings.http_listen,
        settings.http_tls_certificate,
        settings.http_tls_key,
        settings.http_url,
    )


def _authenticator(chassis: Chassis) -> Authenticator:
    """Make what knows whom a bearer token stands for; gRPC's own is the chassis' concern."""
    return CachingAuthenticator(RemoteAuthenticator(chassis.peer))


def _sweep_pace(settings: ArtifactSettings) -> sweeping.Pace:
    return sweeping.Pace(
        interval=timedelta(seconds=settings.sweep_seconds),
        grace=timedelta(seconds=settings.grace_seconds),
        unfinished=timedelta(seconds=settings.lease_seconds),
        temporary=timedelta(seconds=settings.temporary_seconds),
    )


def _scrub_pace(settings: ArtifactSettings) -> scrubbing.Pace:
    period = timedelta(days=settings.scrub_days)
    return scrubbing.Pace(settings.scrub_bytes_per_second, period)


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)
