"""What MLflow's names, tags and runs become."""

from __future__ import annotations

from typing import Any

import pytest
from modelyard.importing.mlflow import MlflowError, MlflowServer, mapping


@pytest.mark.parametrize("name", ["Fraud / 2026", "42", "", "ünïcode", "a" * 200, "-x-", "UPPER"])
def test_ids_are_valid_and_never_shared(name: str) -> None:
    found = mapping.model_id(name)
    assert mapping._ID.fullmatch(found)
    assert found != mapping.model_id(name + " ")
    assert found == mapping.model_id(name)


def test_what_is_an_id_stays() -> None:
    assert mapping.model_id("churn") == "churn"
    assert mapping.alias_id("best-one") == "best-one"


def test_tags_keep_to_the_limits_and_say_what_was_lost() -> None:
    found = mapping.fitted(
        {"first": "1", "empty": ""},
        {"first": "2", "k" * 99: "v", "long": "x" * 300, "lines": "a\nb"},
        room=3,
    )
    assert found.kept == {"first": "1", "k" * 63: "v", "long": "x" * 255}
    assert found.lost == ["k" * 99, "long", "lines"]


def run(**data: Any) -> dict[str, Any]:
    info = {"run_id": "f" * 32, "status": "FINISHED", "start_time": 1_700_000_000_123}
    return {"info": info, "data": data}


def test_a_run_s_fingerprint_changes_with_what_is_logged() -> None:
    point = {"key": "loss", "value": 1.0, "timestamp": 1, "step": 0}
    marks = {
        mapping.fingerprint(run()),
        mapping.fingerprint(run(metrics=[point])),
        mapping.fingerprint(run(metrics=[{**point, "step": 1}])),
        mapping.fingerprint(run(params=[{"key": "a", "value": "1"}])),
        mapping.fingerprint(run(tags=[{"key": "a", "value": "1"}])),
    }
    assert len(marks) == 5


def test_a_run_s_own_tags_come_before_what_mlflow_notes() -> None:
    parent = "a" * 32
    tags = [{"key": "mlflow.parentRunId", "value": parent}, {"key": "team", "value": "risk"}]
    found = mapping.run_tags(run(tags=tags), "churn")
    assert list(found.kept)[:2] == ["mlflow.run_id", "mlflow.experiment"]
    assert found.kept["mlflow.start_time"] == "2023-11-14T22:13:20.123Z"
    assert list(found.kept).index("team") < list(found.kept).index("mlflow.parentRunId")
    assert mapping.group_of(run(tags=tags)) == f"mlflow-{parent}"
    assert mapping.group_of(run()) == ""


def test_only_servers_are_read() -> None:
    with pytest.raises(MlflowError, match="http"):
        MlflowServer("sqlite:///mlflow.db")
