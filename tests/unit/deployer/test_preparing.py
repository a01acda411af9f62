"""Bundles: which on disk are used again, and when one that cannot be fetched is given up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard.deployer.v1 import controller_service_pb2
from modelyard.digests import folder_digest

from services.common.environments.making import Environments
from services.common.errors import Reason, ServiceError
from services.common.names import DeploymentName
from services.common.own_token import OwnToken
from services.common.rpc import status
from services.common.rpc.peers import Peer
from services.deployer.agent.control_plane import ControlPlane
from services.deployer.agent.preparing import NotNowError, PreparationError, Preparer, is_whole
from services.deployer.domain import AssignedVariant
from tests.servers.busy import WAIT_SECONDS, busy

HOME = "projects/shop/environments/production"
ASSIGNED = AssignedVariant(
    revision=1,
    version="projects/shop/models/churn/versions/1",
    artifact=f"projects/shop/artifacts/{'a' * 64}",
    weight=100,
    environment_digest="",
)


class Refusing(grpc.GenericRpcHandler):
    """Refuses every call, but for grants if it is `granting`."""

    def __init__(self, error: ServiceError, *, granting: bool) -> None:
        self._error, self._granting = error, granting

    def service(self, handler_call_details: Any) -> Any:
        grants = self._granting and handler_call_details.method.endswith("/CreateGrant")
        return grpc.unary_unary_rpc_method_handler(self._grant if grants else self._refuse)

    async def _grant(self, request: bytes, context: Any) -> bytes:
        return controller_service_pb2.CreateGrantResponse(grant="grant").SerializeToString()

    async def _refuse(self, request: bytes, context: Any) -> bytes:
        trailers = status.trailers(self._error)
        await context.abort(
            status.code_of(self._error), self._error.message, trailing_metadata=trailers
        )
        raise AssertionError


@asynccontextmanager
async def refusing(*, hint: bool, granting: bool) -> AsyncIterator[str]:
    """Serve what has too much to do for now, or, without a hint, a limit that stays."""
    error = busy() if hint else ServiceError(Reason.LIMIT_EXCEEDED, "it stays so")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Refusing(error, granting=granting),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def change(folder: Path) -> None:
    (folder / "code" / "model.py").write_text("x = 2\n")


def add(folder: Path) -> None:
    (folder / "code" / "model.pyc").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "code" / "model.py").unlink()


def link(folder: Path) -> None:
    (folder / "code" / "other.py").symlink_to("model.py")


@pytest.mark.parametrize("harm", [change, add, remove, link])
def test_a_bundle_that_changed_is_not_whole(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    made = tmp_path / "made"
    (made / "code").mkdir(parents=True)
    (made / "code" / "model.py").write_text("x = 1\n")
    (made / "modelyard.json").write_text("{}\n")
    bundle = made.rename(tmp_path / folder_digest(made))
    assert is_whole(bundle)
    harm(bundle)
    assert not is_whole(bundle)
    assert bundle.exists()  # a model server may run from it


async def prepared(tmp_path: Path, *, hint: bool, granting: bool) -> Exception:
    """Prepare a bundle where everything is refused, or all but the grant to read it."""
    token = tmp_path / "own.token"
    token.write_text("secret\n")
    token.chmod(0o600)
    async with refusing(hint=hint, granting=granting) as address:
        peer = Peer(address)
        plane = ControlPlane(peer, own_token=OwnToken(str(token)), controller="c", environment=HOME)
        preparer = Preparer(
            tmp_path,
            control_plane=plane,
            server=address,
            root_certificates="",
            environments=Environments(tmp_path / "environments"),
        )
        with pytest.raises((NotNowError, PreparationError)) as caught:
            await preparer.prepare(DeploymentName.parse(f"{HOME}/deployments/churn"), ASSIGNED)
        await peer.close()
    return caught.value


@pytest.mark.parametrize("granting", [False, True])
async def test_what_has_too_much_to_do_is_asked_again_when_it_says(
    tmp_path: Path, granting: bool
) -> None:
    found = await prepared(tmp_path, hint=True, granting=granting)
    assert isinstance(found, NotNowError)
    assert found.retry_seconds == WAIT_SECONDS


@pytest.mark.parametrize("granting", [False, True])
async def test_a_limit_passed_for_good_fails_what_was_deployed(
    tmp_path: Path, granting: bool
) -> None:
    found = await prepared(tmp_path, hint=False, granting=granting)
    assert isinstance(found, PreparationError)
    assert found.failure.reason == "FETCH_FAILED"
