"""The load generator of the artifact service: the public client, in a process of its own."""

from __future__ import annotations

import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import modelyard

from benchmarks.metadata.generating import Operation, serve

CLIENT = modelyard.Client(project="default")


def push(arguments: dict[str, Any]) -> Operation:
    """Send a tree; what travelled is written beside it."""
    path = Path(arguments["path"])

    def once(_client: int, _index: int) -> bool:
        seen: list[modelyard.Progress] = []
        artifact = CLIENT.artifacts.push(
            path, progress=lambda now: seen.__setitem__(slice(1), [now])
        )
        last = seen[0]
        told = {"artifact": artifact.name, "sent": last.done_bytes - last.present_bytes}
        Path(arguments["answer"]).write_text(json.dumps(told))
        return last.done_bytes == last.total_bytes

    return once


def pull(arguments: dict[str, Any]) -> Operation:
    """Fetch a tree into a new folder."""

    def once(_client: int, _index: int) -> float:
        target = Path(arguments["folder"]) / f"ours-{time.monotonic_ns()}"
        started = time.perf_counter()
        CLIENT.artifacts.pull(arguments["artifact"], target, cache="")
        took = time.perf_counter() - started
        assert sum(p.stat().st_size for p in target.rglob("*") if p.is_file()) == arguments["size"]
        shutil.rmtree(target)
        return took

    return once


def memory(_: dict[str, Any]) -> Operation:
    """Return this process's peak of resident memory in MB, as if it were a time."""
    return lambda _client, _index: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    serve({"push": push, "pull": pull, "memory": memory})
