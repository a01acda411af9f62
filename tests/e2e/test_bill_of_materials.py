"""The bill of materials of a version: complete, and valid by the standard's own schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import modelyard
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.e2e.suite import EmbeddedSuite


def test_it_names_what_a_version_is_made_of(
    embedded: EmbeddedSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_SERVER", embedded.address)
    monkeypatch.setenv("MODELYARD_TOKEN", embedded.token)
    folder = tmp_path / "model"
    (folder / "environment").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w")
    lock = "numpy==2.1.0\nscikit_learn==1.5.0 ; python_version >= '3.9'\n"
    (folder / "environment" / "requirements.lock").write_text(lock)
    table = tmp_path / "prices.csv"
    table.write_text("a,b\n1,2\n")
    with embedded.client() as client:
        with modelyard.start_run("billed") as run:
            run.log_params({"depth": 3, "rate": 0.5})
            run.log_metric("f1", 0.75, step=1)
            run.log_dataset("train", table, name="prices", source="s3://prices/2026")
        artifact = client.artifacts.push(folder)
        version = client.versions.create(
            "billed", artifact.name, run=run.name, label="1.2.0", license="Apache-2.0"
        )
        text = client.versions.bom(version.name)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    model = bom["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        "billed",
        "1.2.0",
    )
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "f1", "value": "0.75"}
    ]
    parts = {part["bom-ref"]: part for part in bom["components"]}
    assert "pkg:pypi/scikit-learn@1.5.0" in parts
    (data,) = (part for part in parts.values() if part["type"] == "data")
    assert (data["name"], data["description"]) == ("prices", "s3://prices/2026")
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": data["bom-ref"]}]
    assert parts["file:weights.bin"]["hashes"][0]["alg"] == "SHA-256"
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import modelyard.cli as c; c.main()",
            "versions",
            "bom",
            version.name,
        ],
        env={**os.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout)["metadata"]["component"]["name"] == "billed"
