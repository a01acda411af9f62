"""A real artifact service for tests: the chassis' server on port 0, fixed tokens."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import grpc
from modelyard.artifact.v1 import artifact_service_pb2_grpc

from services.artifact.settings import PREFIX, ArtifactSettings
from services.artifact.wiring import compose
from services.common.auth import Identity, Right, invalid_credential
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer
from services.common.rpc.server import Server, ServerSettings
from services.common.service import Chassis, SuiteSettings
from services.common.settings import load
from services.common.telemetry import Telemetry

if TYPE_CHECKING:
    Stub = artifact_service_pb2_grpc.ArtifactServiceAsyncStub
else:  # the generated module itself has one stub for both
    Stub = artifact_service_pb2_grpc.ArtifactServiceStub

NOBODY = "127.0.0.1:9"
"""Where no suite is; at its own address one may be, which belongs to no test."""
TOKENS = {"alpha-token": "alpha", "beta-token": "beta"}


class FixedTokens:
    """Knows one token a project, each with the rights to read and write there."""

    async def introspect(self, credential: str) -> Identity:
        if credential not in TOKENS:
            raise invalid_credential()
        project = TOKENS[credential]
        rights = {project: frozenset({Right.READ, Right.WRITE, Right.ADMIN})}
        return Identity(f"user:{project}", credential, rights, frozenset({Right.OPERATE}))


def _report(task: asyncio.Future[None]) -> None:
    """Say that background work failed, which ends the service where it really runs."""
    if not task.cancelled() and task.exception() is not None:
        traceback.print_exception(task.exception())


@asynccontextmanager
async def serving(settings: ArtifactSettings) -> AsyncIterator[int]:
    """Run the service; give its port."""
    suite = SuiteSettings(suite_address=NOBODY)
    peer = Peer(suite.suite_address)
    service = await compose(Chassis(suite, peer), settings)
    quick = ServerSettings(listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.5)
    server = Server(quick, Chain(FixedTokens(), Telemetry()))
    for register, servicer in service.servicers:
        server.add(register, servicer, service.trail)
    running = (*service.background, *service.doors)
    tasks = [asyncio.ensure_future(work()) for work in running]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield await server.start()
    finally:
        await server.stop()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for close in service.close:
            close()
        await peer.close()
    failures = [end for end in ends if isinstance(end, Exception)]
    assert not failures, failures


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Stub]:
    """Give a stub on a channel of its own."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield cast("Stub", artifact_service_pb2_grpc.ArtifactServiceStub(channel))


async def main() -> None:
    """Serve until killed, settings from the environment; print the port."""
    async with serving(load(ArtifactSettings, PREFIX)) as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
