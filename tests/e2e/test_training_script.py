"""A plain training script, outside of the builder, to a live model by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import uv
from modelyard.metadata.v1 import run_pb2

from tests.e2e.suite import EmbeddedSuite, until

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "sklearn-script" / "train.py"
MODELYARD = str(Path(sys.executable).with_name("modelyard"))


def run(*command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_what_a_script_trained_is_recorded_whole_and_goes_live(
    embedded: EmbeddedSuite, tmp_path: Path
) -> None:
    environment = {
        "MODELYARD_SERVER": embedded.address,
        "MODELYARD_TOKEN": embedded.token,
        "MODELYARD_SPOOL_DIR": str(tmp_path / "spool"),
    }
    said = run(
        *(uv.find_uv_bin(), "run", "--quiet", "--no-project", "--with", "scikit-learn"),
        *("--with", str(ROOT / "clients" / "python"), "python", str(SCRIPT)),
        environment=environment,
    )
    run_name, version_name = said.split()

    with embedded.client() as client:
        recorded = until(lambda: ended(client.runs.get(run_name)), what="the run to end")
        assert recorded.state == run_pb2.RUN_STATE_SUCCEEDED
        assert recorded.params["n_estimators"].int_value == 60
        assert recorded.params["learning_rate"].float_value == 0.1
        metrics = {m.key: m for m in recorded.metrics}
        assert metrics["log_loss"].count == 60
        assert 0.9 < metrics["f1"].last <= 1.0
        assert {d.role for d in recorded.datasets} == {"train", "test"}
        assert len(recorded.code.commit) == 40
        assert recorded.environment.python_version
        assert "scikit-learn" in {p.name for p in recorded.environment.packages}
        assert recorded.environment.cpu_count > 0
        version = client.versions.get(version_name)
        assert list(version.aliases) == ["candidate"]
        assert version.metrics["f1"] == metrics["f1"].last
        lock = client.artifacts.read(version_name, "environment/requirements.lock").decode()
        assert "scikit-learn==" in lock

    run(MODELYARD, "environments", "create", "scripts", environment=environment)
    run(MODELYARD, "deploy", "tumours/1", "--env", "scripts", environment=environment)
    answer = json.loads(
        run(MODELYARD, "predict", "tumours", "--env", "scripts", environment=environment)
    )
    assert answer["model_version"] == "1"
    assert len(answer["outputs"][0]["data"]) == 2


def ended(found: run_pb2.Run) -> run_pb2.Run | None:
    return None if found.state == run_pb2.RUN_STATE_RUNNING else found
