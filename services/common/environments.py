"""Virtual environments of models: resolved, made and kept by `uv`, for builds and for serving.

An environment holds a lock's exact versions and `modelyard[serving]` from the
suite's own wheel, never from an index. It is made once per project, lock, Python
and wheel, at its final place (virtual environments cannot be moved) under a file
lock, and counts only once its marker is written; so any number of processes may
share one folder, and a killed one leaves nothing that is taken for whole. Whoever
uses one holds its lock, so that no other removes it as an old one.

Only the installer's own variables (index, certificates, proxies) reach `uv`, and
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
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import uv

OnLine = Callable[[str], None]

MARKER = ".complete"
PROJECTS = "projects"
CLIENT_SOURCE = Path(__file__).resolve().parents[2] / "clients" / "python"
LOCK_POLL_SECONDS = 0.1
STOP_SECONDS = 5.0
LAST_LINES = 20

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.ASCII)
_PASSED_PREFIXES = ("UV_", "PIP_", "SSL_")
_PASSED_SUFFIXES = ("_PROXY", "_CA_BUNDLE")
_PASSED = ("HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


class EnvironmentFailedError(Exception):
    """An environment cannot be resolved or made; the text is meant for whoever wants it."""


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


def installer_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Pick what the installer needs to know: index, certificates, proxies, its cache."""
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED
        or name.startswith(_PASSED_PREFIXES)
        or name.upper().endswith(_PASSED_SUFFIXES)
    }


def own_python() -> str:
    """Return this interpreter's version as environments name it, such as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def lock_digest(lock: str) -> str:
    """Return the SHA-256 of a lock, as versions and bundles carry it."""
    return hashlib.sha256(lock.encode()).hexdigest()


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

    async def resolve(self, requirements: Path | None, *, python: str = "", on_line: OnLine) -> str:
        """Return the exact versions, one a line, of some requirements and of serving.

        Raises:
            EnvironmentFailedError: there is no solution, or it cannot be pinned.
        """
        wheel = await self.client_wheel(on_line)
        own = f"modelyard[serving] @ {wheel.as_uri()}\n"
        sources = [requirements] if requirements is not None else []
        return await self._compile(sources, own, python=python, on_line=on_line)

    async def ensure(self, lock: str, *, python: str = "", on_line: OnLine) -> Environment:
        """Return the environment of a lock; make it if need be.

        Args:
            lock: `name==version` lines.
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
            await self._uv("pip", "install", *target, "-r", str(pins), own, on_line=on_line)
            await _compile_bytecode(environment.python, place / "lib")

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
        wanted = f"{requirement}\n{lock}"
        python = _interpreter(environment.version)
        full = await self._compile([], wanted, python=environment.version, on_line=on_line)
        more = "".join(sorted(set(full.splitlines(True)) - set(lock.splitlines(True))))
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
        self, sources: list[Path], more: str, *, python: str, on_line: OnLine
    ) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="resolve-", dir=self.folder) as scratch:
            extra, result = Path(scratch) / "extra.txt", Path(scratch) / "lock.txt"
            extra.write_text(more)
            plain = ("--no-header", "--no-annotate", "--no-emit-package", "modelyard")
            await self._uv(
                *("pip", "compile", "--quiet", *plain, *self._no_build, "-o", str(result)),
                *("--python", _interpreter(python or own_python())),
                *(str(source) for source in [*sources, extra]),
                on_line=on_line,
            )
            lines = sorted(line for line in result.read_text().splitlines() if line.strip())
        lock = "".join(f"{line}\n" for line in lines if not line.startswith("#"))
        check_lock(lock)
        return lock

    async def _have(self, place: Path, make: Callable[[Path], Awaitable[None]]) -> None:
        """Have a folder whole, made if need be, and hold it until `close`."""
        if place not in self._held:
            self._held[place] = await _held(place, make)
        await asyncio.to_thread((place / MARKER).touch)  # when it was used last

    async def _uv(self, *arguments: str, on_line: OnLine) -> None:
        """Run the installer; a cancelled caller takes it along."""
        # An empty file of settings keeps it from those of a project around the folder.
        settings = self.folder / "uv.toml"
        settings.touch()
        process = await asyncio.create_subprocess_exec(
            uv.find_uv_bin(),
            *arguments,
            cwd=self.folder,
            env=installer_variables(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        last: list[str] = []
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            async for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\r\n")
                on_line(text)
                last = [*last[-LAST_LINES:], text]
            status = await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if status != 0:
            raise EnvironmentFailedError("\n".join(last) or f"uv ended with status {status}")


def check_lock(lock: str) -> None:
    """Refuse a lock that is not exact versions only: no addresses, options or paths."""
    for line in lock.splitlines():
        pin = _PIN.fullmatch(line)
        if pin is None:
            raise EnvironmentFailedError(f"{line[:200]!r} is not an exact version, name==version")
        if pin[1].lower() == "modelyard":
            raise EnvironmentFailedError("a lock never holds modelyard: the suite brings its own")


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
    """Compile an environment by the interpreter that it stands on, isolated from it."""
    interpreter = await asyncio.to_thread(python.resolve)
    process = await asyncio.create_subprocess_exec(
        str(interpreter),
        *("-I", "-S", "-m", "compileall", "-q", "-j", "0", str(folder)),
        env={},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await process.wait()  # some packages hold files for other Pythons: no failure
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise


def _tree_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
