"""Every RPC called by everybody: who is let in is written here, the servers are not asked.

An RPC that lets a caller in may still refuse what it is asked, as most of these requests
ask for nothing sensible; it must not say that a right is missing, and never fails inside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from modelyard import Client
from modelyard._transport.calls import call
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import project_service_pb2

from services.common.rpc import status
from tests.protos.test_conventions import SET
from tests.rpc.metadata.conftest import Services, running, until
from tests.rpc.rights.table import rows

SECONDS = 60.0
AT_ONCE = 16
OK = (grpc.StatusCode.OK, "")
FORGED = (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIAL")
LACKING = (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING")
BUGS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED)

REFUSED = {"nobody", "empty", "basic", "garbage", "forged", "expired", "revoked", "outdated"}
MAY_READ = {"viewer", "contributor", "builder", "deployer", "admin", "root"}
MAY_READ |= {"member", "narrowed", "work"}
MAY = {
    "READ": MAY_READ,
    "WRITE": {"contributor", "builder", "deployer", "admin", "root", "work"},
    "BUILD": {"builder", "deployer", "admin", "root"},
    "DEPLOY": {"deployer", "admin", "root"},
    "ADMIN": {"admin", "root"},
    "OPERATE": {"root", "operator"},
    "AUDIT": {"root", "auditor"},
    "WORK": {"worker"},
    "CONTROL": {"agent"},
    "DELEGATE": {"service"},
    "VOUCHED": set[str](),  # the work that a service vouches for, and nobody by himself
    "anybody": MAY_READ
    | {"stranger", "operator", "auditor", "worker", "agent", "service", "former"},
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """All that a server says when it refuses a call."""

    code: grpc.StatusCode
    message: str
    details: bytes

    @property
    def verdict(self) -> tuple[grpc.StatusCode, str]:
        """Return the code and the reason."""
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(self.details).details:
            detail.Unpack(info)
        return self.code, info.reason


@dataclass(frozen=True, slots=True)
class House:
    """Running services, and what callers of every kind send."""

    address: str
    callers: Mapping[str, list[tuple[str, str]]]
    delegation: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running(tmp_path_factory.mktemp("rights")) as services, services.client() as root:
        yield _inhabited(services, root)


def _inhabited(services: Services, root: Client) -> House:
    for project in ("p", "q"):
        root.projects.create(project)
    in_p = Client(services.layout.address, token=services.token(), project="p")
    in_p.models.create("m")
    in_p.environments.create("e")
    soon = datetime.now(UTC) + timedelta(seconds=1)
    secrets = {
        role: root.tokens.create(f"user:{role}", roles={"p": role}).secret
        for role in ("viewer", "contributor", "builder", "deployer", "admin")
    }
    secrets["expired"] = root.tokens.create("user:e", roles={"p": "admin"}, expire_time=soon).secret
    secrets["stranger"] = root.tokens.create("user:s", roles={"q": "admin"}).secret
    secrets["operator"] = root.tokens.create("user:o", installation_rights=["operate"]).secret
    secrets["auditor"] = root.tokens.create("user:u", installation_rights=["audit"]).secret
    secrets["root"] = services.token()
    for principal, role in (("user:m", "viewer"), ("user:n", "admin"), ("user:f", "admin")):
        in_p.members.set(principal, role)
    secrets["member"] = root.tokens.create("user:m").secret
    secrets["narrowed"] = root.tokens.create("user:n", roles={"p": "viewer"}).secret
    secrets["former"] = root.tokens.create("user:f").secret
    in_p.members.remove("user:f")
    revoked = root.tokens.create("user:r", roles={"p": "admin"})
    root.tokens.revoke(revoked.token.name)
    secrets["revoked"] = revoked.secret
    for caller, file in (("worker", "worker"), ("agent", "agent"), ("service", "builder")):
        path = services.layout.admin_token.with_name(f"{file}.token")
        secrets[caller] = path.read_text().strip()
    with services.client(secrets["admin"]) as admin:
        secrets["work"] = _delegation(admin)
    head, body, signature = secrets["work"].split(".")
    secrets["forged"] = f"{head}.{body}.{signature[::-1]}"
    secrets["garbage"], secrets["empty"] = "myd_" + "A" * 43, ""
    # Signed by us, for somebody for whom nothing stands any more.
    secrets["outdated"] = _of_somebody_gone(services, root)
    callers = {name: [("authorization", f"Bearer {text}")] for name, text in secrets.items()}
    callers["nobody"], callers["basic"] = [], [("authorization", f"Basic {services.token()}")]
    until(lambda: time.time() > soon.timestamp())
    in_p.close()
    return House(services.layout.address, callers, secrets["work"])


def _delegation(client: Client) -> str:
    rights = [access_pb2.RIGHT_READ, access_pb2.RIGHT_WRITE]
    request = project_service_pb2.IssueDelegationRequest(
        resource="projects/p/builds/b", rights=rights
    )
    wanted = call(request, project_service_pb2.IssueDelegationResponse, lambda r: r)
    return str(client.connection.call(wanted).delegation)


def _of_somebody_gone(services: Services, root: Client) -> str:
    made = root.tokens.create("user:g", roles={"p": "admin"})
    with services.client(made.secret) as client:
        delegation = _delegation(client)
    root.tokens.revoke(made.token.name)
    return delegation


@pytest.fixture
async def channel(house: House) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(house.address) as channel:
        yield channel


def methods() -> dict[str, MethodDescriptor]:
    """Return every RPC there is, by its path, whether or not the table knows it."""
    pool = descriptor_pool.DescriptorPool()
    for file in SET.file:
        stripped = descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString())
        pool.Add(stripped)
    return {
        f"/{service.full_name}/{method.name}": method
        for file in SET.file
        if file.package.startswith("modelyard.")
        for service in (pool.FindFileByName(file.name).services_by_name.values())
        for method in service.methods
    }


METHODS = methods()
ROWS = rows()


def test_everybody_is_thought_of_and_every_rpc() -> None:
    assert set(METHODS) == set(ROWS)


def request_for(path: str, resource: str, house: House) -> bytes:
    """Return a request that names a resource, and little else."""
    message: Any = GetMessageClass(METHODS[path].input_type)()
    field, _, value = resource.partition("=")
    if field:
        *outer, last = field.split(".")
        target = message
        for part in outer:
            target = getattr(target, part)
        setattr(target, last, value)
    if path.endswith("/DeleteProject"):
        message.etag = "none"  # or it would be gone
    if path.endswith("/RenewDelegation"):
        message.delegation = house.delegation
    wire: bytes = message.SerializeToString()
    return wire


async def ask(
    channel: Any, house: House, path: str, wire: bytes, metadata: list[tuple[str, str]]
) -> Refusal | None:
    """Call an RPC and wait for the first it says; return how it was refused, if it was."""
    method = METHODS[path]
    try:
        if method.client_streaming:
            await asyncio.to_thread(_stream, house, path, wire, metadata)
        elif method.server_streaming:
            answers = channel.unary_stream(path)(wire, metadata=metadata, timeout=SECONDS)
            await answers.read()
            answers.cancel()
        else:
            await channel.unary_unary(path)(wire, metadata=metadata, timeout=SECONDS)
    except grpc.RpcError as error:
        return refusal_of(error)
    return None


def refusal_of(error: Any) -> Refusal:
    """Return what a server said."""
    details = dict(error.trailing_metadata() or ())[status.DETAILS_KEY]
    return Refusal(error.code(), error.details(), details)


def _stream(house: House, path: str, wire: bytes, metadata: list[tuple[str, str]]) -> None:
    """Send a stream of one request.

    Not with grpc.aio: when a server refuses before it reads, that loses what the server said.
    """
    channel: Any
    with grpc.insecure_channel(house.address) as channel:
        if METHODS[path].server_streaming:
            streams = channel.stream_stream(path)
            next(streams(iter([wire]), metadata=metadata, timeout=SECONDS), None)
        else:
            channel.stream_unary(path)(iter([wire]), metadata=metadata, timeout=SECONDS)


async def verdicts(
    channel: grpc.aio.Channel, house: House, caller: str
) -> dict[str, tuple[grpc.StatusCode, str]]:
    """Call every RPC as somebody."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def verdict(path: str) -> tuple[grpc.StatusCode, str]:
        resource = ROWS[path][1].replace("projects/P", "projects/p")
        async with gate:
            wire = request_for(path, resource, house)
            refusal = await ask(channel, house, path, wire, house.callers[caller])
        return OK if refusal is None else refusal.verdict

    found = await asyncio.gather(*(verdict(path) for path in ROWS))
    return dict(zip(ROWS, found, strict=True))


async def test_a_refusal_does_not_tell_what_exists(channel: grpc.aio.Channel, house: House) -> None:
    said: dict[str, set[Refusal]] = {}
    for path, (right, where) in ROWS.items():
        for resource in (
            where.replace("projects/P", "projects/p"),
            where.replace("projects/P", "projects/p").replace("models/m", "models/absent"),
            where.replace("projects/P", "projects/nowhere"),
        ):
            wire = request_for(path, resource, house)
            refusal = await ask(channel, house, path, wire, house.callers["stranger"])
            if right != "anybody":
                assert refusal is not None, path
                assert refusal.verdict == LACKING, path
                said.setdefault(path, set()).add(refusal)
    assert {path for path, answers in said.items() if len(answers) > 1} == set()


@pytest.mark.parametrize("caller", sorted(REFUSED))
async def test_who_is_nobody_is_let_in_nowhere(
    channel: grpc.aio.Channel, house: House, caller: str
) -> None:
    found = await verdicts(channel, house, caller)
    assert {path: said for path, said in found.items() if said != FORGED} == {}


@pytest.mark.parametrize("caller", sorted(MAY["anybody"]))
async def test_everybody_is_let_in_where_he_may_and_nowhere_else(
    channel: grpc.aio.Channel, house: House, caller: str
) -> None:
    found = await verdicts(channel, house, caller)
    wrong = {
        path: said
        for path, said in found.items()
        if (caller in MAY[ROWS[path][0]]) == (said == LACKING) or said == FORGED or said[0] in BUGS
    }
    assert wrong == {}
