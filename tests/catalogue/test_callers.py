"""The catalogue of bad input: calls, credentials, orders and deployments, with its side checks.

All four services on one port; what differs by database or store has its tables beside their tests.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard import AsyncClient
from modelyard.builder.v1 import build_pb2, build_service_pb2
from modelyard.deployer.v1 import (
    deployment_service_pb2,
    environment_pb2,
    rollout_pb2,
)
from modelyard.metadata.v1 import (
    member_pb2,
    member_service_pb2,
    model_pb2,
    model_service_pb2,
    project_pb2,
    project_service_pb2,
    run_service_pb2,
    webhook_pb2,
    webhook_service_pb2,
)

from services.builder.settings import BuilderSettings
from services.common.logs import JsonFormatter
from tests.catalogue.sides import (
    DENIED,
    FORGED,
    INVALID,
    OK,
    TOO_MUCH,
    WRONG_STATE,
    Answer,
    Sides,
    as_bytes,
    bearer,
    changed,
    fingerprint,
    refusal,
)
from tests.contract.builder.stack import running

METADATA, BUILDER = "modelyard.metadata.v1.", "modelyard.builder.v1."
DEPLOYER, ARTIFACT = "modelyard.deployer.v1.", "modelyard.artifact.v1."
PROJECT = "projects/default"
MODEL = f"{PROJECT}/models/churn"
GET_MODEL = f"{METADATA}ModelService/GetModel"
CREATE_MODEL = f"{METADATA}ModelService/CreateModel"
WHO = f"{METADATA}ProjectService/IntrospectCredential"
ORDER = f"{BUILDER}BuildService/CreateBuild"
DEPLOY = f"{DEPLOYER}DeploymentService/DeployVersion"
HOOK = f"{METADATA}WebhookService/CreateWebhook"
GET = model_service_pb2.GetModelRequest(name=MODEL)
EVERYWHERE = (
    GET_MODEL,
    CREATE_MODEL,
    ORDER,
    DEPLOY,
    f"{ARTIFACT}ArtifactService/FindMissing",
    f"{DEPLOYER}EnvironmentService/ListEnvironments",
)
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


@dataclass(frozen=True, slots=True)
class Town:
    """Running services, and the credentials of some who call them."""

    address: str
    channel: Any
    """Untyped: what it carries are bytes."""
    data: Path
    secrets: dict[str, str]
    source: str
    nan: str
    """A version whose accuracy is not a number."""

    async def call(self, path: str, request: Any, *, who: str = "admin", **sent: Any) -> Answer:
        """Call an RPC; `metadata` instead of a credential, a `timeout` instead of ten seconds."""
        metadata = sent.get("metadata", bearer(self.secrets.get(who, "")))
        started = time.monotonic()
        call = self.channel.unary_unary(f"/{path}")
        try:
            answer = await call(
                as_bytes(request), metadata=metadata, timeout=sent.get("timeout", 10)
            )
        except grpc.aio.AioRpcError as error:
            return refusal(error, time.monotonic() - started)
        return Answer(OK, told=repr(answer), seconds=time.monotonic() - started)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    data = tmp_path / "data"
    data.mkdir()
    settings = BuilderSettings(database_url=f"sqlite:///{data / 'builder.db'}", tick_seconds=0.5)
    async with (
        running(data, builder=settings, calendar=lambda: datetime.now(UTC)) as stack,
        stack.client() as client,
        grpc.aio.insecure_channel(stack.address) as channel,
    ):
        secrets = {"admin": stack.token("admin"), "worker": stack.token("worker")}
        for role in ("viewer", "contributor"):
            made = await client.tokens.create(f"user:{role}", roles={"default": role})
            secrets[role] = made.secret
        source, nan = await furnished(client, channel, bearer(secrets["admin"]), tmp_path)
        yield Town(stack.address, channel, data, secrets, source, nan)


async def furnished(
    client: AsyncClient, channel: Any, metadata: Any, folder: Path
) -> tuple[str, str]:
    """Make a model, a source, a version with a metric that is NaN, and a gate that wants it."""
    (folder / "model.py").write_text("x = 1")
    source = (await client.artifacts.push(folder / "model.py")).name
    await client.models.create("churn")
    run = await client.runs.create("churn")
    batch = run_service_pb2.IngestRunDataRequest(run=run.name, writer="w", end_sequence=1)
    batch.metrics.add(key="accuracy", steps=[0], times_us=[1], values=[math.nan])
    ingest = channel.stream_stream(f"/{METADATA}RunService/IngestRunData")
    sent = ingest(iter([batch.SerializeToString()]), metadata=metadata)
    assert [answer async for answer in sent]
    version = await client.versions.create("churn", artifact=source, run=run.name)
    wanted = environment_pb2.MetricThreshold(
        metric="accuracy", threshold=0.5, goal=model_pb2.METRIC_GOAL_MAXIMIZE
    )
    gate = environment_pb2.Gate(gate_id="good", metric_threshold=wanted)
    await client.environments.create("gated", gates=[gate])
    await client.environments.create("open")
    return source, version.name


def model(model_id: str, **fields: Any) -> model_service_pb2.CreateModelRequest:
    return model_service_pb2.CreateModelRequest(
        parent=PROJECT, model_id=model_id, model=model_pb2.Model(**fields)
    )


def build(town: Town, **fields: Any) -> build_service_pb2.CreateBuildRequest:
    if "git" not in fields:
        fields["source"] = town.source
    spec = build_pb2.BuildSpec(**fields)
    found = build_pb2.Build(model=MODEL, spec=spec)
    return build_service_pb2.CreateBuildRequest(parent=PROJECT, build=found)


def git(**fields: str) -> build_pb2.GitSource:
    return build_pb2.GitSource(**{"url": "https://git.example/x.git", **fields})


def deploy(town: Town, environment: str = "open", **fields: Any) -> Any:
    parent = f"{PROJECT}/environments/{environment}"
    return deployment_service_pb2.DeployVersionRequest(parent=parent, version=town.nan, **fields)


def hook(url: str) -> webhook_service_pb2.CreateWebhookRequest:
    return webhook_service_pb2.CreateWebhookRequest(
        parent=PROJECT, webhook_id="hook", webhook=webhook_pb2.Webhook(url=url)
    )


def steps(*weights: int, error_rate: float | None = None) -> rollout_pb2.RolloutPlan:
    analysis = rollout_pb2.RolloutAnalysis(min_request_count=1, max_error_rate=error_rate)
    return rollout_pb2.RolloutPlan(
        steps=[rollout_pb2.RolloutStep(weight=weight) for weight in weights],
        analysis=analysis if error_rate is not None else None,
    )


def role(principal: str) -> member_service_pb2.SetMemberRequest:
    member = member_pb2.Member(principal=principal, role=project_pb2.ROLE_ADMIN)
    return member_service_pb2.SetMemberRequest(parent=PROJECT, member=member)


Case = tuple[str, str, Callable[[Town], Any], dict[str, Any], set[grpc.StatusCode], str]


def case(
    name: str,
    path: str,
    request: Any,
    allowed: set[grpc.StatusCode],
    reason: str = "",
    **sent: Any,
) -> Case:
    make = request if callable(request) else lambda _: request
    return name, path, make, sent, allowed, reason


SHELL = ("; touch MARK", "$(touch MARK)", "`touch MARK`", "a\ntouch MARK", "a && touch MARK")
CANCELLED = {grpc.StatusCode.DEADLINE_EXCEEDED, OK}
CASES: list[Case] = [
    *(
        case("Z01", path, b"", {FORGED}, "INVALID_CREDENTIAL", metadata=metadata)
        for path in EVERYWHERE
        for metadata in (
            [],
            [("authorization", "Bearer ")],
            [("authorization", "Bearer")],
            [("authorization", "Basic YWRtaW46YWRtaW4=")],
            [("authorization", "Bearer " + "x" * 5_000)],
            [("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")],
        )
    ),
    *(
        case("Z06", path, request, {DENIED}, "RIGHT_MISSING", who="viewer")
        for path, request in (
            (CREATE_MODEL, model("other")),
            (ORDER, build),
            (DEPLOY, deploy),
            (HOOK, hook("https://hooks.example/")),
        )
    ),
    case("Z11", f"{METADATA}MemberService/SetMember", role("user:contributor"), {DENIED},
         "RIGHT_MISSING", who="contributor"),
    case("Z10", f"{METADATA}ProjectService/RenewDelegation", b"", {DENIED, INVALID}),
    case("Z10", f"{BUILDER}WorkerService/LeaseBuild", b"", {DENIED}, "RIGHT_MISSING", who="viewer"),
    case("Z10", GET_MODEL, GET, {DENIED}, "RIGHT_MISSING", who="worker"),
    case("T01", CREATE_MODEL, bytes(5 * 2**20), {TOO_MUCH}),
    *(
        case("T02", GET_MODEL, GET, {TOO_MUCH}, extra=extra)
        for extra in ([("x-big", "v" * 20_480)], [(f"x-{n}", "v" * 20) for n in range(1_000)])
    ),
    *(
        case("T03", path, raw, {INVALID}, "MALFORMED_REQUEST")
        for path in EVERYWHERE
        for raw in (b"\xff\xff\xff", b"\x0a\x7f", b"\x0b" * 200)
    ),
    *(
        case("T04", path, b"", {UNIMPLEMENTED})
        for path in (
            f"{METADATA}ModelService/Nothing",
            "no.such.Service/Get",
            "a%0Ab/c",
            "x" * 2_000 + "/y",
        )
    ),
    case("T05", GET_MODEL, GET, {OK}, timeout=None),
    case("T05", GET_MODEL, GET, {OK}, timeout=10 * 365 * 86_400),
    case("T05", GET_MODEL, GET, CANCELLED, timeout=0.001),
    *(
        case("T13", path, b"", {UNIMPLEMENTED})
        for path in (
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "grpc.channelz.v1.Channelz/GetServers",
            "envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus",
        )
    ),
    *(
        case("B01", ORDER, lambda town, f=fields: build(town, **f), {INVALID})
        for text in SHELL
        for fields in (
            {"entry": text},
            {"python_version": text},
            {"git": git(ref=text)},
            {"git": git(url=f"https://git.example/{text}")},
            {"pool": text},
            {"group": text},
            {"aliases": [text]},
            {"variables": {text: "x"}},
        )
    ),
    *(
        case("B02", ORDER, lambda town, n=name: build(town, variables={n: "x"}), {INVALID},
             "INVALID_FIELD")
        for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PATH", "BASH_ENV", "A=B", "")
    ),
    *(
        case("B08", ORDER, lambda town, u=url: build(town, git=git(url=u)), {INVALID},
             "INVALID_FIELD")
        for url in (
            "http://169.254.169.254/latest",
            "https://[fe80::1]/x",
            "https://[::ffff:169.254.169.254]/",
            "https://0.0.0.0/x",
            "file:///etc",
            "gopher://git.example/x",
            "ext::sh -c id",
            "ssh://git@git.example/x",
        )
    ),
    *(
        case("B08", HOOK, hook(url), {INVALID}, "INVALID_FIELD")
        for url in (
            "http://169.254.169.254/latest/meta-data",
            "https://169.254.169.254/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
        )
    ),
    *(
        case("B10", DEPLOY, lambda town, p=plan: deploy(town, plan=p), {INVALID}, "INVALID_FIELD")
        for plan in (
            steps(-1, 100),
            steps(101),
            steps(0, 100),
            steps(50),
            steps(60, 40),
            steps(10, 100, error_rate=math.nan),
            steps(10, 100, error_rate=-0.1),
        )
    ),
    *(
        case("B11", DEPLOY, lambda town, s=spec: deploy(town, serving=s), {INVALID},
             "INVALID_FIELD")
        for spec in (
            rollout_pb2.ServingSpec(replica_count=2**31 - 1),
            rollout_pb2.ServingSpec(replica_count=-1),
            rollout_pb2.ServingSpec(concurrency=2**31 - 1),
            rollout_pb2.ServingSpec(queue_size=-1),
            rollout_pb2.ServingSpec(cpu_cores=math.nan),
            rollout_pb2.ServingSpec(cpu_cores=math.inf),
            rollout_pb2.ServingSpec(memory_bytes=-1),
        )
    ),
]  # fmt: skip
# Told to the environment's history, so the databases change.
NAN = case("V06", DEPLOY, lambda town: deploy(town, "gated"), {WRONG_STATE}, "GATE_REFUSED")


async def test_every_case_ends_as_it_must(town: Town, tmp_path: Path) -> None:
    await asyncio.gather(*(town.call(GET_MODEL, GET) for _ in range(100)))
    sides = Sides(tmp_path / "canaries", tuple(town.secrets.values()))
    before = await asyncio.to_thread(fingerprints, town.data)
    wrong = [problem for one in CASES for problem in await tried(sides, town, one)]
    after = await asyncio.to_thread(fingerprints, town.data)
    wrong += [*changed(before, after), *await tried(sides, town, NAN), *sides.compare(files=15)]
    made = await asyncio.to_thread(lambda: list(tmp_path.rglob("MARK*")))
    wrong += [f"{path} was made" for path in made]
    assert wrong == [], "\n".join(wrong)


async def tried(sides: Sides, town: Town, one: Case) -> list[str]:
    """Return what is wrong with how a case ended."""
    name, path, make, sent, allowed, reason = one
    if "extra" in sent:
        sent = {"metadata": [*bearer(town.secrets["admin"]), *sent["extra"]]}
    answer = await town.call(path, make(town), **sent)
    wrong = sides.judge(f"{name} {path}", answer)
    if answer.code not in allowed or (reason and answer.reason != reason):
        wrong.append(f"{name} {path}: {answer.code.name} {answer.reason} {answer.told[:300]}")
    if (await town.call(GET_MODEL, GET)).code is not OK:
        wrong.append(f"{name} {path}: a good call is not answered afterwards")
    return wrong


def fingerprints(data: Path) -> dict[str, str]:
    """Return digests of the tables of all services; loops of their own may change a few."""
    found: dict[str, str] = {}
    for name in ("metadata", "builder", "deployer"):
        tables = fingerprint(f"sqlite:///{data / name}.db")
        found |= {f"{name}.{table}": digest for table, digest in tables.items()}
    return found


async def test_nobody_speaks_for_somebody_else(town: Town) -> None:
    """Z01, Z08, Z09: of two credentials none counts, and no other header says anything."""
    mine = bearer(town.secrets["viewer"])
    for two in (mine + bearer(town.secrets["admin"]), mine + mine):
        answer = await town.call(WHO, b"", metadata=two)
        assert (answer.code, answer.reason) == (FORGED, "INVALID_CREDENTIAL")
    claims = {
        "x_principal": "user:admin",
        "x_forwarded_user": "user:admin",
        "x_namespace": "default",
        "baggage": "principal=user:admin",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "x_forwarded_client_cert": "URI=spiffe://modelyard/worker",
        "grpc_internal_encoding_request": "x",
    }
    metadata = bearer(town.secrets["viewer"], **claims)
    raw = await town.channel.unary_unary(f"/{WHO}")(b"", metadata=metadata, timeout=10)
    told = project_service_pb2.IntrospectCredentialResponse.FromString(raw)
    assert told.principal == "user:viewer"
    answer = await town.call(CREATE_MODEL, model("mine"), metadata=metadata)
    assert (answer.code, answer.reason) == (DENIED, "RIGHT_MISSING")

    await a_captured_call_is_worth_nothing_to_others(town)


async def a_captured_call_is_worth_nothing_to_others(town: Town) -> None:
    """Z09: the same request id from somebody else is another call."""
    request = model("captured", description="what only the first may see")
    request.request_id = "3e0f62a4-8f0c-4a55-9a5e-2f1f0a6f1b11"
    assert (await town.call(CREATE_MODEL, request)).code is OK
    assert (await town.call(CREATE_MODEL, request)).code is OK
    viewer = await town.call(CREATE_MODEL, request, who="viewer")
    assert (viewer.code, viewer.reason) == (DENIED, "RIGHT_MISSING")
    other = await town.call(CREATE_MODEL, request, who="contributor")
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    assert "only the first" not in viewer.told + other.told


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_guesses_harm_nobody_and_are_not_written_down(town: Town, count: int) -> None:
    """L02, Z12: many bad tokens from one peer, and texts that would forge a record of the log."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logging.getLogger("services").addHandler(handler)
    level = logging.getLogger("services").level
    logging.getLogger("services").setLevel(logging.DEBUG)
    try:
        for first in range(0, count, 100):
            guesses = [f"myd_guess{number:06}\u001b[2J" for number in range(first, first + 100)]
            sent = [[("authorization", f"Bearer {guess[:15]}")] for guess in guesses]
            answers = await asyncio.gather(
                town.call(GET_MODEL, GET), *(town.call(WHO, b"", metadata=one) for one in sent)
            )
            assert answers[0].code is OK
            assert {answer.code for answer in answers[1:]} == {FORGED}
        forged = '\n{"level":"INFO","message":"rpc"}\r\x1b[2J'
        await town.call(CREATE_MODEL, model("logged", description=forged))
        await town.call(GET_MODEL, model_service_pb2.GetModelRequest(name=forged))
    finally:
        logging.getLogger("services").removeHandler(handler)
        logging.getLogger("services").setLevel(level)
    written = lines.getvalue()
    assert written
    for line in written.splitlines():
        assert json.loads(line)["logger"].startswith("services")
    assert not [secret for secret in town.secrets.values() if secret in written]
    assert "myd_guess" not in written
