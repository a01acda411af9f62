"""Between messages and executions, pages of them, runs by hand, and reports."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from modelyard.builder.v1 import automation_service_pb2 as pb
from modelyard.builder.v1 import execution_pb2
from modelyard.deployer.v1 import environment_pb2

from services.builder.automations.codec import automation, metric
from services.builder.automations.domain import (
    MAX_KEY,
    Automation,
    Cause,
    Execution,
    Occurrence,
    Report,
)
from services.builder.codec import timestamp
from services.common.errors import invalid_field
from services.common.listing import pagination
from services.common.names import AutomationName, ModelName
from services.common.sql.outbox import EPOCH


def execution(found: Execution) -> execution_pb2.Execution:
    """Write an execution."""
    message = execution_pb2.Execution(
        name=str(found.name),
        number=found.number,
        cause=execution_pb2.ExecutionCause.Value(f"EXECUTION_CAUSE_{found.occurrence.cause}"),
        occurrence=found.occurrence.key,
        cause_explanation=found.occurrence.explanation,
        state=execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{found.state}"),
        explanation=found.explanation,
        version=found.version,
        verdicts=[
            environment_pb2.GateVerdict(
                gate_id=v.gate_id, passed=v.passed, explanation=v.explanation
            )
            for v in found.verdicts
        ],
        deployment=found.deployment,
        revision=found.revision,
        actor=found.occurrence.actor,
        scheduled_time=timestamp(found.occurrence.time),
        create_time=timestamp(found.create_time),
        start_time=timestamp(found.start_time),
        end_time=timestamp(found.end_time),
    )
    if found.build:
        message.build = f"projects/{found.name.project}/builds/{found.build}"
    if found.failure is not None:
        message.failure.reason = found.failure.value
        message.failure.message = found.explanation
    return message


def occurrence(request: pb.RunAutomationRequest, actor: str) -> Occurrence:
    """Read what a run by hand stands for."""
    key = request.key
    if len(key) > MAX_KEY or not key.isprintable():
        raise invalid_field("key", f"must have at most {MAX_KEY} printable characters")
    why = f"{actor} ran it" + (f" for {key}" if key else "")
    return Occurrence(f"manual/{key or secrets.token_hex(8)}", Cause.MANUAL, why, actor)


def report(request: pb.ReportMetricRequest, reporter: str, now: datetime) -> Report:
    """Read a value that is reported."""
    model = str(ModelName.parse(request.model, "model"))
    time = now
    if request.HasField("time"):
        try:
            time = request.time.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            raise invalid_field("time", "must be a time between the years 1 and 9999") from None
    return Report(model, metric(request.metric, "metric"), request.value, time, reporter)


def automations_page(
    request: pb.ListAutomationsRequest, found: Sequence[Automation], size: int
) -> pb.ListAutomationsResponse:
    """Write a page of automations, given one more than it holds when there are more."""
    response = pb.ListAutomationsResponse(automations=[automation(a) for a in found[:size]])
    if len(found) > size:
        key = (found[size - 1].name.automation,)
        response.next_page_token = pagination.encode_token(automations_query(request), key)
    return response


def automations_query(request: pb.ListAutomationsRequest) -> str:
    """Say what a page token of this request belongs to."""
    return f"automations\n{request.parent}"


def executions_start(request: pb.ListExecutionsRequest) -> tuple[datetime, str, int] | None:
    """Read before which (create time, automation, number) a page begins."""
    query = _executions_query(request)
    key = pagination.decode_token(
        request.page_token, query, tuple[pagination.Microseconds, str, int]
    )
    if key is None:
        return None
    return (EPOCH + timedelta(microseconds=key[0]), key[1], key[2])


def executions_page(
    request: pb.ListExecutionsRequest, found: Sequence[Execution], size: int
) -> pb.ListExecutionsResponse:
    """Write a page of executions, given one more than it holds when there are more."""
    response = pb.ListExecutionsResponse(executions=[execution(e) for e in found[:size]])
    if len(found) > size:
        last = found[size - 1]
        time_us = (last.create_time - EPOCH) // timedelta(microseconds=1)
        key = (time_us, last.name.automation, last.number)
        response.next_page_token = pagination.encode_token(_executions_query(request), key)
    return response


def _executions_query(request: pb.ListExecutionsRequest) -> str:
    return f"executions\n{request.parent}\n{request.filter}"


def parent(text: str) -> AutomationName:
    """Read an automation, or all of a project."""
    found = AutomationName.parse(text, "parent", wildcard=True)
    if found.project == "-":
        raise invalid_field("parent", "must name a project")
    return found


def reports_query(request: pb.ListReportedValuesRequest) -> str:
    """Say what a page token of this request belongs to."""
    return f"reports\n{request.parent}\n{request.metric}"


def reports_page(
    request: pb.ListReportedValuesRequest, found: Sequence[Report], size: int
) -> pb.ListReportedValuesResponse:
    """Write a page of reported values, given one more than it holds when there are more."""
    response = pb.ListReportedValuesResponse(
        reported_values=[
            pb.ReportedValue(
                metric=r.metric, value=r.value, time=timestamp(r.time), reporter=r.reporter
            )
            for r in found[:size]
        ]
    )
    if len(found) > size:
        key = (found[size - 1].sequence,)
        response.next_page_token = pagination.encode_token(reports_query(request), key)
    return response
