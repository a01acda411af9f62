"""A model that multiplies: the answer tells which version gave it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import modelyard
import numpy as np


class Times(modelyard.Model):
    """Multiply by a factor."""

    factor: int = 1
    fails: bool = False
    seconds: float = 0.0
    slow_after: int = 0
    dies: bool = False
    stalls: bool = False
    example: ClassVar = {"x": np.array([1.0, 2.0])}

    def build(self, context: Any) -> None:
        """Train nothing."""

    def load(self, path: Path) -> None:
        """Load; or die, or never come to an end."""
        super().load(path)
        self.asked = 0
        if self.dies:
            os._exit(7)
        if self.stalls:
            time.sleep(3_600)

    def predict(self, inputs: Any) -> Any:
        """Multiply; one row alone, which the example is not, may fail or take its time."""
        if len(inputs["x"]) == 1:
            self.asked += 1
            if self.asked > self.slow_after:
                time.sleep(self.seconds)
            if self.fails:
                raise RuntimeError("it fails")
        return {"y": inputs["x"] * float(self.factor)}
