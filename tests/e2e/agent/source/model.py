"""A model that multiplies: the answer tells which version gave it."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import modelyard
import numpy as np


class Times(modelyard.Model):
    """Multiply by a factor."""

    factor: int = 1
    fails: bool = False
    seconds: float = 0.0
    example: ClassVar = {"x": np.array([1.0, 2.0])}

    def build(self, context: Any) -> None:
        """Train nothing."""

    def predict(self, inputs: Any) -> Any:
        """Multiply; one row alone, which the example is not, may fail or take its time."""
        if len(inputs["x"]) == 1:
            time.sleep(self.seconds)
            if self.fails:
                raise RuntimeError("it fails")
        return {"y": inputs["x"] * float(self.factor)}
