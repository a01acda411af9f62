"""The installer of packages, `uv`: run with its own variables alone, in a folder of ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import uv

from services.common.environments.lock import EnvironmentFailedError
from services.common.processes.lifelines import dies_with_us

OnLine = Callable[[str], None]
"""Takes a line that the installer prints."""

LAST_LINES = 20
RESOLVING: Mapping[str, str] = MappingProxyType(
    {"UV_CONCURRENT_DOWNLOADS": "8", "RES_OPTIONS": "timeout:1 attempts:5"}
)
"""For a resolution. It asks for dozens of small files at once, and looks the index's name up for
each connection: name servers drop some of such a burst, and the C library waits five seconds
before it asks again."""
_PASSED_PREFIXES = ("UV_", "PIP_", "SSL_")
_PASSED_SUFFIXES = ("_PROXY", "_CA_BUNDLE")
_PASSED = frozenset(
    {"HOME", "PATH", "RES_OPTIONS", "TMPDIR"}
    | {"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
)


def installer_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Pick what the installer needs to know: index, certificates, proxies, its cache."""
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED
        or name.startswith(_PASSED_PREFIXES)
        or name.upper().endswith(_PASSED_SUFFIXES)
    }


async def run(
    *arguments: str, folder: Path, on_line: OnLine, unless_set: Mapping[str, str]
) -> None:
    """Run the installer in a folder to its end; a cancelled caller takes it along.

    Args:
        arguments: its command and options.
        folder: where it runs; made if need be.
        on_line: takes each line that it prints.
        unless_set: variables for it, where this process has no such ones.

    Raises:
        EnvironmentFailedError: it failed; the message is the last of what it printed.
    """
    _prepare(folder)
    process = await asyncio.create_subprocess_exec(
        *dies_with_us(),
        uv.find_uv_bin(),
        *arguments,
        cwd=folder,
        env={**unless_set, **installer_variables()},
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


def _prepare(folder: Path) -> None:
    """Keep it from the settings of a project around the folder, by an empty file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "uv.toml").touch()
