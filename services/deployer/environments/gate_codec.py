"""Gates, verdicts and approvals: proto ↔ domain, pure; what a message may not say is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelyard.deployer.v1 import environment_pb2
from modelyard.metadata.v1 import model_pb2

from services.common.errors import invalid_field
from services.common.names import DatasetName, check_id
from services.deployer.domain import Approval, Gate, GateKind, Goal
from services.deployer.environments.signatures import is_public_key
from services.deployer.timestamps import timestamp

MAX_GATES = 64
MAX_METRIC = 255
MAX_KEYS = 16
MAX_KEY = 4_096
MAX_APPROVALS = 16


def decode_gates(messages: Iterable[environment_pb2.Gate], field: str) -> tuple[Gate, ...]:
    """Decode gates, or refuse them."""
    gates = tuple(_decode_gate(m, f"{field}[{index}]") for index, m in enumerate(messages))
    if len(gates) > MAX_GATES:
        raise invalid_field(field, f"must be at most {MAX_GATES}")
    if len({gate.gate_id for gate in gates}) < len(gates):
        raise invalid_field(field, "must not hold a gate_id twice")
    return gates


def encode_gate(gate: Gate) -> environment_pb2.Gate:
    """Encode a gate."""
    message = environment_pb2.Gate(gate_id=gate.gate_id)
    condition = getattr(message, gate.kind.value.lower())
    condition.SetInParent()
    for field in condition.DESCRIPTOR.fields_by_name:
        value = getattr(gate, field)
        if field == "public_keys":
            condition.public_keys.extend(value)
        elif field == "goal":
            condition.goal = model_pb2.MetricGoal.Value(f"METRIC_GOAL_{value or 'UNSPECIFIED'}")
        else:
            setattr(condition, field, value)
    return message


def encode_approval(approval: Approval) -> environment_pb2.Approval:
    """Encode an approval."""
    return environment_pb2.Approval(
        version=approval.version,
        principal=approval.principal,
        reason=approval.reason,
        create_time=timestamp(approval.create_time),
    )


def _decode_gate(message: environment_pb2.Gate, field: str) -> Gate:
    gate_id = check_id(message.gate_id, f"{field}.gate_id")
    name = message.WhichOneof("condition")
    if name is None:
        raise invalid_field(f"{field}.condition", "must be set")
    kind = GateKind(name.upper())
    fields = _CONDITIONS[kind](getattr(message, name), f"{field}.{name}")
    return Gate(gate_id, kind, **fields)


def _threshold(condition: environment_pb2.MetricThreshold, field: str) -> dict[str, Any]:
    return {
        "metric": _metric(condition.metric, f"{field}.metric"),
        "threshold": _finite(condition.threshold, f"{field}.threshold"),
        "goal": decode_goal(condition.goal),
        "strict": condition.strict,
        "dataset": _dataset(condition.dataset, f"{field}.dataset"),
    }


def _progress(condition: environment_pb2.BetterThanLive, field: str) -> dict[str, Any]:
    if condition.margin < 0:
        raise invalid_field(f"{field}.margin", "must not be negative")
    return {
        "metric": _metric(condition.metric, f"{field}.metric"),
        "margin": _finite(condition.margin, f"{field}.margin"),
        "goal": decode_goal(condition.goal),
        "strict": condition.strict,
        "dataset": _dataset(condition.dataset, f"{field}.dataset"),
    }


def _evaluation(condition: environment_pb2.EvaluationPresent, field: str) -> dict[str, Any]:
    metric = condition.metric and _metric(condition.metric, f"{field}.metric")
    return {"metric": metric, "dataset": _dataset(condition.dataset, f"{field}.dataset")}


def _signature(condition: environment_pb2.SignatureValid, field: str) -> dict[str, Any]:
    keys = tuple(condition.public_keys)
    if not 0 < len(keys) <= MAX_KEYS:
        raise invalid_field(f"{field}.public_keys", f"must be 1 to {MAX_KEYS}")
    if not all(len(key) <= MAX_KEY and is_public_key(key) for key in keys):
        problem = "must be elliptic-curve public keys in PEM"
        raise invalid_field(f"{field}.public_keys", problem)
    return {"public_keys": keys}


def _approved(condition: environment_pb2.Approved, field: str) -> dict[str, Any]:
    if not 0 < condition.count <= MAX_APPROVALS:
        raise invalid_field(f"{field}.count", f"must be 1 to {MAX_APPROVALS}")
    return {"count": condition.count}


_CONDITIONS: Mapping[GateKind, Callable[[Any, str], dict[str, Any]]] = {
    GateKind.METRIC_THRESHOLD: _threshold,
    GateKind.BETTER_THAN_LIVE: _progress,
    GateKind.TESTS_PASSED: lambda _condition, _field: {},
    GateKind.EVALUATION_PRESENT: _evaluation,
    GateKind.SIGNATURE_VALID: _signature,
    GateKind.FORMAT_ALLOWED: lambda condition, _field: {"unverified": condition.unverified},
    GateKind.APPROVED: _approved,
}


def _metric(text: str, field: str) -> str:
    if not 0 < len(text) <= MAX_METRIC:
        raise invalid_field(field, f"must have 1 to {MAX_METRIC} characters")
    return text


def _finite(value: float, field: str) -> float:
    if not math.isfinite(value):
        raise invalid_field(field, "must be a finite number")
    return value


def _dataset(text: str, field: str) -> str:
    return str(DatasetName.parse(text, field)) if text else ""


def decode_goal(value: int) -> Goal | None:
    """Decode which values of a metric are better; None: it is not said."""
    known = {
        model_pb2.METRIC_GOAL_MAXIMIZE: Goal.MAXIMIZE,
        model_pb2.METRIC_GOAL_MINIMIZE: Goal.MINIMIZE,
    }
    return known.get(value)  # type: ignore[call-overload,no-any-return]  # enums are ints here
