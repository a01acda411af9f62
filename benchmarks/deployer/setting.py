"""A running suite with a classifier live behind Envoy, and how it is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import modelyard
from modelyard.deployer.v1 import deployment_pb2
from modelyard.serving import open_inference_service_pb2 as pb

from benchmarks.runner import Scale
from services.suite.children import Layout
from services.suite.start import free_port, start_suite

ENVIRONMENT = "bench"
MODEL = "clf"
FEATURES = 30
CLIENTS = 16
WAIT_SECONDS = 300.0
REQUIREMENTS = "scikit-learn==1.7.2\n"
SOURCE = """
from typing import ClassVar

import modelyard
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class Classifier(modelyard.Model):
    example: ClassVar = {"x": np.zeros((1, 30))}

    def build(self, context):
        x, y = load_breast_cancer(return_X_y=True)
        self.model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)

    def predict(self, inputs):
        return {"predict": self.model.predict(inputs["x"])}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What some clients got in a while."""

    rate: float
    p50: float
    p99: float
    failures: int
    sample: str
    """How the first of the failures failed."""


@dataclass(slots=True)
class Setting:
    """Where everything is."""

    scale: Scale
    folder: Path
    layout: Layout
    pid: int
    versions: tuple[str, str] = ("", "")
    address: str = ""

    def client(self) -> modelyard.Client:
        """Return a client that may do everything."""
        token = self.layout.admin_token.read_text().strip()
        return modelyard.Client(self.layout.address, token=token, project="default")

    def deploy(self, version: str, **how: object) -> float:
        """Deploy a version; return how many seconds passed until it was live."""
        begun = time.perf_counter()
        with self.client() as client:
            client.deployments.deploy(version, environment=ENVIRONMENT, **how)  # type: ignore[arg-type]
            ended = client.deployments.wait(MODEL, environment=ENVIRONMENT, timeout=WAIT_SECONDS)
        if ended.state != deployment_pb2.DEPLOYMENT_STATE_LIVE:
            raise RuntimeError(f"not live: {ended.failure}")
        return time.perf_counter() - begun


@contextmanager
def running(scale: Scale) -> Iterator[Setting]:
    """Run a suite, build two versions of the classifier, and put the first one live."""
    folder = Path(tempfile.mkdtemp(prefix="modelyard-benchmark-"))
    layout = Layout(folder / "suite", free_port(), free_port())
    suite = start_suite(layout, environment={})
    try:
        setting = Setting(scale, folder, layout, suite.pid)
        setting.versions = (_build(setting), _build(setting))
        with setting.client() as client:
            client.environments.create(ENVIRONMENT)
        setting.deploy(setting.versions[0])
        with setting.client() as client:
            setting.address = client.environments.get(ENVIRONMENT).address
        yield setting
    finally:
        suite.terminate()
        suite.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _build(setting: Setting) -> str:
    source = setting.folder / MODEL
    source.mkdir(exist_ok=True)
    (source / "model.py").write_text(SOURCE)
    (source / "requirements.txt").write_text(REQUIREMENTS)
    with setting.client() as client:
        order = client.builds.create(source, model=MODEL)
        ended = client.builds.wait(order.name, timeout=WAIT_SECONDS)
    if not ended.version:
        raise RuntimeError(f"a build failed: {ended.failure}")
    return ended.version


def load(
    kind: str, address: str, path: str, body: bytes, *, seconds: float, clients: int = CLIENTS
) -> Load:
    """Have clients of a process of their own ask for so many seconds."""
    command = [sys.executable, "-m", "benchmarks.deployer.load", kind, address, path]
    command += [str(clients), str(seconds)]
    done = subprocess.run(command, input=body, stdout=subprocess.PIPE, check=True, env=os.environ)
    return Load(**json.loads(done.stdout))


def v2_body(rows: int, name: str = "x") -> bytes:
    """Return a request of the Open Inference Protocol in JSON."""
    shape, data = [rows, FEATURES], [0.5] * (rows * FEATURES)
    tensor = {"name": name, "datatype": "FP64", "shape": shape, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def grpc_body(rows: int, model: str = MODEL) -> bytes:
    """Return a serialised request of the Open Inference Protocol."""
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP64", shape=[rows, FEATURES])
    tensor.contents.fp64_contents.extend([0.5] * (rows * FEATURES))
    return request.SerializeToString()


def bentoml_body(rows: int) -> bytes:
    """Return a request of BentoML's own protocol."""
    return json.dumps({"x": [[0.5] * FEATURES] * rows}).encode()


def mlflow_body(rows: int) -> bytes:
    """Return a request of MLflow's own protocol."""
    return json.dumps({"inputs": [[0.5] * FEATURES] * rows}).encode()
