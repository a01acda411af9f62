"""A model that multiplies: the answer tells which version gave it."""

from __future__ import annotations

from typing import Any, ClassVar

import modelyard
import numpy as np


class Times(modelyard.Model):
    """Multiply by a factor."""

    factor: int = 1
    example: ClassVar = {"x": np.array([1.0, 2.0])}

    def build(self, context: Any) -> None:
        """Train nothing."""

    def predict(self, inputs: Any) -> Any:
        """Multiply."""
        return {"y": inputs["x"] * float(self.factor)}
