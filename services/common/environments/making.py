"""Virtual environments of models: resolved, made and kept by `uv`, for builds and for serving.

An environment holds a lock's exact versions and `modelyard[serving]` from the
suite's own wheel, never from an index. It is made once per project, lock, Python
and wheel, at its final place (virtual environments cannot be moved) under a file
lock, and counts only once its marker is written; so any number of processes may
share one folder, and a killed one leaves nothing that is taken for whole. Whoever
uses one holds its lock, so that no other removes it as an old one.

Only the installer's own variables (index, certificates, proxies) reach it, and
nothing else that runs for a model gets them. Nothing of a package runs while it is
installed: none is built from source unless `MODELYARD_SOURCE_PACKAGES=allow` says so,
and the environment's own interpreter, which obeys the packages' `.pth` files, is asked for
nothing once there are packages in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.environments import installer
from services.common.environments.installer import OnLine
from services.common.environments.lock import HASH, EnvironmentFailedError, check_lock, pin, vouched
from services.common.processes.lifelines import dies_with_us

MARKER = ".complete"
PROJECTS = "projects"
CLIENT_SOURCE = Path(__file__).resolve().parents[3] / "clients" / "python"
LOCK_POLL_SECONDS = 0.1
STOP_SECONDS = 5.0
COMPILED_AS = "/opt/modelyard/env"
"""Where compiled code says that it came from; Python corrects it when it loads it."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that is whole."""

    folder: Path
    digest: str
    version: str
    """Its Python's, such as `3.11`."""

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.folder / "bin" / "python"


def own_python() -> str:
    """Return this interpreter's version as environments name it, such as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


class Environments:
    """Resolves requirements and makes environments in one folder."""

    def __init__(self, folder: Path, *, wheel: str = "", wheels: Path | None = None) -> None:
        """Use `folder` for what is kept; `wheel` is the client's, built when not given."""
        self.folder = folder.absolute()
        self._wheel = wheel or os.environ.get("MODELYARD_CLIENT_WHEEL", "")
        self._wheels = wheels or self.folder / "wheels"
        allowed = os.environ.get("MODELYARD_SOURCE_PACKAGES") == "allow"
        self._no_build = () if allowed else ("--no-build",)
        self._building = asyncio.Lock()
        self._held: dict[Path, int] = {}

    def within(self, project: str) -> Environments:
        """Return the environments of one project, which no other sees; close it after use."""
        return Environments(
            self.folder / PROJECTS / project, wheel=self._wheel, wheels=self._wheels
        )

    def close(self) -> None:
        """Let go of the environments in use: they may be removed from now on."""
        while self._held:
            os.close(self._held.popitem()[1])

    async def check_python(self, python: str, *, on_line: OnLine) -> None:
        """Have a version of Python: this machine's, or one that `uv` installs.

        Raises:
            EnvironmentFailedError: it is not to be had.
        """
        if python == own_python():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._uv("python", "find", "--no-project", python, on_line=lambda _: None)
        except EnvironmentFailedError:
            try:
                await self._uv("python", "install", python, on_line=on_line)
            except EnvironmentFailedError as error:
                told = f"Python {python} is not on this worker, which has {own_python()}"
                problem = f"{told}, and cannot be installed: {error}"
                raise EnvironmentFailedError(problem) from None

    async def resolve(
        self,
        requirements: Sequence[str],
        *,
        constraints: Sequence[str] = (),
        hashes: Mapping[str, Collection[str]] | None = None,
        python: str = "",
        on_line: OnLine,
    ) -> str:
        """Return the exact versions, one a line, of some requirements and of serving.

        Args:
            requirements: lines of packages and versions.
            constraints: such lines, for packages that are needed anyway.
            hashes: `pin_key` → the digests of a package's files, such as `sha256:…`; when there
                are any, each line of the lock has hashes: these, or for what they do not name,
                those of the index.
            python: such as `3.11`; this interpreter's own when empty.
            on_line: takes each line that the installer prints.

        Raises:
            EnvironmentFailedError: there is no solution, or it cannot be pinned.
        """
        wheel = await self.client_wheel(on_line)
        wanted = [*requirements, f"modelyard[serving] @ {wheel.as_uri()}"]
        options = ("--generate-hashes",) if hashes else ()
        lock = await self._compile(
            wanted, *options, constraints=constraints, python=python, on_line=on_line
        )
        return vouched(lock, hashes) if hashes else lock

    async def ensure(self, lock: str, *, python: str = "", on_line: OnLine) -> Environment:
        """Return the environment of a lock; make it if need be.

        Args:
            lock: `name==version` lines, all with hashes or none.
            python: such as `3.11`; this interpreter's own when empty.
            on_line: takes each line that the installer prints.

        Raises:
            EnvironmentFailedError: the lock is malformed or cannot be installed.
        """
        check_lock(lock)
        python = python or own_python()
        wheel = await self.client_wheel(on_line)
        digest = _digest(lock, python, await asyncio.to_thread(_file_digest, wheel))
        environment = Environment(self.folder / digest[:32], digest, python)

        async def make(place: Path) -> None:
            pins = self.folder / f"{digest[:32]}.lock.txt"
            pins.write_text(lock)
            own = f"modelyard[serving] @ {wheel.as_uri()}"
            await self._uv("venv", "--python", _interpreter(python), str(place), on_line=on_line)
            target = ("--python", str(environment.python), *self._no_build)
            if HASH in lock:
                strict = ("--require-hashes", "--no-deps", "-r", str(pins))
                await self._uv("pip", "install", *target, *strict, on_line=on_line)
                await self._uv("pip", "install", *target, "--no-deps", own, on_line=on_line)
            else:
                # `log_model` writes what the model imports, not what serving needs besides.
                await self._uv("pip", "install", *target, "-r", str(pins), own, on_line=on_line)
            started = time.monotonic()
            await _compile_bytecode(environment.python, place / "lib")
            on_line(f"byte-compiled in {time.monotonic() - started:.2f} s")

        await self._have(environment.folder, make)
        return environment

    async def extend(
        self, environment: Environment, lock: str, requirement: str, *, on_line: OnLine
    ) -> Path:
        """Return a folder for PYTHONPATH with a requirement that the environment lacks.

        Whatever the environment has stays at its version, and outside of the folder.

        Raises:
            EnvironmentFailedError: the requirement does not go with the lock.
        """
        python = _interpreter(environment.version)
        there = [pin(line) for line in lock.splitlines()]
        options = ("--generate-hashes",) if HASH in lock else ()
        full = await self._compile(
            [requirement, *there], *options, python=environment.version, on_line=on_line
        )
        more = "".join(line for line in full.splitlines(True) if pin(line) not in there)
        folder = self.folder / f"extra-{_digest(more, environment.digest)[:32]}"

        async def make(place: Path) -> None:
            await asyncio.to_thread(place.mkdir)
            pins = folder.with_suffix(".lock.txt")
            await asyncio.to_thread(pins.write_text, more)
            target = ("--python", python, "--target", str(place), "--no-deps", *self._no_build)
            if more:
                await self._uv("pip", "install", *target, "-r", str(pins), on_line=on_line)

        await self._have(folder, make)
        return folder

    async def derive(
        self, kind: str, environment: Environment, make: Callable[[Path], None]
    ) -> Path:
        """Return a folder that is made once of an environment, and kept as environments are.

        Args:
            kind: what is in it; names the folder.
            environment: what it is made of.
            make: makes the folder whole, in a thread.
        """
        place = self.folder / f"{kind}-{environment.digest[:32]}"

        async def begin(place: Path) -> None:
            await asyncio.to_thread(make, place)

        await self._have(place, begin)
        return place

    async def client_wheel(self, on_line: OnLine) -> Path:
        """Return the suite's own client wheel; build it once per state of its source."""
        if self._wheel:
            return _given_wheel(self._wheel)
        if not CLIENT_SOURCE.is_dir():
            raise EnvironmentFailedError("set MODELYARD_CLIENT_WHEEL to the client's wheel")
        async with self._building:
            digest = await asyncio.to_thread(_tree_digest, CLIENT_SOURCE)
            folder = self._wheels / digest[:32]

            async def make(place: Path) -> None:
                await asyncio.to_thread(place.mkdir)
                source = str(CLIENT_SOURCE)
                await self._uv("build", "--wheel", source, "-o", str(place), on_line=on_line)

            await self._have(folder, make)
        return next(folder.glob("*.whl"))

    async def _compile(
        self,
        requirements: Sequence[str],
        *options: str,
        constraints: Sequence[str] = (),
        python: str,
        on_line: OnLine,
    ) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="resolve-", dir=self.folder) as scratch:
            wanted, result = Path(scratch) / "requirements.txt", Path(scratch) / "lock.txt"
            wanted.write_text("\n".join(requirements))
            bounds = Path(scratch) / "constraints.txt"
            bounds.write_text("\n".join(constraints))
            plain = ("--no-header", "--no-annotate", "--no-emit-package", "modelyard")
            await self._uv(
                *("pip", "compile", "--quiet", *plain, *self._no_build, "-o", str(result)),
                *("--python", _interpreter(python or own_python())),
                *(*options, "--constraints", str(bounds), str(wanted)),
                on_line=on_line,
                unless_set=installer.RESOLVING,
            )
            text = result.read_text().replace(" \\\n   ", "")
            lines = sorted(line for line in text.splitlines() if line.strip())
        lock = "".join(f"{line}\n" for line in lines if not line.startswith("#"))
        check_lock(lock)
        return lock

    async def _have(self, place: Path, make: Callable[[Path], Awaitable[None]]) -> None:
        """Have a folder whole, made if need be, and hold it until `close`."""
        if place not in self._held:
            self._held[place] = await _held(place, make)
        await asyncio.to_thread((place / MARKER).touch)  # when it was used last

    async def _uv(
        self, *arguments: str, on_line: OnLine, unless_set: Mapping[str, str] | None = None
    ) -> None:
        await installer.run(
            *arguments, folder=self.folder, on_line=on_line, unless_set=unless_set or {}
        )


def _given_wheel(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_file():
        raise EnvironmentFailedError(f"MODELYARD_CLIENT_WHEEL: {path} is not there")
    return path


def _interpreter(python: str) -> str:
    return sys.executable if python == own_python() else python


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tree_digest(root: Path) -> str:
    """Hash what goes into the wheel."""
    digest = hashlib.sha256()
    files = [root / "pyproject.toml", root / "README.md", *(root / "src").rglob("*")]
    for path in sorted(files):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(root)}\0{_file_digest(path)}\0".encode())
    return digest.hexdigest()


async def _held(place: Path, make: Callable[[Path], Awaitable[None]]) -> int:
    """Return what holds a folder that is whole by then."""
    lock = place.with_name(f"{place.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        held = await _lock(lock, fcntl.LOCK_SH)
        if (place / MARKER).exists():
            return held
        os.close(held)
        await _make(place, lock, make)


async def _make(place: Path, lock: Path, make: Callable[[Path], Awaitable[None]]) -> None:
    """Make a folder alone, unless it is whole by now; what was begun goes when it fails."""
    alone = await _lock(lock, fcntl.LOCK_EX)
    try:
        if (place / MARKER).exists():
            return
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        try:
            await make(place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        size = await asyncio.to_thread(_tree_bytes, place)
        (place / MARKER).write_text(str(size))
    finally:
        os.close(alone)


async def _lock(path: Path, how: int) -> int:
    """Lock a file; waiting for it blocks nobody else in this process."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_SECONDS)
            else:
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise


async def _compile_bytecode(python: Path, folder: Path) -> None:
    """Compile an environment by the interpreter that it stands on, isolated from it.

    What is compiled names neither this machine's folder nor a time, so that it is the same, and
    good, wherever the environment is copied to.
    """
    interpreter = await asyncio.to_thread(python.resolve)
    files = await asyncio.to_thread(lambda: sorted(folder.rglob("*.py")))
    # Parts of ours and not its own `-j`, whose processes live on when the first one is killed.
    count = min(os.cpu_count() or 1, len(files))
    async with asyncio.TaskGroup() as parts:
        for first in range(count):
            parts.create_task(_compile(interpreter, folder, files[first::count]))


async def _compile(interpreter: Path, folder: Path, files: Sequence[Path]) -> None:
    process = await asyncio.create_subprocess_exec(
        *dies_with_us(),
        *(str(interpreter), "-I", "-S", "-m", "compileall", "-q", "-f"),
        *("--invalidation-mode", "unchecked-hash", "-s", str(folder.parent), "-p", COMPILED_AS),
        *("-i", "-"),
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # Some packages hold files for other Pythons: no failure.
        await process.communicate(b"".join(os.fsencode(file) + b"\n" for file in files))
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise


def _tree_bytes(folder: str | Path) -> int:
    """Sum up what lies in a folder; many thousand files, so by the quickest way there is."""
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            found += entry.stat(follow_symlinks=False).st_size
            if entry.is_dir(follow_symlinks=False):
                found += _tree_bytes(entry.path)
    return found
