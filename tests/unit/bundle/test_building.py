"""The children of the worker: train and smoke."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from modelyard import bundle as bundles
from modelyard import loaders
from modelyard.tracking.batches import read_batches

from tests.unit.bundle.conftest import run_python

LOCK = "numpy==2.0.0\n"


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "params.json").write_text(json.dumps({"factor": 3.0, "n": 2}))
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "spool").mkdir()
    return tmp_path


def train(room: Path, source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(
        "-m",
        "modelyard.building.train",
        *("--source", str(source), "--params", "params.json", "--out", "out"),
        *("--lock", "requirements.lock", "--name", "churn", *arguments),
        cwd=room,
        MODELYARD_BUILD_SPOOL=str(room / "spool"),
    )


def smoke(room: Path) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "modelyard.building.smoke", "--bundle", "out", cwd=room)


def test_a_source_becomes_a_bundle_that_predicts(room: Path, source: Path) -> None:
    done = train(room, source)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "built\n"
    bundle = bundles.read(room / "out")
    assert bundle.entry == "model:Churn"
    assert bundle.model == "churn"
    assert bundle.environment_digest == hashlib.sha256(LOCK.encode()).hexdigest()
    assert bundle.example == {
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]
    }
    assert not (bundle.code_directory / "__pycache__").exists()
    tried = smoke(room)
    assert tried.returncode == 0, tried.stderr
    assert "output-0 FP64 [-1, 2]" in tried.stdout
    answer = loaders.load(bundle).predict({"x": np.array([[1.0, 2.0]])})
    assert answer["output-0"].tolist() == [[6.0, 9.0]]


def test_what_a_build_logs_lies_in_its_spool(room: Path, source: Path) -> None:
    train(room, source)
    (batch,) = read_batches(room / "spool" / "data.jsonl", 0)
    assert batch.request.params["factor"].float_value == 3.0
    assert batch.request.params["n"].int_value == 2
    assert batch.request.metrics[0].key == "loss"
    assert batch.request.environment.python_version


def test_what_the_model_raises_is_shown_and_exits_1(room: Path, source: Path) -> None:
    text = (source / "model.py").read_text().replace('print("built")', "1 / 0")
    (source / "model.py").write_text(text)
    done = train(room, source)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert not (room / "out" / "modelyard.json").exists()


def test_leaving_python_is_no_success(room: Path, source: Path) -> None:
    text = (source / "model.py").read_text().replace('print("built")', "raise SystemExit(0)")
    (source / "model.py").write_text(text)
    assert train(room, source).returncode == 1


@pytest.mark.parametrize(
    ("text", "entry", "line"),
    [
        (None, "", "the source has no model.py"),
        ("x = 1", "", "model.py defines no subclass of modelyard.Model"),
        (
            "from modelyard import Model\nclass A(Model): ...\nclass B(Model): ...",
            "",
            "model.py defines several models (A, B): name one",
        ),
        ("x = 1", "model:x", "model:x is not a modelyard.Model"),
        ("x = 1", "../x", "entry '../x' is not of the form module:Class"),
        (
            "from modelyard import Model\nclass A(Model):\n  def __init__(self, n): ...",
            "",
            "A() must work without arguments",
        ),
    ],
)
def test_an_invalid_source_exits_3_with_one_line(
    room: Path, text: str | None, entry: str, line: str
) -> None:
    source = room / "bad"
    source.mkdir()
    if text is not None:
        (source / "model.py").write_text(text)
    done = train(room, source, "--entry", entry)
    assert done.returncode == 3
    assert done.stderr.startswith(f"source invalid: {line}")
    assert done.stderr.count("\n") == 1


def test_one_of_several_models_can_be_named(room: Path, source: Path) -> None:
    with (source / "model.py").open("a") as file:
        file.write("\n\nclass Other(Churn): ...\n")
    assert train(room, source).returncode == 3
    assert train(room, source, "--entry", "model:Other").returncode == 0
    assert bundles.read(room / "out").entry == "model:Other"


def test_a_model_that_fails_on_its_example_fails_the_smoke_test(room: Path, source: Path) -> None:
    text = (source / "model.py").read_text().replace("return widen", "raise KeyError('q')  #")
    (source / "model.py").write_text(text)
    assert train(room, source).returncode == 0
    done = smoke(room)
    assert done.returncode == 1
    assert "KeyError: 'q'" in done.stderr
    assert "smoke test failed: the model failed on its own example" in done.stderr


def test_without_an_example_the_smoke_test_says_so(room: Path, source: Path) -> None:
    text = (source / "model.py").read_text().replace("example =", "sample =")
    (source / "model.py").write_text(text)
    train(room, source)
    done = smoke(room)
    assert done.returncode == 0, done.stderr
    assert "no example" in done.stdout


def test_a_bundle_that_cannot_be_loaded_fails_the_smoke_test(room: Path, source: Path) -> None:
    train(room, source)
    (room / "out" / "code" / "features.py").unlink()
    done = smoke(room)
    assert done.returncode == 1
    assert "features" in done.stderr
