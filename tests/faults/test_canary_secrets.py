"""Secrets of every kind are used, things go wrong, and none of them turns up anywhere."""

from __future__ import annotations

import os
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from cryptography.fernet import Fernet
from modelyard import Client
from modelyard.errors import ModelyardError
from psycopg import sql

from services.suite.start import free_port
from tests.e2e.production import SERVICES, ProductionSuite
from tests.e2e.suite import copy_source, until
from tests.faults.canaries import Canaries
from tests.servers.otlp import OtlpSink
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import ValkeyServer
from tests.servers.valkey import running as valkey_running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PASSWORDS = {name: f"canary-{name}-{os.urandom(16).hex()}" for name in ("postgres", "redis")}
KEYS = {name: Fernet.generate_key().decode() for name in ("builder key", "webhook key")}
BUILD_SECRET = f"canary-build-{os.urandom(16).hex()}"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
TOKENS = ("admin", "builder", "deployer", "worker", "agent")


class GuardedSuite(ProductionSuite):
    """The production-shaped suite with a password or a key wherever one can be set."""

    def __init__(
        self, folder: Path, postgres: PostgresServer, s3: S3Server, redis: str, sink: OtlpSink
    ) -> None:
        folder.mkdir()
        self.bucket = s3.fresh_bucket()
        self.metrics = {service: free_port() for service in SERVICES}
        super().__init__(folder, postgres, self.bucket, redis)
        self.environment |= {
            f"MODELYARD_{service.upper()}_DATABASE_URL": self.database(service).replace(
                "postgres@", f"postgres:{PASSWORDS['postgres']}@"
            )
            for service in SERVICES
        }
        self.environment |= {
            "MODELYARD_REDIS_URL": f"{redis}?password={PASSWORDS['redis']}",
            "MODELYARD_OTLP_ENDPOINT": sink.endpoint,
            "MODELYARD_LOG_LEVEL": "DEBUG",
            "MODELYARD_BUILDER_SECRET_KEY_FILE": self._key("builder key"),
            "MODELYARD_METADATA_WEBHOOK_KEY_FILE": self._key("webhook key"),
        }

    def database(self, service: str) -> str:
        """Return the URL of a service's database."""
        return self.environment[f"MODELYARD_{service.upper()}_DATABASE_URL"]

    def start_replica(self, service: str, port: int) -> None:
        self.environment["MODELYARD_METRICS_PORT"] = str(self.metrics[service])
        super().start_replica(service, port)
        del self.environment["MODELYARD_METRICS_PORT"]

    def _key(self, name: str) -> str:
        path = self.folder / f"{name.replace(' ', '-')}.key"
        path.write_text(KEYS[name])
        path.chmod(0o600)
        return str(path)


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A server that asks for a password."""
    with valkey_running() as server:
        with server.client() as client:
            client.config_set("requirepass", PASSWORDS["redis"])
        yield server


@pytest.fixture
def suite(
    tmp_path: Path,
    postgres_server: PostgresServer,
    s3_server: S3Server,
    valkey: ValkeyServer,
    otlp_sink: OtlpSink,
) -> Iterator[GuardedSuite]:
    """A suite full of secrets."""
    suite = GuardedSuite(tmp_path / "suite", postgres_server, s3_server, valkey.url, otlp_sink)
    suite.start()
    yield suite
    suite.stop()


@pytest.mark.parametrize("write", [str, quote, lambda s: b64encode(f"a{s}b".encode()).decode()])
def test_what_leaks_is_found(write: Callable[[str], str]) -> None:
    canaries = Canaries({"a": PASSWORDS["redis"], "b": "another/secret+one"})
    canaries.look("log", f"before {write('another/secret+one')} after".encode())
    assert canaries.found == ["b in log"]


def test_no_secret_turns_up(
    suite: GuardedSuite, valkey: ValkeyServer, otlp_sink: OtlpSink, tmp_path: Path
) -> None:
    folder = suite.folder / "tokens"
    secrets = PASSWORDS | KEYS | {"build secret": BUILD_SECRET, "S3 key": suite.bucket.secret_key}
    secrets |= {f"{name} token": (folder / f"{name}.token").read_text().strip() for name in TOKENS}
    with suite.client() as client:
        secrets["user token"] = client.tokens.create("user:eve", roles={"-": "viewer"}).secret
        canaries = Canaries(secrets)
        assert len(secrets) >= 12

        answers = _use_everything(client, suite, canaries)
        valkey.stop()  # whoever loses Redis says so in a log
        answers += _go_wrong(client, suite, secrets["user token"])
        canaries.look("responses", repr(answers).encode())
        client.artifacts.pull("guarded/1", tmp_path / "version")
        client.images.export("guarded/1", tmp_path / "image")
    canaries.look_at_files("bundle", tmp_path / "version")
    canaries.look_at_files("image", tmp_path / "image")
    _look_at_what_is_kept(suite, otlp_sink, canaries)
    assert canaries.found == []
    assert min(canaries.looked_at.values()) > 0
    print(canaries.looked_at)


def _use_everything(client: Client, suite: GuardedSuite, canaries: Canaries) -> list[object]:
    """Build with a secret that the training prints, deploy, call; look at the children."""
    client.secrets.set("canary", BUILD_SECRET)
    source = _telltale(suite.folder / "source")
    gate = suite.folder / "gate"
    order = client.builds.create(
        source, model="guarded", params={"wait_for": str(gate)}, secrets={"CANARY": "canary"}
    )
    trainers = until(lambda: suite.find("modelyard.building.train"), what="the training")
    # The build's own process holds the build's secret, and must not hold any other.
    canaries.look_at_processes("command lines", suite.find(""), environment=False)
    others = {name for name in canaries.names if name != "build secret"}
    canaries.look_at_processes("training", trainers, environment=True, names=others)
    client.builds.cancel(order.name)
    client.builds.wait(order.name, timeout=60)
    order = client.builds.create(source, model="guarded", secrets={"CANARY": "canary"})
    built = client.builds.wait(order.name, timeout=180)
    client.environments.create("guarded")
    client.deployments.deploy(built.version, environment="guarded")
    live = client.deployments.wait("guarded", environment="guarded", timeout=120)
    canaries.look_at_processes("model server", suite.find("modelyard.serving"), environment=True)
    answers = suite.predict("guarded", "guarded")
    told = list(client.builds.logs(built.name))
    assert "secret ***" in [event.log.text for event in told]
    return [built, live, answers, *told, *_everything_listed(client)]


def _telltale(folder: Path) -> Path:
    """Copy the tiny model; its training prints the secret that it was given."""
    copy_source(folder)
    model = folder / "model.py"
    telling = '        print("secret", __import__("os").environ["CANARY"], flush=True)\n'
    opening = '        print("training", flush=True)\n'
    model.write_text(model.read_text().replace(opening, opening + telling))
    return folder


def _everything_listed(client: Client) -> list[object]:
    run = client.runs.create("guarded", tags={"a": "b"})
    return [
        run,
        *client.builds.list(),
        *client.secrets.list(),
        *client.tokens.list(),
        *client.webhooks.list(),
        *client.environments.list(),
        *client.runs.search(model="guarded"),
        *client.artifacts.files("guarded/1"),
        client.tokens.introspect(),
    ]


def _go_wrong(client: Client, suite: GuardedSuite, token: str) -> list[object]:
    """Call what is refused, is not there or makes no sense; return what was answered."""
    stranger = Client(suite.address, token=token)
    garbage = Client(suite.address, token=f"{token}x")
    wrong: list[Callable[[], object]] = [
        lambda: list(stranger.tokens.list()),
        lambda: stranger.secrets.set("canary", "other"),
        lambda: garbage.models.get("guarded"),
        lambda: client.models.get("nobody"),
        lambda: client.builds.create("f" * 64, model="guarded"),
        lambda: list(client.runs.search(model="guarded", filter="(((")),
        lambda: client.webhooks.create("hook", "http://127.0.0.1:1/"),
        lambda: client.secrets.set("Not A Name", BUILD_SECRET),
    ]
    return [_refusal(call) for call in wrong]


def _refusal(call: Callable[[], object]) -> str:
    try:
        answer = call()
    except ModelyardError as error:
        return repr(error)
    raise AssertionError(f"not refused: {answer}")


def _look_at_what_is_kept(suite: GuardedSuite, sink: OtlpSink, canaries: Canaries) -> None:
    """Look at the logs, traces, metrics and databases."""
    for log in suite.folder.glob("*.log"):
        canaries.look("logs", log.read_bytes())
    canaries.look("traces", repr(sink.spans).encode())
    for port in suite.metrics.values():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            canaries.look("metrics", answer.read())
    for service in SERVICES:
        with psycopg.connect(suite.database(service)) as connection:
            for (table,) in connection.execute(TABLES).fetchall():
                whole = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
                rows = connection.execute(whole).fetchall()
                canaries.look("databases", repr(rows).encode())
