"""The shipped proxy before a service that hangs, or dies, while somebody follows it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard._transport.status import error_from
from modelyard.errors import UnavailableError

from services.common.errors import Reason
from services.common.rpc import status
from services.suite.start import free_port
from tests.servers.proxy import start_proxy

pytestmark = pytest.mark.slow
METHOD = "/modelyard.metadata.v1.RunService/WatchRuns"
SECONDS = 60.0
SERVICE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2_grpc
from services.common.rpc.server import OPTIONS

def follow(request, context):
    yield b"first"
    threading.Event().wait()

server = grpc.server(ThreadPoolExecutor(), options=OPTIONS)
handlers = {"WatchRuns": grpc.unary_stream_rpc_method_handler(follow)}
handler = grpc.method_handlers_generic_handler("modelyard.metadata.v1.RunService", handlers)
server.add_generic_rpc_handlers((handler,))
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
"""


class Proxied:
    """A service of its own process behind the proxy."""

    def __init__(self, folder: Path) -> None:
        upstream = free_port()
        self.service = subprocess.Popen([sys.executable, "-c", SERVICE, str(upstream)])
        self._proxy = start_proxy(folder, upstream)
        self._channel = grpc.insecure_channel(self._proxy.address)

    def follow(self) -> Any:
        """Begin to follow the service, once it is there and has said something."""
        deadline = time.monotonic() + SECONDS
        follow: Any = self._channel.unary_stream(METHOD)
        while True:
            call = follow(b"", wait_for_ready=True, timeout=SECONDS)
            try:
                assert next(call) == b"first"
            except grpc.RpcError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return call

    def close(self) -> None:
        """End both."""
        self._channel.close()
        self.service.kill()
        self.service.wait()
        self._proxy.close()


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    proxied = Proxied(tmp_path)
    yield proxied
    proxied.close()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_who_follows_a_service_that_is_gone_is_told_to_come_again(
    proxied: Proxied, how: signal.Signals
) -> None:
    call = proxied.follow()
    proxied.service.send_signal(how)
    with pytest.raises(grpc.RpcError) as ended:
        next(call)
    failure: Any = ended.value
    assert isinstance(error_from(failure, server="here"), UnavailableError), failure
    assert status.decode(failure).reason is Reason.SERVICE_UNAVAILABLE
