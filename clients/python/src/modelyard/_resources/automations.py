"""`client.automations`: what builds models by itself, and puts them live when they are better."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard._names import Names, Ref
from modelyard._source_files import SOURCE_IGNORES, listed_by_git
from modelyard._transfers import push as _push
from modelyard._transfers.progress import OnProgress
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, paged, unary
from modelyard._transport.calls import Call, Flow, Pages, Pause, ask, call, new_request_id, pages
from modelyard._values import encode_time
from modelyard.builder.v1 import automation_pb2, execution_pb2
from modelyard.builder.v1 import automation_service_pb2 as service
from modelyard.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
)
from modelyard.tracking.capture import source_origin

ENDED = (
    execution_pb2.EXECUTION_STATE_SUCCEEDED,
    execution_pb2.EXECUTION_STATE_SKIPPED,
    execution_pb2.EXECUTION_STATE_FAILED,
    execution_pb2.EXECUTION_STATE_CANCELLED,
)
_POLL_SECONDS = 0.5
_ALL = (
    "description",
    "disabled",
    "trigger",
    "action",
    "catch_up",
    "catch_up_window",
    "overlap",
)


class _Automations(Group):
    @unary
    def create(
        self,
        automation_id: str,
        automation: automation_pb2.Automation,
        *,
        project: Ref | None = None,
    ) -> Call[automation_pb2.Automation]:
        """Create an automation that acts for you."""
        return _create(self._names.project(project), automation_id, automation)

    @flow
    def apply(
        self,
        automation_id: str,
        automation: automation_pb2.Automation,
        *,
        source: str | Path | None = None,
        ignore: Sequence[str] = SOURCE_IGNORES,
        include_ignored: bool = False,
        progress: OnProgress | None = None,
        project: Ref | None = None,
    ) -> Flow[automation_pb2.Automation]:
        """Create an automation or make it so; doing it again changes nothing.

        `source` is a folder to build, which is pushed first, without what git ignores unless
        `include_ignored`. Its trigger, if it is the same as before, goes on as it was.
        """
        parent = self._names.project(project)
        wanted = automation_pb2.Automation()
        wanted.CopyFrom(automation)
        if source is not None:
            folder = Path(source)
            folder = Path(source)
            only = None if include_ignored else listed_by_git(folder)
            pushed = yield from _push.push(
                parent, folder, ignore=ignore, only=only, progress=progress
            )
            wanted.action.build.source = pushed.name
            origin = source_origin(folder)
            if origin is not None:
                wanted.action.build.origin.CopyFrom(origin)
        wanted.name = f"{parent}/automations/{automation_id}"
        try:
            found = yield from ask(_get(wanted.name))
        except NotFoundError:
            return (yield from ask(_create(parent, automation_id, wanted)))
        if wanted.model not in ("", found.model):
            message = f"{automation_id} builds {found.model}; delete it to build another model"
            raise InvalidArgumentError(message, reason="INVALID_FIELD")
        return (yield from ask(_update(wanted, _ALL)))

    @unary
    def get(self, automation: Ref) -> Call[automation_pb2.Automation]:
        """Get an automation."""
        return _get(self._names.automation(automation))

    @unary
    def update(
        self, automation: automation_pb2.Automation, *, fields: Sequence[str] = _ALL
    ) -> Call[automation_pb2.Automation]:
        """Make an automation as the message says, `fields` of it, and act for you from now on.

        With the message's etag only if nobody else wrote it since.
        """
        return _update(automation, fields)

    @unary
    def enable(self, automation: Ref) -> Call[automation_pb2.Automation]:
        """Hear an automation's trigger again, from now on; it acts for you."""
        return _switch(self._names.automation(automation), disabled=False)

    @unary
    def disable(self, automation: Ref) -> Call[automation_pb2.Automation]:
        """Hear an automation's trigger no more."""
        return _switch(self._names.automation(automation), disabled=True)

    @unary
    def delete(self, automation: Ref, *, etag: str = "") -> Call[None]:
        """Delete an automation and its executions; those in progress are cancelled."""
        request = service.DeleteAutomationRequest(
            name=self._names.automation(automation), etag=etag, request_id=new_request_id()
        )
        return call(request, service.DeleteAutomationResponse, lambda _: None)

    @unary
    def run(self, automation: Ref, *, key: str = "") -> Call[execution_pb2.Execution]:
        """Run an automation now; a `key` that was run before names that execution."""
        request = service.RunAutomationRequest(
            name=self._names.automation(automation), key=key, request_id=new_request_id()
        )
        return call(request, service.RunAutomationResponse, lambda r: r.execution)

    @paged
    def executions(
        self, automation: Ref | None = None, *, filter: str = ""
    ) -> Pages[execution_pb2.Execution]:
        """List the executions of an automation, or of all, newest first."""
        request = service.ListExecutionsRequest(
            parent=self._names.automation("-" if automation is None else automation), filter=filter
        )
        return pages(request, service.ListExecutionsResponse, lambda r: r.executions)

    @unary
    def execution(self, execution: Ref) -> Call[execution_pb2.Execution]:
        """Get an execution, `daily/e-1f…` in short."""
        return _execution(self._names, execution)

    @unary
    def cancel(self, execution: Ref) -> Call[execution_pb2.Execution]:
        """Cancel an execution and its build."""
        request = service.CancelExecutionRequest(name=self._names.execution(execution))
        return call(request, service.CancelExecutionResponse, lambda r: r.execution)

    @flow
    def wait(
        self, execution: Ref, *, timeout: float | None = None
    ) -> Flow[execution_pb2.Execution]:
        """Return an execution once it ended, however it did.

        Raises:
            DeadlineExceededError: It had not after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            found = yield from ask(_execution(self._names, execution))
            if found.state in ENDED:
                return found
            if deadline is not None and time.monotonic() > deadline:
                message = f"{found.name} had not ended after {timeout} s"
                raise DeadlineExceededError(message, reason="DEADLINE_EXCEEDED")
            yield Pause(_POLL_SECONDS)

    @unary
    def report(
        self, model: Ref, metric: str, value: float, *, time: datetime | None = None
    ) -> Call[list[str]]:
        """Report a value of a model's metric, such as from production.

        Returns the names of the executions that it triggered.
        """
        request = service.ReportMetricRequest(
            model=self._names.model(model),
            metric=metric,
            value=value,
            time=encode_time(time),
            request_id=new_request_id(),
        )
        return call(request, service.ReportMetricResponse, lambda r: [*r.executions])

    @paged
    def reported(self, model: Ref, metric: str) -> Pages[service.ReportedValue]:
        """List the reported values of a model's metric, newest first."""
        request = service.ListReportedValuesRequest(parent=self._names.model(model), metric=metric)
        return pages(request, service.ListReportedValuesResponse, lambda r: r.reported_values)

    @paged
    def list(self, *, project: Ref | None = None) -> Pages[automation_pb2.Automation]:
        """List a project's automations."""
        request = service.ListAutomationsRequest(parent=self._names.project(project))
        return pages(request, service.ListAutomationsResponse, lambda r: r.automations)


class Automations(_Automations, SyncGroup):
    """What builds models by itself, and puts them live when they are better."""


class AsyncAutomations(_Automations, AsyncGroup):
    """What builds models by itself, and puts them live when they are better."""


def _create(
    parent: str, automation_id: str, automation: automation_pb2.Automation
) -> Call[automation_pb2.Automation]:
    request = service.CreateAutomationRequest(
        parent=parent,
        automation_id=automation_id,
        automation=automation,
        request_id=new_request_id(),
    )
    return call(request, service.CreateAutomationResponse, lambda r: r.automation)


def _get(name: str) -> Call[automation_pb2.Automation]:
    request = service.GetAutomationRequest(name=name)
    return call(request, service.GetAutomationResponse, lambda r: r.automation)


def _update(
    automation: automation_pb2.Automation, fields: Sequence[str]
) -> Call[automation_pb2.Automation]:
    request = service.UpdateAutomationRequest(
        automation=automation, update_mask=FieldMask(paths=fields), request_id=new_request_id()
    )
    return call(request, service.UpdateAutomationResponse, lambda r: r.automation)


def _switch(name: str, *, disabled: bool) -> Call[automation_pb2.Automation]:
    return _update(automation_pb2.Automation(name=name, disabled=disabled), ["disabled"])


def _execution(names: Names, execution: Ref) -> Call[execution_pb2.Execution]:
    request = service.GetExecutionRequest(name=names.execution(execution))
    return call(request, service.GetExecutionResponse, lambda r: r.execution)
