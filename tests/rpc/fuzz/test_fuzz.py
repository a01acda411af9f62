"""Every RPC of every service, called with whatever its descriptor allows: only documented ends."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import pkgutil
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from modelyard import AsyncClient

from services.artifact import __main__ as artifact
from services.artifact.settings import ArtifactSettings
from services.builder import wiring as builder
from services.builder.settings import BuilderSettings
from services.common.rpc.methods import Method, methods_of
from services.common.sql.engines import create_engine, migrate
from services.deployer import wiring as deployer
from services.metadata import wiring as metadata
from tests.contract.builder.stack import running
from tests.rpc.fuzz.shapes import Shapes
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Bucket
from tests.servers.valkey import ValkeyServer

SEED = int(os.environ.get("MODELYARD_FUZZ_SEED", "20261128"))
LANES = 8
UNARY_SECONDS = 20.0
STREAM_SECONDS = 0.3
MESSAGES = 5
FORBIDDEN = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
WAITING = {"LeaseBuild", "ExtendLease"}
"""They wait for as long as they are asked to."""
BROKEN_OFF = "Internal error from Core"
"""The client's own word for a message that came too late for a stream the server had ended."""
EVERY_RIGHT = ("operate", "audit", "work", "control", "delegate")


def every_method() -> dict[str, Method]:
    """Find all RPCs by the descriptors of the generated modules."""
    found: dict[str, Method] = {}
    for package in ("metadata", "artifact", "builder", "deployer"):
        home = importlib.import_module(f"modelyard.{package}.v1")
        for module in pkgutil.iter_modules(home.__path__):
            if module.name.endswith("_service_pb2"):
                generated = importlib.import_module(f"{home.__name__}.{module.name}")
                for service in generated.DESCRIPTOR.services_by_name.values():
                    found |= methods_of(service)
    return found


@dataclass
class Errors(logging.Handler):
    """What servers logged as internal errors, with where."""

    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter().format(record)[-1_500:])

    __hash__ = object.__hash__


@dataclass
class Fuzz:
    """Calls, and what came of them."""

    channel: Any
    """Untyped: what it carries are bytes."""
    credential: str
    shapes: Shapes
    codes: Counter[str] = field(default_factory=Counter)
    called: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    async def call(self, method: Method) -> None:
        """Call a method once, and judge how it ended."""
        started, code, details = time.monotonic(), grpc.StatusCode.OK, ""
        self.called[method.full_name] += 1
        try:
            await (self._stream(method) if method.is_stream else self._unary(method))
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
        self.codes[code.name] += 1
        took = time.monotonic() - started
        hung = code is grpc.StatusCode.DEADLINE_EXCEEDED and not method.is_stream
        waits = method.full_name.rpartition("/")[2] in WAITING
        if details == BROKEN_OFF:
            return
        if code in FORBIDDEN or (hung and not waits):
            self.bad.append(f"{method.full_name}: {code.name} {details} after {took:.1f} s")

    async def answers(self) -> bool:
        """Say whether a good call is still answered."""
        path = "/modelyard.metadata.v1.ProjectService/IntrospectCredential"
        raw = await self.channel.unary_unary(path)(b"", metadata=self._metadata, timeout=5)
        return b"user:fuzz" in raw

    async def _unary(self, method: Method) -> None:
        waits = method.full_name.rpartition("/")[2] in WAITING
        answer = await self.channel.unary_unary(method.full_name)(
            self.shapes.request(method.request_class),
            metadata=self._metadata,
            timeout=STREAM_SECONDS if waits else UNARY_SECONDS,
        )
        self._learn(method, answer)

    async def _stream(self, method: Method) -> None:
        async def requests() -> AsyncIterator[bytes]:
            for _ in range(self.shapes.dice.randint(0, 4)):
                yield self.shapes.request(method.request_class)

        options: Any = {"metadata": self._metadata, "timeout": STREAM_SECONDS}
        if method.client_streaming and not method.server_streaming:
            answer = await self.channel.stream_unary(method.full_name)(requests(), **options)
            self._learn(method, answer)
            return
        if method.client_streaming:
            call = self.channel.stream_stream(method.full_name)(requests(), **options)
        else:
            request = self.shapes.request(method.request_class)
            call = self.channel.unary_stream(method.full_name)(request, **options)
        count = 0
        async for answer in call:
            self._learn(method, answer)
            count += 1
            if count == MESSAGES:
                call.cancel()
                return

    def _learn(self, method: Method, answer: bytes) -> None:
        service, _, name = method.full_name[1:].partition("/")
        described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        kind = message_factory.GetMessageClass(described.output_type)
        self.shapes.learn(kind.FromString(answer))

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.credential}"),)


async def seeded(client: AsyncClient, folder: Path) -> list[Any]:
    """Make something of each kind, for requests to be about."""
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"weights" * 100)
    made = [await client.models.create("churn"), await client.projects.get()]
    made.append(artifact := await client.artifacts.push(folder / "model"))
    made += [await client.versions.create("churn", artifact=artifact.name) for _ in range(2)]
    made.append(await client.aliases.set("churn", "production", version=1))
    made.append(await client.environments.create("staging"))
    return made


LONG = int(os.environ.get("MODELYARD_FUZZ_SECONDS", "300"))
SLOW = [pytest.mark.slow, pytest.mark.timeout(3_600)]


@pytest.mark.parametrize(
    ("place", "seconds"),
    [
        pytest.param("sqlite", 5, id="short"),
        pytest.param("sqlite", LONG, id="sqlite", marks=SLOW),
        pytest.param("postgresql", LONG, id="postgresql", marks=SLOW),
    ],
)
async def test_whatever_is_asked_the_end_is_documented(
    place: str, seconds: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    kept = request.getfixturevalue("production") if place == "postgresql" else on_disk(data)
    methods = list(every_method().values())
    with listening() as errors:
        async with (
            running(data, calendar=_now, **kept) as stack,
            stack.client() as client,
            grpc.aio.insecure_channel(stack.address) as channel,
        ):
            made = await seeded(client, tmp_path)
            token = await client.tokens.create(
                "user:fuzz", roles={"-": "admin"}, installation_rights=EVERY_RIGHT
            )
            shapes = Shapes(random.Random(SEED), token.token.name)  # noqa: S311
            fuzz = Fuzz(channel, token.secret, shapes)
            for one in made:
                if hasattr(one, "ListFields"):
                    shapes.learn(one)
            end = time.monotonic() + seconds
            await asyncio.gather(*(lane(fuzz, methods, end) for _ in range(LANES)))
            assert await fuzz.answers()
    total = sum(fuzz.codes.values())
    print(f"{total} calls of {len(fuzz.called)} RPCs, seed {SEED}: {dict(fuzz.codes)}")
    assert fuzz.bad == [], "\n".join([*fuzz.bad[:20], *errors.seen[:10]])
    assert errors.seen == []
    assert len(fuzz.called) == len(methods)


def on_disk(data: Path) -> dict[str, Any]:
    """Say where services keep things: SQLite and a folder."""
    url = f"sqlite:///{data / 'builder.db'}"
    return {"builder": BuilderSettings(database_url=url, tick_seconds=0.5)}


@pytest.fixture
def production(
    postgres_server: PostgresServer, s3_bucket: S3Bucket, valkey: ValkeyServer, tmp_path: Path
) -> Iterator[dict[str, Any]]:
    """Say where services keep things: PostgreSQL, S3 and Redis."""
    homes = {"metadata": metadata, "artifact": artifact, "builder": builder, "deployer": deployer}
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(postgres_server.database()) for name in homes}
        for name, home in homes.items():
            engine = create_engine(urls[name])
            migrate(engine, home.MIGRATIONS)
            engine.dispose()
        bytes_settings = ArtifactSettings(
            data=str(tmp_path / "artifact"),
            database_url=urls["artifact"],
            s3_endpoint=f"http://{s3_bucket.endpoint}",
            s3_bucket=s3_bucket.bucket,
            s3_access_key=s3_bucket.access_key,
            s3_secret_key=s3_bucket.secret_key,
        )
        builds = BuilderSettings(database_url=urls["builder"], tick_seconds=0.5)
        yield {
            "builder": builds,
            "artifact": bytes_settings,
            "databases": urls,
            "redis_url": valkey.url,
        }


async def lane(fuzz: Fuzz, methods: list[Method], end: float) -> None:
    """Call method after method until the time is over, all of them once at least."""
    while time.monotonic() < end or len(fuzz.called) < len(methods):
        missing = [m for m in methods if m.full_name not in fuzz.called]
        await fuzz.call(fuzz.shapes.dice.choice(missing or methods))


@contextlib.contextmanager
def listening() -> Iterator[Errors]:
    """Hear what servers log as errors."""
    handler = Errors()
    logging.getLogger("services").addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger("services").removeHandler(handler)


def _now() -> datetime:
    return datetime.now(UTC)
