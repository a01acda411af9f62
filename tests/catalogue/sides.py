"""What must be true around every case of bad input, whatever its status is.

A server still answers, an answer tells no path, trace or secret, nothing outside its folder
changed, it holds no more memory and files than before, and it took no longer than it may.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import sqlalchemy as sa
from google.rpc import error_details_pb2, status_pb2

from services.common.rpc import status

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED
FORGED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
ABSENT = grpc.StatusCode.NOT_FOUND
WRONG_STATE = grpc.StatusCode.FAILED_PRECONDITION

SECONDS = 10.0
"""Generous, for busy machines: what hangs takes longer, and what is slow has tests of its own."""
MORE_BYTES = 64 * 1024 * 1024
MORE_FILES = 5
TELLING = ("Traceback", 'File "', "/work/", "site-packages", "sqlite", "psycopg")
AUDIT = {"audit_waiting", "audit_entries", "audit_head", "tokens", "token_uses"}
"""What changes also when a call is refused: it is written down, and so is a credential's use."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    reason: str = ""
    told: str = ""
    """Everything that the caller was sent."""
    seconds: float = 0.0


def refusal(error: grpc.aio.AioRpcError, seconds: float = 0.0) -> Answer:
    """Read what a server said when it refused."""
    trailing = error.trailing_metadata() or ()
    raw = dict(trailing).get(status.DETAILS_KEY, b"")
    info = error_details_pb2.ErrorInfo()
    if isinstance(raw, bytes):
        for detail in status_pb2.Status.FromString(raw).details:
            detail.Unpack(info)
    return Answer(error.code(), info.reason, f"{error.details()} {trailing!r}", seconds)


@dataclass(slots=True)
class Sides:
    """The surroundings of a server before some cases, to be compared with those after."""

    canaries: Path
    """A folder beside the server's data, with files that nobody may touch."""
    secrets: tuple[str, ...]
    process: psutil.Process = field(default_factory=psutil.Process)
    tree: str = ""
    resident: int = 0
    files: int = 0

    def __post_init__(self) -> None:
        for number in range(20):
            folder = self.canaries / f"{number}"
            folder.mkdir(parents=True)
            (folder / "canary").write_text(f"canary {number}")
        self.tree = tree_of(self.canaries)
        self.resident = self.process.memory_info().rss
        self.files = self.process.num_fds()

    def judge(self, case: str, answer: Answer) -> list[str]:
        """Return what is wrong with an answer, whatever its status."""
        told = answer.told
        wrong = [f"{case} tells {word}" for word in TELLING if word in told]
        wrong += [f"{case} tells a secret" for secret in self.secrets if secret in told]
        if answer.seconds > SECONDS:
            wrong.append(f"{case} took {answer.seconds:.1f} s")
        return wrong

    def compare(self, *, files: int = MORE_FILES) -> list[str]:
        """Return what is wrong with the surroundings now."""
        wrong = [] if tree_of(self.canaries) == self.tree else ["the canaries changed"]
        more = self.process.memory_info().rss - self.resident
        if more > MORE_BYTES:
            wrong.append(f"{more / 2**20:.0f} MiB more memory")
        opened = self.process.num_fds() - self.files
        return [*wrong, *([f"{opened} more open files"] if opened > files else [])]


def tree_of(folder: Path) -> str:
    """Return a digest of a folder's files, with their modes and times."""
    lines = []
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f"{path} {found.st_mode} {found.st_mtime_ns} {digest}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def open_to_others(folder: Path) -> list[str]:
    """List what of a server's folder others than its account may read or write."""
    return [
        str(path)
        for path in folder.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]


def fingerprint(url: str, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return a digest of all rows of each table that a refused call leaves alone."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        names = set(sa.inspect(connection).get_table_names()) - AUDIT - without
        digests = {name: _digest_of(connection, name) for name in names}
    engine.dispose()
    return digests


def _digest_of(connection: sa.Connection, table: str) -> str:
    rows = connection.execute(sa.select(sa.text("*")).select_from(sa.text(table)))
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """List the tables whose rows changed."""
    return [f"{table} changed" for table in after if after[table] != before[table]]


def bearer(credential: str, **more: str) -> list[tuple[str, str]]:
    """Return what a caller sends along."""
    rest = [(key.replace("_", "-"), value) for key, value in more.items()]
    return [("authorization", f"Bearer {credential}"), *rest]


def as_bytes(request: Any) -> bytes:
    """Return a request's bytes; bytes are their own."""
    return request if isinstance(request, bytes) else request.SerializeToString()
