"""How the parts of the metadata service are put together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from modelyard.metadata.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    comparison_service_pb2_grpc,
    dataset_service_pb2_grpc,
    lineage_service_pb2_grpc,
    member_service_pb2_grpc,
    model_service_pb2_grpc,
    notice_service_pb2_grpc,
    project_service_pb2_grpc,
    retention_service_pb2_grpc,
    run_service_pb2_grpc,
    signature_service_pb2_grpc,
    webhook_service_pb2_grpc,
)

from services.common.audit.servicer import AuditServicer
from services.common.audit.trail import Trail
from services.common.rpc.server import Register
from services.common.service import Chassis, Service
from services.common.settings import load_or_exit
from services.common.sql.database import Database
from services.metadata.comparisons.comparing import Comparing
from services.metadata.comparisons.servicer import ComparisonServicer
from services.metadata.comparisons.sources import Sources
from services.metadata.comparisons.trees import RemoteTrees
from services.metadata.datasets.catalogue import Catalogue
from services.metadata.datasets.servicer import DatasetServicer
from services.metadata.lineage.servicer import LineageServicer
from services.metadata.lineage.tracing import Tracing
from services.metadata.lineage.usage import Usage
from services.metadata.members.roster import Roster
from services.metadata.members.servicer import MemberServicer
from services.metadata.models import codec as model_codec
from services.metadata.models.artifacts import Holds, RemoteHolds
from services.metadata.models.evaluating import Evaluating
from services.metadata.models.lifecycle import Lifecycle
from services.metadata.models.pointing import Pointing
from services.metadata.models.registering import Registering
from services.metadata.models.registry import Registry
from services.metadata.models.releasing import Releasing
from services.metadata.models.removing import Removing
from services.metadata.models.searching import VersionSearch
from services.metadata.models.servicer import ModelServicer
from services.metadata.notices.servicer import NoticeServicer
from services.metadata.notices.telling import Telling
from services.metadata.oidc.domain import read_issuers
from services.metadata.oidc.keys import Keys
from services.metadata.oidc.verifying import Verifier
from services.metadata.projects.access import Access
from services.metadata.projects.directory import Directory
from services.metadata.projects.ending import Ending
from services.metadata.projects.servicer import ProjectServicer
from services.metadata.projects.signing import Signer, signing_key
from services.metadata.projects.token_files import register_token_files
from services.metadata.projects.uses import Uses
from services.metadata.retention.keeping import Keeping
from services.metadata.retention.servicer import RetentionServicer
from services.metadata.runs import codec as run_codec
from services.metadata.runs.history import History
from services.metadata.runs.ingesting import Ingestor
from services.metadata.runs.searching import RunSearch
from services.metadata.runs.servicer import RunServicer
from services.metadata.runs.tracker import Tracker
from services.metadata.runs.upkeep import Upkeep
from services.metadata.settings import PREFIX, MetadataSettings
from services.metadata.signatures.servicer import SignatureServicer
from services.metadata.signatures.signing import Signing
from services.metadata.watching.trimming import Trimming
from services.metadata.watching.watch import Watch
from services.metadata.webhooks.store import least_cursor
from services.metadata.webhooks.wiring import webhooks

MIGRATIONS = Path(__file__).parent / "migrations"


async def compose(chassis: Chassis, settings: MetadataSettings | None = None) -> Service:
    """Put the service together; settings are read from the environment unless given."""
    settings = settings or load_or_exit(MetadataSettings, PREFIX)
    database, bus = chassis.database(settings.database_url, "metadata", MIGRATIONS)
    trail = Trail(database=database, service="metadata")
    directory = Directory(database=database, clock=now)
    uses = Uses(database=database, clock=now, seconds=settings.use_seconds)
    access = await _access(database, directory, uses, settings)
    sweep = timedelta(seconds=settings.sweep_seconds)
    holds = RemoteHolds(chassis.peer)
    registering = _registering(database, holds, access, settings)
    releasing = Releasing(database=database, holds=holds, access=access, clock=now, interval=sweep)
    lifecycle = Lifecycle(database=database, releasing=releasing, clock=now)
    removing = Removing(database=database, clock=now, interval=sweep)
    watch = Watch(database=database, bus=bus)
    silence = timedelta(seconds=settings.heartbeat_seconds)
    tracker = Tracker(database=database, clock=now, silence=silence, interval=sweep)
    seconds, trim = settings.query_seconds, _trimming(database, settings).run_forever
    models = ModelServicer(
        registry=Registry(database=database, clock=now, encode=model_codec.resolved),
        removing=removing,
        search=VersionSearch(database=database, seconds=seconds),
        registering=registering,
        lifecycle=lifecycle,
        evaluating=Evaluating(database=database, clock=now),
        watch=watch,
        pointing=Pointing(database=database, clock=now),
    )
    runs = RunServicer(
        tracker=tracker,
        search=RunSearch(database=database, seconds=seconds, encode=run_codec.encoded),
        upkeep=Upkeep(database=database, releasing=releasing, clock=now),
        ingestor=Ingestor(database=database, clock=now),
        history=History(database=database),
        watch=watch,
    )
    hooks = await webhooks(settings, database=database, bus=bus, clock=now)
    keeping = _keeping(database, lifecycle, settings)
    ending = Ending(database=database, removing=removing, clock=now)
    projects = ProjectServicer(directory=directory, ending=ending, access=access)
    sweepers = (registering, releasing, removing, tracker)
    return Service(
        name="metadata",
        servicers=[
            (project_service_pb2_grpc.add_ProjectServiceServicer_to_server, projects),
            *_administration(database, keeping, trail),
            (model_service_pb2_grpc.add_ModelServiceServicer_to_server, models),
            (run_service_pb2_grpc.add_RunServiceServicer_to_server, runs),
            (webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server, hooks.servicer),
            *_readers(database, holds, chassis),
        ],
        background=[
            *(bus.run, trail.run, trim, uses.run_forever, keeping.run_forever, *hooks.background),
            *(sweeper.sweep_forever for sweeper in sweepers),
        ],
        trail=trail,
        close=[database.close],
        authenticator=access,
    )


def _registering(
    database: Database, holds: Holds, access: Access, settings: MetadataSettings
) -> Registering:
    """Make what takes versions in, and finishes what was left half done."""
    return Registering(
        database=database,
        holds=holds,
        access=access,
        clock=now,
        pending=timedelta(seconds=settings.pending_seconds),
        interval=timedelta(seconds=settings.sweep_seconds),
    )


def _administration(
    database: Database, keeping: Keeping, trail: Trail
) -> list[tuple[Register, object]]:
    """Make who is a member, what versions are kept and vouched for with, and who did what."""
    members = MemberServicer(roster=Roster(database=database, clock=now))
    audit = AuditServicer(trail, audit_service_pb2)
    retention = RetentionServicer(keeping=keeping)
    signatures = SignatureServicer(signing=Signing(database=database, clock=now))
    notices = NoticeServicer(telling=Telling(database=database))
    return [
        (member_service_pb2_grpc.add_MemberServiceServicer_to_server, members),
        (audit_service_pb2_grpc.add_AuditServiceServicer_to_server, audit),
        (retention_service_pb2_grpc.add_RetentionServiceServicer_to_server, retention),
        (signature_service_pb2_grpc.add_SignatureServiceServicer_to_server, signatures),
        (notice_service_pb2_grpc.add_NoticeServiceServicer_to_server, notices),
    ]


def _readers(database: Database, holds: Holds, chassis: Chassis) -> list[tuple[Register, object]]:
    """Make what looks across models and runs: data, where it led, and comparisons."""
    datasets = DatasetServicer(catalogue=Catalogue(database=database, holds=holds, clock=now))
    lineage = LineageServicer(
        usage=Usage(database=database, clock=now), tracing=Tracing(database=database)
    )
    comparing = Comparing(database=database, sources=Sources(RemoteTrees(chassis.peer)))
    comparisons = ComparisonServicer(comparing=comparing)
    return [
        (dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server, datasets),
        (lineage_service_pb2_grpc.add_LineageServiceServicer_to_server, lineage),
        (comparison_service_pb2_grpc.add_ComparisonServiceServicer_to_server, comparisons),
    ]


def _keeping(database: Database, lifecycle: Lifecycle, settings: MetadataSettings) -> Keeping:
    """Make what follows models' rules of retention."""
    return Keeping(
        database=database,
        lifecycle=lifecycle,
        clock=now,
        interval=timedelta(seconds=settings.retention_seconds),
    )


def _trimming(database: Database, settings: MetadataSettings) -> Trimming:
    """Make what forgets changes that are too old to be watched again."""
    return Trimming(
        database=database,
        clock=now,
        age=timedelta(days=settings.ledger_days),
        keep=settings.ledger_changes,
        interval=timedelta(seconds=settings.ledger_trim_seconds),
        read_until=least_cursor,
    )


async def _access(
    database: Database, directory: Directory, uses: Uses, settings: MetadataSettings
) -> Access:
    """Make sure that there is a project, a way in, and a key to sign with."""
    await directory.ensure_default_project()
    await register_token_files(Path(settings.tokens_dir), database=database, clock=now)
    lifetime = timedelta(seconds=settings.delegation_seconds)
    key = await signing_key(database, clock=now)
    issuers = [(issuer, Keys(issuer)) for issuer in read_issuers(settings.oidc_file)]
    return Access(
        database=database,
        signer=Signer(key),
        verifier=Verifier(issuers, clock=now),
        uses=uses,
        clock=now,
        lifetime=lifetime,
    )


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)
