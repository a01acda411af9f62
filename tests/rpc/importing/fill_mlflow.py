"""Fill an MLflow server, with its own client: `python fill_mlflow.py URI`."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, RunTag

POINTS = 10_000
RUNS = 25


def main(uri: str) -> None:
    """Log runs of three experiments, register models, move aliases."""
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "files")
        (tree / "deep" / "düne").mkdir(parents=True)
        (tree / "deep" / "düne" / "größe 1.txt").write_text("unicode\n")
        (tree / "empty").touch()
        (tree / "model.bin").write_bytes(bytes(range(256)) * 4096)
        made = [
            _run(client, client.create_experiment(name), number, tree)
            if number == 0
            else _run(client, client.get_experiment_by_name(name).experiment_id, number, tree)
            for name in ("churn", "Fraud / 2026 (Süd)", "sweep")
            for number in range(RUNS if name == "sweep" else RUNS // 2)
        ]
    long = made[0]
    now = int(time.time() * 1000)
    for start in range(0, POINTS, 1000):
        points = [
            Metric("loss", _value(step), now + step, step) for step in range(start, start + 1000)
        ]
        client.log_batch(long, metrics=points)
    for name in ("churn", "Risk Model #1"):
        client.create_registered_model(name, tags={"team": "risk"}, description="A model.")
        for run in made[:3]:
            version = client.create_model_version(
                name, f"runs:/{run}/files", run, tags={"k": "ü"}, description="from a run"
            )
        client.set_registered_model_alias(name, "champion", "2")
        client.set_registered_model_alias(name, "Best_One", version.version)
    # As its users log models since MLflow 3: the files belong to a model, not to a run.
    mlflow.set_experiment("churn")
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model", python_model=predict, registered_model_name="logged", input_example=["a"]
        )
    client.delete_run(made[-1])


def predict(model_input: list[str]) -> list[str]:
    """Answer what was asked."""
    return model_input


def _run(client: mlflow.MlflowClient, experiment: str, number: int, tree: Path) -> str:
    tags = {"mlflow.runName": f"run {number}", "mlflow.note.content": "notes\nof it"}
    run = client.create_run(experiment, tags=tags).info.run_id
    client.log_batch(
        run,
        metrics=[Metric("f1 score/test", number / 7, 1_700_000_000_000 + number, 0)],
        params=[Param("lr", str(1 / (number + 1))), Param("deep/er key", "x" * 500)],
        tags=[RunTag("team", "risk"), RunTag("a" * 100, "long key"), RunTag("long", "y" * 400)],
    )
    if number < 3:
        client.log_artifacts(run, str(tree), "files")
    if number % 3 == 1:
        child = client.create_run(experiment, tags={"mlflow.parentRunId": run}).info.run_id
        client.set_terminated(child, "FAILED")
    if number % 5 != 4:
        client.set_terminated(run, ["FINISHED", "FAILED", "KILLED"][number % 3])
    return str(run)


def _value(step: int) -> float:
    return {13: math.nan, 14: math.inf, 15: -math.inf}.get(step, step / 7)


if __name__ == "__main__":
    main(sys.argv[1])
