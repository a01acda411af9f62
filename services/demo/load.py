"""Constant load on a live model: every answer checked, nothing tried again."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

TIMEOUT = 10.0
KEPT_OPEN = 2
ALWAYS_NEW = 2
PAUSE = 0.002


@dataclass(slots=True)
class Tally:
    """What the load saw so far."""

    answered: Counter[str] = field(default_factory=Counter)
    """Good answers, by the version that gave them."""
    failures: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> int:
        """Return how many requests were sent."""
        return sum(self.answered.values()) + len(self.failures)

    @property
    def rate(self) -> float:
        """Return requests per second since the start."""
        return self.total / max(time.monotonic() - self.started, 1e-9)


class Load:
    """Sends requests from several threads while it is entered.

    Half of the threads keep their connection, half open one a request, because a
    swap can fail either in its own way.
    """

    def __init__(self, address: str, model: str, bodies: Sequence[str], rows: int) -> None:
        self._address = address
        self._path = f"/v2/models/{model}/infer"
        self._bodies = bodies
        self._rows = rows
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.tally = Tally()
        self._threads = [
            threading.Thread(target=self._send_forever, args=(kept,), daemon=True)
            for kept in [True] * KEPT_OPEN + [False] * ALWAYS_NEW
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send_forever(self, kept: bool) -> None:
        connection = self._connect()
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                version = self._send(connection, self._bodies[number % len(self._bodies)])
                with self._lock:
                    self.tally.answered[version] += 1
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                with self._lock:
                    self.tally.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
            if not kept:
                connection.close()
                connection = self._connect()
            time.sleep(PAUSE)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT)

    def _send(self, connection: http.client.HTTPConnection, body: str) -> str:
        """Send one request; return the version that answered it rightly."""
        connection.request("POST", self._path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != http.client.OK:
            raise ValueError(f"{response.status}: {text[:200]!r}")
        answer = json.loads(text)
        if answer["outputs"][0]["shape"][0] != self._rows:
            raise ValueError(f"wrong answer: {text[:200]!r}")
        return str(answer["model_version"])
