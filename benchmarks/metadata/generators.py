"""Load generators as the benchmark drives them: processes that take orders."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.metadata.generating import Load

MINIMUM_REQUESTS = 20


class LoadError(Exception):
    """A load was not what it has to be to count."""


class Generator:
    """One running load generator."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def run(
        self,
        operation: str,
        *,
        clients: int = 1,
        seconds: float = 0.0,
        requests: int = 0,
        minimum: int = MINIMUM_REQUESTS,
        **arguments: Any,
    ) -> Load:
        """Run a load and return what it came to.

        Raises:
            LoadError: an error, a wrong answer, or fewer requests than `minimum`.
        """
        order = {
            "operation": operation,
            "clients": clients,
            "seconds": seconds,
            "requests": requests,
            "arguments": arguments,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        load = Load(**self._answer())
        if load.errors or load.wrong or load.requests < min(minimum, requests or minimum):
            raise LoadError(f"{operation}: {load}")
        return load

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadError("the load generator ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def generator(
    command: Sequence[str | Path], environment: Mapping[str, str], *, log: Path
) -> Iterator[Generator]:
    """Run a load generator; its standard error goes to a file."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Generator(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)
