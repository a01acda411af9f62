"""What services are known to do, and why: all else that is seen is a finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.primitives.watched import Deed

RUNS = {"exec", "compile", "code.__new__", "marshal.loads"}
"""Code that is made or run."""


@dataclass(frozen=True, slots=True)
class Known:
    """Deeds of one kind; what is empty may be anything."""

    event: str
    whose: str
    via: str
    what: str
    why: str

    def covers(self, deed: Deed) -> bool:
        """Say whether a deed is of this kind."""
        return (
            self.event in (deed.event, "")
            and deed.whose.startswith(self.whose)
            and deed.via.startswith(self.via)
            and self.what in (deed.what, "")
        )


def known(event: str, whose: str, what: str, why: str, *, via: str = "") -> Known:
    """Describe deeds."""
    return Known(event, whose, via, what, why)


KNOWN = (
    known("ctypes.dlopen", "import", "None", "ctypes looks at its own process as it is loaded"),
    known(
        "ctypes.dlopen",
        "services/common/processes/memory.py:keep_freed_memory",
        "None",
        "mallopt of the C library",
    ),
    # Python's own connections: those of gRPC, libpq and uvloop are not seen.
    known("socket.connect", "services/common/events.py", "unix:", "Redis"),
    known("socket.connect", "services/artifact/blobs/s3.py", "loopback", "S3"),
    known(
        "socket.connect",
        "services/builder/worker/git_fetch.py",
        "loopback",
        "the repository that a build names",
    ),
    known(
        "socket.connect",
        "services/deployer/agent/envoy_admin.py:connect",
        "unix:",
        "the administration of the agent's own Envoy",
    ),
    known(
        "socket.connect",
        "services/deployer/agent/model_server.py:_ask",
        "loopback",
        "a model server of the agent's own",
    ),
    # Programs: each is tied to its parent by setpriv first.
    known(
        "subprocess.Popen",
        "services/builder/worker/processes.py:run",
        "setpriv",
        "the sandbox of a build",
    ),
    known(
        "subprocess.Popen",
        "services/builder/worker/errands.py:ask",
        "setpriv",
        "the worker's own programs, which fetch repositories and push images",
    ),
    known(
        "subprocess.Popen",
        "services/deployer/agent/child.py:start",
        "setpriv",
        "Envoy and model servers",
    ),
    known(
        "subprocess.Popen",
        "services/common/environments/installer.py:run",
        "setpriv",
        "uv, which installs environments",
    ),
    known(
        "subprocess.Popen",
        "services/common/environments/making.py:_compile",
        "setpriv",
        "compileall of an environment",
    ),
)

WRITTEN_BY = {
    "typing.py:": "annotations of our own, which msgspec reads as types",
    "sqlalchemy/util/langhelpers.py:": "methods that SQLAlchemy writes for classes of its own",
    "ast.py:parse": "a tree, which is not run: of lines in a traceback, of the filters' grammar",
    "<frozen runpy>:": "the program that was started",
}
"""Whose code may be made and run while a service serves: by none of it, what it was sent."""


def unknown(deeds: Iterable[Deed]) -> list[Deed]:
    """Return what nobody knows of."""
    return sorted(deed for deed in deeds if not _is_known(deed))


def _is_known(deed: Deed) -> bool:
    is_loading = deed.whose == "import" or deed.whose.endswith(":<module>")
    if deed.event in RUNS and (is_loading or deed.via.startswith(tuple(WRITTEN_BY))):
        return True
    return any(one.covers(deed) for one in KNOWN)
