"""How the parts of the deployer are put together."""

from __future__ import annotations

from pathlib import Path

from modelyard.deployer.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    controller_service_pb2_grpc,
    deployment_service_pb2_grpc,
    environment_service_pb2_grpc,
)

from services.common.audit.servicer import AuditServicer
from services.common.audit.trail import Trail
from services.common.own_token import OwnToken
from services.common.service import Chassis, Service
from services.common.settings import load_or_exit
from services.deployer.artifacts import Artifacts
from services.deployer.controllers.assignments import Assignments
from services.deployer.controllers.delegations import Delegations
from services.deployer.controllers.sampling import Samples
from services.deployer.controllers.servicer import ControllerServicer
from services.deployer.environments.approvals import Approvals
from services.deployer.environments.environments import Environments
from services.deployer.environments.evidence import Witness
from services.deployer.environments.servicer import EnvironmentServicer
from services.deployer.metadata import Metadata
from services.deployer.reading import Reading
from services.deployer.rollouts.reconciler import Reconciler
from services.deployer.rollouts.rollout import Rollout
from services.deployer.rollouts.trimming import Trimming
from services.deployer.servicer import DeploymentServicer
from services.deployer.settings import PREFIX, DeployerSettings

MIGRATIONS = Path(__file__).parent / "migrations"


async def compose(chassis: Chassis, settings: DeployerSettings | None = None) -> Service:
    """Put the service together; settings are read from the environment unless given."""
    settings = settings or load_or_exit(DeployerSettings, PREFIX)
    token = OwnToken(settings.token_file)
    database, bus = chassis.database(settings.database_url, "deployer", MIGRATIONS)
    trail = Trail(database=database, service="deployer")
    metadata = Metadata(chassis.peer, token)
    delegations = Delegations(database, metadata, renew_hours=settings.renew_hours)
    reconciler = Reconciler(
        database, bus, metadata=metadata, delegations=delegations, settings=settings
    )
    witness = Witness(database, metadata, Artifacts(chassis.peer))
    rollout = Rollout(database, metadata, witness)
    deployments = DeploymentServicer(rollout, Reading(database, bus))
    environments = EnvironmentServicer(
        Environments(database, metadata), Approvals(database, metadata)
    )
    controllers = ControllerServicer(
        Assignments(database, bus, delegations), Samples(database, metadata, delegations)
    )
    return Service(
        name="deployer",
        servicers=[
            (
                audit_service_pb2_grpc.add_AuditServiceServicer_to_server,
                AuditServicer(trail, audit_service_pb2),
            ),
            (deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server, deployments),
            (environment_service_pb2_grpc.add_EnvironmentServiceServicer_to_server, environments),
            (controller_service_pb2_grpc.add_ControllerServiceServicer_to_server, controllers),
        ],
        background=[bus.run, trail.run, reconciler.run, delegations.run, Trimming(database).run],
        trail=trail,
        close=[database.close],
    )
