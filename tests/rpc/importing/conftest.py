"""A real MLflow server, in its own environment, filled by its own client."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.metadata import rival
from tests.rpc.metadata.conftest import Services, running, until
from tests.servers.processes import free_port

FILL = Path(__file__).with_name("fill_mlflow.py")


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of an MLflow server that keeps something."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    python, uri = rival.interpreter(), f"http://127.0.0.1:{port}"
    environment = {**os.environ, **rival.QUIET}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [
                *(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
            ],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: _answers(uri), seconds=120)
        subprocess.run([python, FILL, uri], env=environment, check=True, cwd=folder)
        yield uri
    finally:
        os.killpg(server.pid, 9)
        server.wait()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Run the services that are imported into."""
    with running(tmp_path_factory.mktemp("services")) as found:
        yield found


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
