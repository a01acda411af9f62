"""Callers that use the stock client all the time and write down everything that went wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from modelyard import Client


class Callers:
    """Threads that call every service in turns; no call is ever repeated by hand.

    `calls` counts what was answered, by name; `failures` holds what the caller saw
    instead of an answer; `created` the names of the runs that were acknowledged.
    """

    def __init__(self, client: Client, model: str, folder: Path, threads: int = 4) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []
        self.created: list[str] = []
        self._client, self._model, self._folder = client, model, folder
        self._file = min(file.path for file in client.artifacts.files(f"{model}/1"))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _go_on(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            for name, call in self._calls(number, turn).items():
                self._count(name, call)
            turn += 1

    def _calls(self, number: int, turn: int) -> dict[str, Callable[[], object]]:
        client, file = self._client, self._folder / f"{number}.txt"
        return {
            "create run": self._create_run,
            "get model": lambda: client.models.get(self._model),
            "list builds": lambda: next(iter(client.builds.list()), None),
            "list environments": lambda: list(client.environments.list()),
            "push": lambda: (file.write_text(f"{number} {turn}"), client.artifacts.push(file)),
            "list files": lambda: list(client.artifacts.files(f"{self._model}/1")),
            "open": lambda: client.artifacts.open(f"{self._model}/1", self._file).read(),
        }

    def _create_run(self) -> None:
        self.created.append(self._client.runs.create(self._model).name)

    def _count(self, name: str, call: Callable[[], object]) -> None:
        began = time.monotonic()
        try:
            call()
        except Exception as error:  # whatever the caller sees is the finding
            after = time.monotonic() - began
            self.failures.append(f"{name} after {after:.1f} s: {type(error).__name__}: {error}")
        else:
            self.calls[name] += 1
