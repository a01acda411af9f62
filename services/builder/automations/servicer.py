"""The gRPC edge of automations: check, one call, encode."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc
from modelyard.builder.v1 import automation_service_pb2 as pb
from modelyard.builder.v1 import automation_service_pb2_grpc

from services.builder.automations import codec, execution_codec
from services.builder.automations.catalogue import Author, Catalogue
from services.builder.automations.observing import Observing
from services.common.auth import Call, current_call
from services.common.listing import pagination
from services.common.names import AutomationName, ExecutionName, ModelName, ProjectName

Context = grpc.aio.ServicerContext[Any, Any]


class AutomationServicer(automation_service_pb2_grpc.AutomationServiceServicer):
    """Serve `modelyard.builder.v1.AutomationService`."""

    def __init__(
        self, *, catalogue: Catalogue, observing: Observing, clock: Callable[[], datetime]
    ) -> None:
        self._catalogue = catalogue
        self._observing = observing
        self._clock = clock

    async def CreateAutomation(
        self, request: pb.CreateAutomationRequest, context: Context
    ) -> pb.CreateAutomationResponse:
        """Create an automation."""
        call = current_call()
        name, draft = codec.new_automation(request)
        made = await self._catalogue.create(name, draft, _author(call), key=call.key(request))
        return pb.CreateAutomationResponse(automation=codec.automation(made))

    async def GetAutomation(
        self, request: pb.GetAutomationRequest, context: Context
    ) -> pb.GetAutomationResponse:
        """Return an automation."""
        found = await self._catalogue.get(AutomationName.parse(request.name))
        return pb.GetAutomationResponse(automation=codec.automation(found))

    async def ListAutomations(
        self, request: pb.ListAutomationsRequest, context: Context
    ) -> pb.ListAutomationsResponse:
        """Return a page of a project's automations."""
        project = ProjectName.parse(request.parent, "parent").project
        size = pagination.page_size(request.page_size)
        query = execution_codec.automations_query(request)
        (after,) = pagination.decode_token(request.page_token, query, tuple[str]) or ("",)
        found = await self._catalogue.page(project, after=after, limit=size + 1)
        return execution_codec.automations_page(request, found, size)

    async def UpdateAutomation(
        self, request: pb.UpdateAutomationRequest, context: Context
    ) -> pb.UpdateAutomationResponse:
        """Change an automation."""
        call = current_call()
        name, change = codec.change(request)
        etag, key = request.automation.etag, call.key(request)
        changed = await self._catalogue.update(name, change, _author(call), etag=etag, key=key)
        return pb.UpdateAutomationResponse(automation=codec.automation(changed))

    async def DeleteAutomation(
        self, request: pb.DeleteAutomationRequest, context: Context
    ) -> pb.DeleteAutomationResponse:
        """Delete an automation."""
        call, name = current_call(), AutomationName.parse(request.name)
        key = call.key(request)
        await self._catalogue.delete(name, _author(call), etag=request.etag, key=key)
        return pb.DeleteAutomationResponse()

    async def RunAutomation(
        self, request: pb.RunAutomationRequest, context: Context
    ) -> pb.RunAutomationResponse:
        """Run an automation now."""
        call, name = current_call(), AutomationName.parse(request.name)
        occurrence = execution_codec.occurrence(request, call.caller.principal)
        started = await self._catalogue.run(name, occurrence, key=call.key(request))
        return pb.RunAutomationResponse(execution=execution_codec.execution(started))

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        """Return a page of executions."""
        parent, size = (
            execution_codec.parent(request.parent),
            pagination.page_size(request.page_size),
        )
        before = execution_codec.executions_start(request)
        found = await self._catalogue.executions(
            parent, where=request.filter, before=before, limit=size + 1
        )
        return execution_codec.executions_page(request, found, size)

    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> pb.GetExecutionResponse:
        """Return an execution."""
        found = await self._catalogue.execution(ExecutionName.parse(request.name))
        return pb.GetExecutionResponse(execution=execution_codec.execution(found))

    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, context: Context
    ) -> pb.CancelExecutionResponse:
        """Cancel an execution."""
        name, actor = ExecutionName.parse(request.name), current_call().caller.principal
        cancelled = await self._catalogue.cancel(name, actor)
        return pb.CancelExecutionResponse(execution=execution_codec.execution(cancelled))

    async def ReportMetric(
        self, request: pb.ReportMetricRequest, context: Context
    ) -> pb.ReportMetricResponse:
        """Take a value in."""
        call = current_call()
        report = execution_codec.report(request, call.caller.principal, self._clock())
        heard = await self._observing.report(report, key=call.key(request))
        return pb.ReportMetricResponse(executions=heard.executions)

    async def ListReportedValues(
        self, request: pb.ListReportedValuesRequest, context: Context
    ) -> pb.ListReportedValuesResponse:
        """Return a page of reported values."""
        model = str(ModelName.parse(request.parent, "parent"))
        metric, size = (
            codec.metric(request.metric, "metric"),
            pagination.page_size(request.page_size),
        )
        query = execution_codec.reports_query(request)
        (before,) = pagination.decode_token(request.page_token, query, tuple[int]) or (None,)
        found = await self._observing.reports(model, metric, before=before, limit=size + 1)
        return execution_codec.reports_page(request, found, size)


def _author(call: Call) -> Author:
    return Author(call.caller.principal, call.caller.credential)
