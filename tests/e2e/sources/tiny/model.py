"""A model that builds in a moment: the mean of numbers, shifted by a parameter."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import modelyard
import numpy as np


class Tiny(modelyard.Model):
    """Answer with `level`, whatever was asked."""

    example = {"x": np.array([[1.0], [2.0]])}

    def build(self, context: modelyard.Context) -> None:
        print("training", flush=True)
        print("a warning", file=sys.stderr, flush=True)
        for step in range(int(context.param("steps", 3))):
            modelyard.log_metric("score", context.param("score", 0.9), step=step)
            time.sleep(context.param("pause", 0.0))
        waited = context.param("wait_for", "")
        while waited and not Path(waited).exists():
            time.sleep(0.05)
        self.level = float(context.param("level", 1.0))

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"level": np.full(len(inputs["x"]), self.level)}
