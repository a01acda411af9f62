"""Running tests while everything that services do is written down, and reading what was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOOK = Path(__file__).with_name("hook")


@dataclass(frozen=True, slots=True, order=True)
class Deed:
    """What a service made Python do, once or often."""

    event: str
    whose: str
    """File and function of ours, or `import` of a library while a service imports it."""
    via: str
    """File and function that did it."""
    what: str


@dataclass(slots=True)
class Record:
    """What was written down."""

    processes: Counter[str] = field(default_factory=Counter)
    deeds: set[Deed] = field(default_factory=set)

    @classmethod
    def read(cls, file: Path) -> Record:
        """Read a file that the hook wrote."""
        record = cls()
        for line in file.read_text().splitlines():
            event, *rest = json.loads(line)
            if event == "start":
                record.processes[rest[0]] += 1
            else:
                record.deeds.add(Deed(event, *rest))
        return record


def run_watched(
    arguments: Sequence[str], file: Path, *, cwd: Path
) -> subprocess.CompletedProcess[bytes]:
    """Run Python so that it and all Pythons below it write down what services do."""
    path = os.pathsep.join(filter(None, (str(HOOK), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "PRIMITIVES_FILE": str(file)},
        check=False,
    )
