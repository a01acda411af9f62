"""Gates as one writes them on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard.deployer.v1 import environment_pb2

_THRESHOLD = re.compile(r"(?P<metric>.+?)\s*(?P<operator>>=|<=)\s*(?P<number>[-+0-9.eE]+)")
_BETTER = re.compile(r"better:(?P<metric>[^:]+)(?::(?P<margin>[0-9.eE-]+))?")
_ID = re.compile(r"[^a-z0-9]+")


def parse_gate(text: str) -> environment_pb2.Gate:
    """Read `METRIC>=NUMBER`, `METRIC<=NUMBER`, `better:METRIC[:MARGIN]` or `tests`.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415
    from modelyard.metadata.v1 import model_pb2  # noqa: PLC0415

    if text == "tests":
        return pb.Gate(gate_id="tests-passed", tests_passed=pb.TestsPassed())
    if found := _BETTER.fullmatch(text):
        condition = pb.BetterThanLive(metric=found["metric"], margin=float(found["margin"] or 0))
        return pb.Gate(gate_id=_gate_id(found["metric"], "better"), better_than_live=condition)
    if found := _THRESHOLD.fullmatch(text):
        floor = found["operator"] == ">="
        threshold = pb.MetricThreshold(
            metric=found["metric"],
            threshold=float(found["number"]),
            goal=model_pb2.METRIC_GOAL_MAXIMIZE if floor else model_pb2.METRIC_GOAL_MINIMIZE,
        )
        gate_id = _gate_id(found["metric"], "floor" if floor else "ceiling")
        return pb.Gate(gate_id=gate_id, metric_threshold=threshold)
    raise InvalidArgumentError(
        f"{text!r} is no gate: write METRIC>=NUMBER, METRIC<=NUMBER, better:METRIC or tests",
        reason="INVALID_FIELD",
    )


def _gate_id(metric: str, suffix: str) -> str:
    return f"{_ID.sub('-', metric.lower()).strip('-') or 'metric'}-{suffix}"
