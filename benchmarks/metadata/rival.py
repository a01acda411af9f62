"""MLflow, tuned, in an environment of its own and with the same kind of database.

Tuned is its best case: uvloop and httptools, no access log, no job processes, no telemetry.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from uv import find_uv_bin

from services.suite.start import free_port

VERSION = "3.17.2"
PACKAGES = (f"mlflow=={VERSION}", "uvloop", "httptools", "psycopg2-binary", "psycopg[binary]")
ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv" / "mlflow"
START_SECONDS = 120.0
SCRIPTS = Path(__file__).parent
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONPATH": "",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True, slots=True)
class Rival:
    """A running server."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return the processor time of the server and its workers."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total


def interpreter() -> Path:
    """Return the rival's own interpreter; its environment is made when it is missing.

    Raises:
        RuntimeError: what lies there is not the version that is to be measured.
    """
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        uv = find_uv_bin()
        subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(ENVIRONMENT)], check=True)
        install = (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
        subprocess.run([*install, *PACKAGES], check=True)
    ask = "import importlib.metadata as m; print(m.version('mlflow'))"
    found = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    if found.stdout.strip() != VERSION:
        raise RuntimeError(f"{ENVIRONMENT} holds MLflow {found.stdout.strip()}, not {VERSION}")
    return python


@contextmanager
def running(folder: Path, database_url: str, *, runs: int) -> Iterator[Rival]:
    """Run a server on a fresh database that holds so many runs already."""
    python, port = interpreter(), free_port()
    environment = {**os.environ, **QUIET}
    log = folder / "mlflow.log"
    with log.open("ab") as output:
        for command in (
            (str(python), "-m", "mlflow", "db", "upgrade", database_url),
            (str(python), str(SCRIPTS / "seed_rival.py"), database_url, str(runs)),
        ):
            subprocess.run(command, check=True, env=environment, stdout=output, stderr=output)
        process = subprocess.Popen(
            [
                *(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", database_url),
                *("--artifacts-destination", str(folder / "mlartifacts")),
                *("--uvicorn-opts", "--loop uvloop --http httptools --no-access-log"),
            ],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    server = Rival(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
    try:
        _wait_ready(process, server.url, log)
        yield server
    finally:
        own = server.process.children(recursive=True)
        process.terminate()
        psutil.wait_procs(own, timeout=20)
        for child in own:
            if child.is_running():
                child.kill()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310 - ours
                if answer.status == 200:
                    return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(errors="replace")
                raise RuntimeError(f"MLflow did not start:\n{text[-4000:]}") from None
        time.sleep(0.2)
