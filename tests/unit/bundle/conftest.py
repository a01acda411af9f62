"""Sources, and running things in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
import modelyard
import numpy as np
from features import widen


class Churn(modelyard.Model):
    example = {"x": np.array([[1.0, 2.0]])}

    def build(self, context):
        self.factor = context.param("factor", 2.0)
        modelyard.log_metric("loss", 0.5, step=1)
        print("built")

    def predict(self, inputs):
        return widen(inputs["x"]) * self.factor
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source folder with a model and a module beside it."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)
    (folder / "features.py").write_text("def widen(x):\n    return x + 1\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    return folder


def run_python(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python and return what it said."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**env, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
