"""Gates as one writes them on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard.deployer.v1 import environment_pb2
    from modelyard.metadata.v1 import model_pb2

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_THRESHOLD = re.compile(rf"(?P<metric>.+?)\s*(?P<operator>>=|<=|>|<)\s*(?P<number>{_NUMBER})")
_LIVE = re.compile(
    r"(?P<metric>.+?)\s*(?P<operator>>=|<=|>|<)\s*live"
    rf"(?:\s*(?P<sign>[-+])\s*(?P<margin>{_NUMBER}))?"
)
_BETTER = re.compile(rf"better:(?P<metric>[^:]+)(?::(?P<margin>{_NUMBER}))?")
_ID = re.compile(r"[^a-z0-9]+")


def parse_gate(text: str) -> environment_pb2.Gate:
    """Read a gate.

    `f1 >= 0.7` and `f1 > 0.7` demand a value, `f1 > live`, `f1 >= live + 0.01` and
    `loss < live` progress; `better:f1` and `better:f1:0.01` too, in the direction that the
    model says is better; `tests` that the source's tests passed.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    text = text.strip()
    if text == "tests":
        return pb.Gate(gate_id="tests-passed", tests_passed=pb.TestsPassed())
    if found := _BETTER.fullmatch(text):
        condition = pb.BetterThanLive(metric=found["metric"], margin=float(found["margin"] or 0))
        return pb.Gate(gate_id=_gate_id(found["metric"], "better"), better_than_live=condition)
    if found := _LIVE.fullmatch(text):
        return _progress(found)
    if found := _THRESHOLD.fullmatch(text):
        return _threshold(found)
    raise InvalidArgumentError(
        f"{text!r} is no gate: write METRIC > NUMBER, METRIC > live, better:METRIC or tests",
        reason="INVALID_FIELD",
    )


def _threshold(found: re.Match[str]) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    threshold = pb.MetricThreshold(
        metric=found["metric"],
        threshold=float(found["number"]),
        goal=_goal(found["operator"]),
        strict="=" not in found["operator"],
    )
    suffix = "floor" if found["operator"].startswith(">") else "ceiling"
    return pb.Gate(gate_id=_gate_id(found["metric"], suffix), metric_threshold=threshold)


def _progress(found: re.Match[str]) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    higher = found["operator"].startswith(">")
    margin = float(found["margin"] or 0)
    if margin and (found["sign"] == "+") is not higher:
        message = f"{found[0]!r} lets worse pass: write `> live + …` or `< live - …`"
        raise InvalidArgumentError(message, reason="INVALID_FIELD")
    condition = pb.BetterThanLive(
        metric=found["metric"],
        margin=margin,
        goal=_goal(found["operator"]),
        strict="=" not in found["operator"],
    )
    return pb.Gate(gate_id=_gate_id(found["metric"], "better"), better_than_live=condition)


def _goal(operator: str) -> model_pb2.MetricGoal.ValueType:
    from modelyard.metadata.v1 import model_pb2 as pb  # noqa: PLC0415

    return pb.METRIC_GOAL_MAXIMIZE if operator.startswith(">") else pb.METRIC_GOAL_MINIMIZE


def _gate_id(metric: str, suffix: str) -> str:
    return f"{_ID.sub('-', metric.lower()).strip('-') or 'metric'}-{suffix}"
