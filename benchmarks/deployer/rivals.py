"""MLServer and `mlflow models serve`, in environments of their own, with the same classifier."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from uv import find_uv_bin

from benchmarks.metadata import rival
from services.suite.start import free_port

MLSERVER = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "scikit-learn==1.7.2", "setuptools<81")
ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv" / "mlserver"
START_SECONDS = 120.0
_TRAIN = """
import sys
import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
x, y = load_breast_cancer(return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
if sys.argv[1] == "mlflow":
    import mlflow.sklearn
    mlflow.sklearn.save_model(model, sys.argv[2])
else:
    joblib.dump(model, sys.argv[2])
"""


def mlserver_python() -> Path:
    """Return MLServer's own interpreter; its environment is made when it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        uv = find_uv_bin()
        subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(ENVIRONMENT)], check=True)
        install = (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
        subprocess.run([*install, *MLSERVER], check=True)
    return python


@contextmanager
def mlserver(folder: Path) -> Iterator[tuple[str, str]]:
    """Run MLServer; yield its HTTP and its gRPC address. The model is called `clf`."""
    python, http, grpc = mlserver_python(), free_port(), free_port()
    place = folder / "mlserver"
    place.mkdir()
    subprocess.run([python, "-c", _TRAIN, "joblib", str(place / "model.joblib")], check=True)
    model = {
        "name": "clf",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "1"},
    }
    settings = {
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": free_port(),
        "debug": False,
        "host": "127.0.0.1",
        "parallel_workers": 1,
        "logging_settings": None,
    }
    (place / "model-settings.json").write_text(json.dumps(model))
    (place / "settings.json").write_text(json.dumps(settings))
    command = [str(python.with_name("mlserver")), "start", str(place)]
    with _running(command, folder / "mlserver.log", f"http://127.0.0.1:{http}/v2/health/ready"):
        yield f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """Run `mlflow models serve`; yield its address."""
    python, port, place = rival.interpreter(), free_port(), folder / "mlflow-model"
    subprocess.run(
        [python, "-c", _TRAIN, "mlflow", str(place)],
        env={**os.environ, **rival.QUIET},
        check=True,
        capture_output=True,
    )
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", str(place)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, folder / "serve.log", f"http://127.0.0.1:{port}/ping"):
        yield f"127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], log: Path, url: str) -> Iterator[None]:
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **rival.QUIET, "PATH": path}
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait_ready(process, url, log)
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=10)
        for child in left:
            child.kill()
        process.wait(20)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - ours
                if answer.status == 200:
                    return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(errors="replace")
                raise RuntimeError(f"{url} did not start:\n{text[-4000:]}") from None
        time.sleep(0.2)
