"""What a hostile build tries, from inside: prints one JSON object, attack → what came of it.

An attack that fails as it should gives None, one that succeeds says what it got.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
given: dict[str, Any] = json.loads(Path("attacks.json").read_text())

if given["worker"] in {1, os.getpid()}:  # in a namespace of its own, it may have our number
    given["worker"] = 4_000_000


def read(path: str) -> Callable[[], Any]:
    return lambda: Path(path).read_bytes()[:80].decode(errors="replace")


def write(path: str) -> Callable[[], Any]:
    def attack() -> str:
        with Path(path).open("a") as file:
            file.write("")
        return "written"

    return attack


def connect(family: int, address: Any) -> Callable[[], Any]:
    def attack() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as peer:
            peer.settimeout(0.5)
            peer.connect(address)
        return "connected"

    return attack


def call(name: str, *arguments: Any) -> Callable[[], Any]:
    def attack() -> str:
        result = getattr(libc, name)(*arguments)
        if result == -1:
            raise OSError(ctypes.get_errno(), name)
        return f"{name} gave {result}"

    return attack


def do(action: Callable[..., object], *arguments: Any) -> Callable[[], Any]:
    def attack() -> str:
        action(*arguments)
        return "done"

    return attack


def run(*command: str) -> Callable[[], Any]:
    def attack() -> str:
        subprocess.run(command, check=True, capture_output=True, timeout=5)
        return "ran"

    return attack


def others() -> list[str] | None:
    """Find processes that are not ours: the namespace's first, this one and its children are."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if path.name not in {"1", str(os.getpid())}:
                found.append(" ".join(word.decode() for word in words))
    return found or None


def variables() -> dict[str, str] | None:
    known = {"PATH", "HOME", "LC_CTYPE", "PWD"}
    found = {name: value for name, value in os.environ.items() if name not in known}
    with contextlib.suppress(OSError):
        first = Path("/proc/1/environ").read_bytes().decode().split("\0")
        found |= {line: "" for line in first if line and line.partition("=")[0] not in known}
    return found or None


def interfaces() -> list[str] | None:
    return [name for _, name in socket.if_nameindex() if name != "lo"] or None


def descriptors() -> list[str] | None:
    """Find open files that are not our three, nor the folder that is read to find them."""
    return [name for name in os.listdir("/proc/self/fd") if int(name) > 3] or None  # noqa: PTH208


def devices() -> list[str] | None:
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm"}
    harmless |= {"stdin", "stdout", "stderr", "fd", "core"}
    return sorted(set(os.listdir("/dev")) - harmless) or None  # noqa: PTH208


def capabilities() -> str | None:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = [line for line in lines if line.startswith("Cap") and int(line.split()[1], 16)]
    return "; ".join(found) or None


def root() -> str | None:
    return "root" if 0 in (os.getuid(), os.geteuid(), os.getgid()) else None


def namespace() -> str:
    os.unshare(0x10000000)  # type: ignore[attr-defined]  # since 3.12
    return "unshared"


ATTACKS: dict[str, Callable[[], Any]] = {
    "the worker's token": read(given["token"]),
    "a database": read(given["database"]),
    "another build's folder": lambda: os.listdir(given["other"]),  # noqa: PTH208
    "another project's environments": lambda: os.listdir(given["environments"]),  # noqa: PTH208
    "the machine's passwords": read("/etc/shadow"),
    "the machine's users": lambda: "root" in Path("/etc/passwd").read_text() or None,
    "root's home": read("/root/.bashrc"),
    "the worker's environment": read(f"/proc/{given['worker']}/environ"),
    "the worker's memory": read(f"/proc/{given['worker']}/mem"),
    "another process": others,
    "variables": variables,
    "open files": descriptors,
    "Redis by its socket": connect(socket.AF_UNIX, given["socket"]),
    "Redis by an abstract socket": connect(socket.AF_UNIX, "\0" + given["abstract"]),
    "the suite by loopback": connect(socket.AF_INET, ("127.0.0.1", given["port"])),
    "the cloud's metadata": connect(socket.AF_INET, ("169.254.169.254", 80)),
    "network interfaces": interfaces,
    "a raw socket": do(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
    "write to the environment": write(given["readable"]),
    "write to the system": write("/usr/bin/evil"),
    "write to the root": write("/evil"),
    "write to /dev": write("/dev/evil"),
    "write to the parameters": write(given["parameters"]),
    "write to kernel settings": write("/proc/sys/kernel/core_pattern"),
    "sysrq": write("/proc/sysrq-trigger"),
    "devices": devices,
    "a device node": do(os.mknod, "disk", 0o060600, os.makedev(254, 0)),
    "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "remount": call("mount", None, b"/usr", None, 32, None),
    "chroot": call("chroot", b"/tmp"),
    "a user namespace": call("unshare", 0x10000000),
    "a mount namespace": call("unshare", 0x00020000),
    "another's namespace": call("setns", 0, 0),
    "ptrace of the first process": call("ptrace", 16, 1, None, None),
    "become root": call("setuid", 0),
    "set-user-id programs": run("/usr/bin/mount", "-t", "tmpfs", "none", "/mnt"),
    "su": run("/usr/bin/su", "-c", "true"),
    "kill the first process": lambda: os.kill(1, signal.SIGKILL),
    "kill the worker": do(os.kill, given["worker"], signal.SIGTERM),
    "capabilities": capabilities,
    "root": root,
    "reboot": call("reboot", 0xFEE1DEAD, 672274793, 0, None),
    "kernel modules": call("syscall", 175, b"", 0, b""),
    "kernel log": call("klogctl", 3, b"", 0),
    "the clock": call("settimeofday", ctypes.create_string_buffer(16), None),
    "the host's name": call("sethostname", b"evil", 4),
    "raise a limit": run("/usr/bin/prlimit", "--nproc=100000:100000", "true"),
    "more cores": do(os.sched_setaffinity, 0, {0, 1}),
    "run before the worker": do(os.nice, -5),
}


def main() -> None:
    found = {}
    for name, attack in ATTACKS.items():
        try:
            found[name] = attack()
        except (OSError, subprocess.SubprocessError, ValueError, AttributeError):
            found[name] = None
    print(json.dumps(found))
    sys.stdout.flush()


main()
