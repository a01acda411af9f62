"""`client.compare`, and the same of versions, runs and builds alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from modelyard._names import Names, Ref, project_of, text_of
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow
from modelyard._transport.calls import Flow, ask, call
from modelyard.metadata.v1 import comparison_service_pb2 as service
from modelyard.metadata.v1 import model_service_pb2

TIMEOUT = 60.0
"""Seconds that a comparison may take: the sources are read for it."""

_BUILD = re.compile(r"b-[0-9a-f]{16}")
_NUMBER = re.compile(r"[0-9]+")
_POINTER = re.compile(r"projects/[^/]+/models/[^/]+(/aliases/[^/]+)?")


class _Comparisons(Group):
    @flow
    def compare(self, names: Sequence[Ref], *, code: bool = True) -> Flow[service.CompareResponse]:
        """Put runs, versions and builds side by side; the others are held against the first."""
        return (yield from compare(self._names, names, anything, code=code))


class Comparisons(_Comparisons, SyncGroup):
    """Runs, versions and builds side by side."""


class AsyncComparisons(_Comparisons, AsyncGroup):
    """Runs, versions and builds side by side."""


def compare(
    names: Names, wanted: Sequence[Ref], full_name: Callable[[Names, Ref], str], *, code: bool
) -> Flow[service.CompareResponse]:
    """Describe a comparison of what `full_name` makes of the references, aliases resolved."""
    found = []
    for ref in wanted:
        name = full_name(names, ref)
        if _POINTER.fullmatch(name):
            resolve = model_service_pb2.ResolveVersionRequest(name=name)
            answer = model_service_pb2.ResolveVersionResponse
            name = yield from ask(call(resolve, answer, lambda r: r.version.name))
        found.append(name)
    request = service.CompareRequest(
        parent=project_of(found[0]) if found else names.project(),
        names=found,
        without_code=not code,
    )
    return (yield from ask(call(request, service.CompareResponse, lambda r: r, timeout=TIMEOUT)))


def anything(names: Names, ref: Ref) -> str:
    """Return the name of a version, alias, model, run or build.

    `churn/7`, `churn@production`, `churn` (its newest version), `churn/RUN`, `churn/runs/RUN`,
    `builds/BUILD` or a build's id.
    """
    text = text_of(ref)
    if _BUILD.fullmatch(text) or text.startswith("builds/"):
        return names.build(text.removeprefix("builds/"))
    if text.startswith("projects/"):
        return text
    model, slash, rest = text.partition("/")
    if slash and not _NUMBER.fullmatch(rest):
        return names.run(f"{model}/{rest.removeprefix('runs/')}")
    return names.target(text)
