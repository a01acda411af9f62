"""`modelyard import mlflow` from a real MLflow server: all of it, once, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from modelyard import Client
from modelyard.importing.mlflow import MlflowServer, mapping
from modelyard.metadata.v1 import run_pb2

from tests.rpc.metadata.conftest import Services, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STATES = {
    "FINISHED": run_pb2.RUN_STATE_SUCCEEDED,
    "FAILED": run_pb2.RUN_STATE_FAILED,
    "KILLED": run_pb2.RUN_STATE_CANCELLED,
    "RUNNING": run_pb2.RUN_STATE_RUNNING,
}


def importing(services: Services, uri: str, *options: str) -> subprocess.Popen[str]:
    """Start an import."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")} | {
        "MODELYARD_SERVER": services.layout.address,
        "MODELYARD_TOKEN": services.token(),
        "MODELYARD_PROJECT": "default",
    }
    return subprocess.Popen(
        [Path(sys.executable).with_name("modelyard"), "import", "mlflow", "--uri", uri, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for an import; return what it said."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == status, output[-3000:]
    return output


def test_all_of_it_arrives_once_though_the_import_is_killed(
    mlflow: str, services: Services, tmp_path: Path
) -> None:
    plan = finished(importing(services, mlflow, "--dry-run"))
    assert "would be imported" in plan
    with services.client() as client:
        assert not list(client.models.list())
        for seen in (3, 12):
            process = importing(services, mlflow)
            until(lambda seen=seen: len(list(client.runs.list())) >= seen, seconds=120)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
        started = time.monotonic()
        print(finished(importing(services, mlflow)), f"in {time.monotonic() - started:.1f} s")
        again = finished(importing(services, mlflow))
        assert "imported: nothing" in again, again[-2000:]
        with MlflowServer(mlflow) as server:
            check_runs(server, client)
            check_models(server, client, tmp_path)


def check_runs(server: MlflowServer, client: Client) -> None:
    """Hold every run of the server against what is here."""
    here = {run.name.rpartition("/")[2]: run for run in client.runs.list()}
    expected = 0
    for experiment in server.experiments():
        for run in server.runs(experiment["experiment_id"]):
            expected += 1
            found = client.runs.get(here[mapping.run_id(run["info"]["run_id"])].name)
            check_run(server, client, run, found)
            assert found.tags["mlflow.experiment"] == experiment["name"]
    assert expected == len(here) > 50


def check_run(
    server: MlflowServer, client: Client, run: dict[str, Any], found: run_pb2.Run
) -> None:
    """Hold a run against what is here."""
    info, data = run["info"], run.get("data", {})
    assert found.state == STATES[info["status"]]
    assert found.display_name == info.get("run_name", "")
    assert found.group == mapping.group_of(run)
    assert found.notes == mapping.notes_of(run)
    params = {key: value.string_value for key, value in found.params.items()}
    assert params == mapping.pairs(data.get("params", ()))
    for metric in data.get("metrics", ()):
        points = client.runs.metric_points(found.name, metric["key"])
        ours = zip(points.steps, points.times_us, map(repr, points.values), strict=True)
        history = server.history(info["run_id"], metric["key"])
        assert Counter(ours) == Counter((p.step, p.time_us, repr(p.value)) for p in history)
    files = {file.path for file in server.run_files(info["run_id"])}
    artifact = found.tags.get("mlflow.artifact", "")
    assert bool(files) == bool(artifact)
    if files:
        assert {file.path for file in client.artifacts.files(artifact)} == files


def check_models(server: MlflowServer, client: Client, folder: Path) -> None:
    """Hold every registered model against what is here."""
    names = []
    for model in server.models():
        name = mapping.model_id(model["name"])
        names.append(model["name"])
        ours = client.models.get(name)
        assert ours.description == model.get("description", "")
        assert ours.labels["mlflow.name"] == model["name"]
        versions = {v.labels[mapping.VERSION_LABEL]: v for v in client.versions.list(name)}
        theirs = server.versions(model["name"])
        assert sorted(versions) == sorted(str(version["version"]) for version in theirs)
        if name == "logged":
            assert "MLmodel" in {file.path for file in client.artifacts.files("logged/1")}
            continue
        for version in theirs:
            found = versions[str(version["version"])]
            assert found.labels[mapping.RUN_LABEL] == version["run_id"]
            assert found.labels["k"] == "ü"
        aliases = {
            alias.name.rpartition("/")[2]: alias.version for alias in client.aliases.list(name)
        }
        assert aliases == {
            mapping.alias_id(alias["alias"]): versions[str(alias["version"])].name
            for alias in model["aliases"]
        }
        tree = client.artifacts.pull(f"{name}@champion", folder / name)
        assert (tree / "deep" / "düne" / "größe 1.txt").read_text() == "unicode\n"
        assert (tree / "empty").read_bytes() == b""
        assert (tree / "model.bin").read_bytes() == bytes(range(256)) * 4096
    assert sorted(names) == ["Risk Model #1", "churn", "logged"]
    linked = client.versions.get("churn@champion")
    assert linked.run or client.versions.get(f"{mapping.model_id('Risk Model #1')}@champion").run


def test_what_is_new_since_is_added(mlflow: str, services: Services) -> None:
    finished(importing(services, mlflow))
    with MlflowServer(mlflow) as server, services.client() as client:
        (experiment,) = [e for e in server.experiments() if e["name"] == "churn"]
        run = next(iter(server.runs(experiment["experiment_id"])))["info"]["run_id"]
        body = {"run_id": run, "key": "loss", "value": 0.25, "step": 70_000}
        body |= {"timestamp": int(time.time() * 1000) + 100_000}
        server._http.post("/api/2.0/mlflow/runs/log-metric", json=body).raise_for_status()
        output = finished(importing(services, mlflow))
        assert "\nimported: 1 points, 1 runs\n" in output
        (found,) = client.runs.search(filter=f'id = "{mapping.run_id(run)}"')
        points = client.runs.metric_points(found.name, "loss")
        assert (points.steps[-1], points.values[-1], len(points)) == (70_000, 0.25, 10_001)


def test_what_is_no_server_is_said(services: Services) -> None:
    output = finished(importing(services, "http://127.0.0.1:9"), status=1)
    assert "127.0.0.1:9" in output
    assert "Traceback" not in output
    assert "http:// or https://" in finished(importing(services, "file:///tmp"), status=1)
