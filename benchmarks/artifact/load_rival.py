"""The load generator of the rival: its public client, in a process of its own.

Run by the rival's interpreter as a plain file, `generating` on its path.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import mlflow  # the rival's environment has it
from generating import Operation, serve  # type: ignore[import-not-found]
from mlflow import MlflowClient

mlflow.set_tracking_uri(os.environ["BENCHMARK_SERVER"])
CLIENT = MlflowClient(os.environ["BENCHMARK_SERVER"])


def push(arguments: dict[str, Any]) -> Operation:
    """Send a folder to a new run."""
    run = CLIENT.create_run("1").info.run_id
    Path(arguments["answer"]).write_text(json.dumps({"run": run}))

    def once(_client: int, _index: int) -> bool:
        CLIENT.log_artifacts(run, arguments["path"])
        return True

    return once


def pull(arguments: dict[str, Any]) -> Operation:
    """Fetch a run's files into a new folder."""

    def once(_client: int, _index: int) -> float:
        target = Path(arguments["folder"]) / f"theirs-{time.monotonic_ns()}"
        target.mkdir()
        started = time.perf_counter()
        mlflow.artifacts.download_artifacts(run_id=arguments["artifact"], dst_path=str(target))
        took = time.perf_counter() - started
        assert sum(p.stat().st_size for p in target.rglob("*") if p.is_file()) == arguments["size"]
        shutil.rmtree(target)
        return took

    return once


if __name__ == "__main__":
    serve({"push": push, "pull": pull})
