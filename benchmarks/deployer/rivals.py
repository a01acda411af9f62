"""MLServer, BentoML and `mlflow models serve` with our classifier, in environments of their own."""

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

MLSERVER = (
    "mlserver==1.7.1",
    "mlserver-sklearn==1.7.1",
    "scikit-learn==1.7.2",
    "setuptools<81",
    "uvloop<0.22",  # its workers end at once with newer ones
)
BENTOML = ("bentoml==1.4.40", "scikit-learn==1.7.2")
ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".venv"
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


_BENTO = """
import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self):
        self.model = joblib.load("model.joblib")

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x)
"""


def _python(name: str, packages: tuple[str, ...]) -> Path:
    """Return a rival's own interpreter; its environment is made when it is missing."""
    environment = ENVIRONMENTS / name
    python = environment / "bin" / "python"
    if not python.exists():
        uv = find_uv_bin()
        subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(environment)], check=True)
        install = (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
        subprocess.run([*install, *packages], check=True)
    return python


@contextmanager
def mlserver(folder: Path, *, workers: int) -> Iterator[tuple[str, str]]:
    """Run MLServer; yield its HTTP and its gRPC address. The model is called `clf`.

    Args:
        folder: Where its files go.
        workers: The processes that predict; 0: the server itself does.
    """
    python, http, grpc = _python("mlserver", MLSERVER), free_port(), free_port()
    place = folder / f"mlserver-{workers}"
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
        "parallel_workers": workers,
        "logging_settings": None,
    }
    (place / "model-settings.json").write_text(json.dumps(model))
    (place / "settings.json").write_text(json.dumps(settings))
    command = [str(python.with_name("mlserver")), "start", str(place)]
    log = folder / f"mlserver-{workers}.log"
    with _running(command, log, f"http://127.0.0.1:{http}/v2/health/ready"):
        yield f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"


@contextmanager
def bentoml(folder: Path) -> Iterator[str]:
    """Run BentoML; yield its address. It predicts at `/predict`."""
    python, port, place = _python("bentoml", BENTOML), free_port(), folder / "bentoml"
    place.mkdir()
    subprocess.run([python, "-c", _TRAIN, "joblib", str(place / "model.joblib")], check=True)
    (place / "service.py").write_text(_BENTO)
    command = [str(python.with_name("bentoml")), "serve", "service:Classifier", "--quiet"]
    command += ["--working-dir", str(place), "--host", "127.0.0.1", "--port", str(port)]
    variables = {"BENTOML_HOME": str(place / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    log = folder / "bentoml.log"
    with _running(command, log, f"http://127.0.0.1:{port}/readyz", place, variables):
        yield f"127.0.0.1:{port}"


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
def _running(
    command: list[str],
    log: Path,
    url: str,
    folder: Path | None = None,
    variables: dict[str, str] | None = None,
) -> Iterator[None]:
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **rival.QUIET, "PATH": path, **(variables or {})}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output
        )
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
