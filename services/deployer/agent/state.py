"""What the agent knows on disk: the last assignments and each environment's port.

With the deployer away, a restarted agent brings back what was live from here.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.common.names import DeploymentName, EnvironmentName
from services.deployer.domain import Assignment


@dataclass(frozen=True, slots=True)
class _Known:
    """An assignment on disk."""

    deployment: str
    assignment: Assignment


class KnownAssignments:
    """The newest assignment of each deployment, written before it is acted upon."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _load(path)

    def all(self) -> dict[DeploymentName, Assignment]:
        """Return every assignment."""
        return dict(self._known)

    def keep(self, changed: dict[DeploymentName, Assignment], *, only: bool = False) -> None:
        """Write changed assignments down; `only`: and forget all others."""
        known = changed if only else {**self._known, **changed}
        if known == self._known:
            return
        rows = [_Known(str(name), assignment) for name, assignment in known.items()]
        _write(self._path, msgspec.json.encode(rows))
        self._known = dict(known)


class Ports:
    """Each environment's port: allotted once, the same ever after."""

    def __init__(self, path: Path, *, base_port: int) -> None:
        self._path = path
        self._base_port = base_port
        content = path.read_bytes() if path.exists() else b"{}"
        self._ports = msgspec.json.decode(content, type=dict[str, int])

    def of(self, environment: EnvironmentName) -> int:
        """Return an environment's port; the first gets the base port if it is free."""
        name = str(environment)
        if name not in self._ports:
            port = self._base_port
            while port in self._ports.values() or not _is_free(port):
                port += 1
            ports = {**self._ports, name: port}
            _write(self._path, msgspec.json.encode(ports))
            self._ports = ports
        return self._ports[name]


def _load(path: Path) -> dict[DeploymentName, Assignment]:
    if not path.exists():
        return {}
    rows = msgspec.json.decode(path.read_bytes(), type=list[_Known])
    return {DeploymentName.parse(row.deployment): row.assignment for row in rows}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(path: Path, content: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new one."""
    part = path.with_name(f"{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
