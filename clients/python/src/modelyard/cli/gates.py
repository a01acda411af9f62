"""Gates as one writes them, on the command line and in files of automations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard.deployer.v1 import environment_pb2
    from modelyard.metadata.v1 import model_pb2

FORMS = (
    "METRIC >= NUMBER, METRIC > live + MARGIN, better:METRIC:MARGIN (each may end in @DATASET), "
    "tests, evaluated:METRIC@DATASET, signed:PUBLIC_KEY.pem, format, format:unverified, approvals:N"
)
"""How gates are written; a margin, and what follows `evaluated`, may be left out."""
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_DATASET = r"(?:\s*@(?P<dataset>[a-z0-9-]+))?"
_OPERATOR = r"(?P<metric>.+?)\s*(?P<operator>>=|<=|>|<)\s*"
_LIVE = re.compile(rf"{_OPERATOR}live(?:\s*(?P<sign>[-+])\s*(?P<margin>{_NUMBER}))?{_DATASET}")
_THRESHOLD = re.compile(rf"{_OPERATOR}(?P<number>{_NUMBER}){_DATASET}")
_BETTER = re.compile(rf"better:(?P<metric>[^:@]+)(?::(?P<margin>{_NUMBER}))?{_DATASET}")
_EVALUATED = re.compile(rf"evaluated(?::(?P<metric>[^:@]+))?{_DATASET}")
_APPROVED = re.compile(r"approvals:(?P<count>[0-9]{1,3})")
_SIGNED = re.compile(r"signed:(?P<file>.+)")
_ID = re.compile(r"[^a-z0-9]+")


def parse_gate(text: str, *, project: str = "") -> environment_pb2.Gate:
    """Read a gate in one of `FORMS`.

    `f1 >= 0.7` and `f1 > 0.7` demand a value, `f1 > live`, `f1 >= live + 0.01` and
    `loss < live` progress; `better:f1` and `better:f1:0.01` too, in the direction that the
    model says is better.

    Args:
        text: the gate.
        project: the full name of the project whose datasets are meant.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    text = text.strip()
    if text == "tests":
        return pb.Gate(gate_id="tests-passed", tests_passed=pb.TestsPassed())
    if text in ("format", "format:unverified"):
        condition = pb.FormatAllowed(unverified=text != "format")
        return pb.Gate(gate_id="format-allowed", format_allowed=condition)
    for form, read in _FORMS.items():
        if found := form.fullmatch(text):
            return read(found, project)
    raise InvalidArgumentError(f"{text!r} is no gate: write {FORMS}", reason="INVALID_FIELD")


def words(gate: environment_pb2.Gate) -> str:
    """Write a gate as `parse_gate` reads it; one that is not about a metric by its id."""
    kind = gate.WhichOneof("condition")
    if kind not in ("metric_threshold", "better_than_live"):
        return gate.gate_id
    condition = gate.metric_threshold if kind == "metric_threshold" else gate.better_than_live
    dataset = condition.dataset.rpartition("/")[2]
    where = f" @{dataset}" if dataset else ""
    return f"{_comparison(gate)}{where}"


def _comparison(gate: environment_pb2.Gate) -> str:
    from modelyard.metadata.v1 import model_pb2 as pb  # noqa: PLC0415

    is_threshold = gate.WhichOneof("condition") == "metric_threshold"
    condition = gate.metric_threshold if is_threshold else gate.better_than_live
    sign = {pb.METRIC_GOAL_MAXIMIZE: ">", pb.METRIC_GOAL_MINIMIZE: "<"}.get(condition.goal)
    operator = f"{sign}{'' if condition.strict else '='}"
    if is_threshold:
        bound = f"{gate.metric_threshold.threshold:g}"
        return f"{condition.metric} {operator if sign else 'reaches'} {bound}"
    margin = gate.better_than_live.margin
    if sign is None:
        return f"better:{condition.metric}" + (f":{margin:g}" if margin else "")
    step = f" {'+' if sign == '>' else '-'} {margin:g}" if margin else ""
    return f"{condition.metric} {operator} live{step}"


def _better(found: re.Match[str], project: str) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    condition = pb.BetterThanLive(
        metric=found["metric"],
        margin=float(found["margin"] or 0),
        dataset=_dataset(found, project),
    )
    return pb.Gate(gate_id=_gate_id(found["metric"], "better"), better_than_live=condition)


def _progress(found: re.Match[str], project: str) -> environment_pb2.Gate:
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
        dataset=_dataset(found, project),
    )
    return pb.Gate(gate_id=_gate_id(found["metric"], "better"), better_than_live=condition)


def _threshold(found: re.Match[str], project: str) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    threshold = pb.MetricThreshold(
        metric=found["metric"],
        threshold=float(found["number"]),
        goal=_goal(found["operator"]),
        strict="=" not in found["operator"],
        dataset=_dataset(found, project),
    )
    suffix = "floor" if found["operator"].startswith(">") else "ceiling"
    return pb.Gate(gate_id=_gate_id(found["metric"], suffix), metric_threshold=threshold)


def _evaluated(found: re.Match[str], project: str) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    condition = pb.EvaluationPresent(metric=found["metric"], dataset=_dataset(found, project))
    return pb.Gate(gate_id="evaluated", evaluation_present=condition)


def _approved(found: re.Match[str], _project: str) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    return pb.Gate(gate_id="approved", approved=pb.Approved(count=int(found["count"])))


def _signed(found: re.Match[str], _project: str) -> environment_pb2.Gate:
    from modelyard.deployer.v1 import environment_pb2 as pb  # noqa: PLC0415

    try:
        key = Path(found["file"]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{found['file']} cannot be read: {error}"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD") from None
    return pb.Gate(gate_id="signed", signature_valid=pb.SignatureValid(public_keys=[key]))


_FORMS: Mapping[re.Pattern[str], Callable[[re.Match[str], str], environment_pb2.Gate]] = {
    _BETTER: _better,
    _EVALUATED: _evaluated,
    _APPROVED: _approved,
    _SIGNED: _signed,
    _LIVE: _progress,
    _THRESHOLD: _threshold,
}


def _goal(operator: str) -> model_pb2.MetricGoal.ValueType:
    from modelyard.metadata.v1 import model_pb2 as pb  # noqa: PLC0415

    return pb.METRIC_GOAL_MAXIMIZE if operator.startswith(">") else pb.METRIC_GOAL_MINIMIZE


def _dataset(found: re.Match[str], project: str) -> str:
    return f"{project}/datasets/{found['dataset']}" if found["dataset"] else ""


def _gate_id(metric: str, suffix: str) -> str:
    return f"{_ID.sub('-', metric.lower()).strip('-') or 'metric'}-{suffix}"
