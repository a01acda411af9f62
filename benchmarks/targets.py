"""The one table of targets; a bar holds when its value is on the right side of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """On which side of its target a value must lie."""

    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Target:
    """What a bar demands."""

    side: Side
    value: float
    unit: str

    def holds(self, value: float) -> bool:
        """Say whether a measured value meets the target; NaN never does."""
        return value <= self.value if self.side is Side.AT_MOST else value >= self.value


TARGETS: dict[str, dict[str, Target]] = {
    "suite": {
        "start to ready": Target(Side.AT_MOST, 3.5, "s"),
        "idle memory of all processes": Target(Side.AT_MOST, 350, "MB"),
        "import modelyard above bare Python": Target(Side.AT_MOST, 60, "ms"),
        "modelyard --help above bare Python": Target(Side.AT_MOST, 250, "ms"),
    },
}
