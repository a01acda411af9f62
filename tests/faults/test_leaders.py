"""Two replicas of the deployer, the one that drives a rollout stopped in the middle of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from modelyard import Client
from modelyard.deployer.v1 import deployment_pb2
from modelyard.errors import ModelyardError

from services.common.sql.engines import create_engine
from services.deployer.store.tables import DEPLOYMENTS
from tests.e2e.agent.conftest import register
from tests.e2e.production import SERVICES, is_serving
from tests.e2e.suite import predict, until
from tests.faults.build_storm import patient
from tests.faults.predictions import BODY, predictions
from tests.faults.replicated import ReplicatedSuite, replicated
from tests.faults.site import ENVIRONMENT, FAILED, LIVE
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]
MODEL = "led"
STOPS = int(os.environ.get("MODELYARD_LEADER_STOPS", "4"))
SETTLE_SECONDS = 30.0
LEASE = {"MODELYARD_DEPLOYER_LEASE_SECONDS": "5", "MODELYARD_DEPLOYER_TICK_SECONDS": "0.5"}
LOCKS = sa.text("SELECT pid, state, wait_event, query FROM pg_stat_activity WHERE state <> 'idle'")
ONCE = ("DEPLOY_REQUESTED", "VARIANT_STARTING", "VARIANT_READY", "TRAFFIC_SHIFTED", "LIVE")
"""What the journal says once of a revision, whoever drives it."""


@pytest.fixture
def suite(
    tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server
) -> Iterator[ReplicatedSuite]:
    """Two replicas of every service."""
    with replicated(tmp_path, postgres_server, s3_server, **LEASE) as suite:
        yield suite


class Journal(threading.Thread):
    """Follows the deployment's journal, and counts what it tells by revision and type."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.told: Counter[tuple[int, str]] = Counter()
        self._client = client

    def run(self) -> None:
        with contextlib.suppress(ValueError, ModelyardError):  # the client was closed
            for message in self._client.deployments.updates(MODEL, environment=ENVIRONMENT):
                for event in message.events:
                    self.told[event.revision, event.type] += 1


def test_a_stopped_leader_is_replaced_and_does_nothing_when_it_wakes(
    suite: ReplicatedSuite, tmp_path: Path
) -> None:
    with suite.client() as client:
        client.environments.create(ENVIRONMENT)
        both = [register(client, tmp_path, MODEL, number).name for number in (1, 2)]
        client.deployments.deploy(both[0], environment=ENVIRONMENT)
        assert client.deployments.wait(MODEL, environment=ENVIRONMENT, timeout=120).state == LIVE
        address = client.environments.get(ENVIRONMENT).address
        journal, leaders = Journal(client), Leaders(suite, client.with_options(timeout=3))
        journal.start()
        with predictions(address, MODEL) as seen:
            for turn in range(1, STOPS + 1):
                live = 1 + turn % 2
                leaders.stop_one(both[live - 1])
                assert predict(address, MODEL, BODY)["model_version"] == str(live)
        print(f"{STOPS} leaders stopped, {leaders.hits} with the rollout unfinished; the slowest")
        print(f"end after {leaders.slowest:.1f} s; {seen.total} requests, failed: {seen.failures}")
        assert seen.failures == []
        assert leaders.hits >= STOPS / 2, "too few rollouts were hit"
        until(lambda: journal.told[STOPS + 1, "LIVE"], what="the end of the journal")
        twice = {told for told, count in journal.told.items() if count > 1 and told[1] in ONCE}
        assert not twice
        # The proxy ends what goes on with a replica that hangs, long before its followers would.
        assert "fell silent" not in (suite.folder / "agent.log").read_text()


class Leaders:
    """Stops whoever drives a rollout, and looks at what is so afterwards."""

    def __init__(self, suite: ReplicatedSuite, client: Client) -> None:
        self.hits = 0
        self.slowest = 0.0
        self._suite, self._client = suite, client
        self._engine = create_engine(suite.environment["MODELYARD_DEPLOYER_DATABASE_URL"])

    def stop_one(self, version: str) -> None:
        """Stop the leader of a rollout by SIGSTOP until the rollout is over, then wake it up."""
        patient(lambda: self._client.deployments.deploy(version, environment=ENVIRONMENT))
        name, process = until(self._leader, what="a replica that drives the rollout")
        os.kill(process, signal.SIGSTOP)
        began = time.monotonic()
        try:
            self.hits += not self._is_over()
            until(self._is_over, seconds=SETTLE_SECONDS, what=f"the rollout's end without {name}")
            self.slowest = max(self.slowest, time.monotonic() - began)
        except AssertionError as error:
            error.add_note(f"{self._row(*DEPLOYMENTS.c)}")
            error.add_note(f"{self._engine.connect().execute(LOCKS).all()}")
            raise
        finally:
            before = self._generation()
            os.kill(process, signal.SIGCONT)
        until(lambda: is_serving(name), what="the stopped one to serve again")
        assert self._generation() == before, "the stopped leader did something"

    def _leader(self) -> tuple[str, int] | None:
        """Return the address and process of who drives the deployment, if anybody does."""
        row = self._row(DEPLOYMENTS.c.lease_holder, DEPLOYMENTS.c.lease_expire_time)
        if row.lease_expire_time is None or row.lease_expire_time <= datetime.now(UTC):
            return None
        for port in (self._suite.ports[SERVICES["deployer"]], self._suite.second["deployer"]):
            log = (self._suite.folder / f"deployer-{port}.log").read_text()
            if row.lease_holder in log:
                return f"127.0.0.1:{port}", self._suite._children[f"deployer-{port}"].pid
        raise AssertionError(f"nobody is {row.lease_holder}")

    def _generation(self) -> int:
        return int(self._row(DEPLOYMENTS.c.generation).generation)

    def _row(self, *columns: sa.Column[Any]) -> Any:
        with self._engine.connect() as connection:
            query = sa.select(*columns).where(DEPLOYMENTS.c.name.endswith(f"/{MODEL}"))
            return connection.execute(query).one()

    def _is_over(self) -> bool:
        found: deployment_pb2.Deployment = patient(
            lambda: self._client.deployments.get(MODEL, environment=ENVIRONMENT)
        )
        assert found.state != FAILED, found
        return found.state == LIVE and len(found.variants) == 1
