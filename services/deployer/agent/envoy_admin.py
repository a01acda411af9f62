"""Envoy's admin interface, asked over its unix socket."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

_TEXT = re.compile(r'^(?P<name>\S+): "(?P<value>.*)"$')


class EnvoyUnreachableError(Exception):
    """Envoy does not answer: it starts, or it died and is being restarted."""


class EnvoyAdmin:
    """Asks Envoy how it is."""

    def __init__(self, path: Path, *, timeout: float = 2.0) -> None:
        self._path = path
        self._timeout = timeout

    async def is_live(self) -> bool:
        """Say whether Envoy has its configuration and takes requests."""
        try:
            return await self._get("/server_info") != ""
        except EnvoyUnreachableError:
            return False

    async def texts(self, names: str) -> dict[str, str]:
        """Return the text statistics whose names match a regular expression."""
        lines = (await self._get(f"/stats?type=TextReadouts&filter={names}")).splitlines()
        found = [match for line in lines if (match := _TEXT.match(line))]
        return {match["name"]: match["value"] for match in found}

    async def numbers(self, names: str) -> dict[str, int]:
        """Return the counters and gauges whose names match a regular expression."""
        values = {}
        for line in (await self._get(f"/stats?filter={names}")).splitlines():
            name, _, value = line.partition(": ")
            if value.isdigit():
                values[name] = int(value)
        return values

    async def statistics(self, names: str) -> list[dict[str, Any]]:
        """Return the counters, and the histograms with buckets, whose names match."""
        query = f"/stats?format=json&histogram_buckets=cumulative&filter={quote(names)}"
        found: list[dict[str, Any]] = json.loads(await self._get(query))["stats"]
        return found

    async def _get(self, path: str) -> str:
        return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> str:
        connection = _Connection(self._path, self._timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise EnvoyUnreachableError(str(error)) from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise EnvoyUnreachableError(f"{path}: {response.status} {text}")
        return text


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket, whose path may be longer than a socket address holds."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("envoy", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect by way of the open folder, since its descriptor's path is short."""
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)
