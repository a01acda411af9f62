"""`client.builds`: from source to a tested, registered version."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

from modelyard._build_spec import BuildOptions, GitSource, build_spec, model_of
from modelyard._event_filter import narrow
from modelyard._names import Names, Ref, is_artifact, project_of, text_of
from modelyard._resources import reproducing, sweeping
from modelyard._resources.comparisons import compare
from modelyard._resources.sweeping import create, get
from modelyard._source_files import SOURCE_IGNORES, listed_by_git
from modelyard._transfers import push as _push
from modelyard._transfers.progress import OnProgress
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, followed, paged, unary
from modelyard._transport.calls import Call, Flow, Pages, ask, call, new_request_id, pages
from modelyard._transport.resume import Follow
from modelyard.builder.v1 import build_event_pb2, build_pb2
from modelyard.builder.v1 import build_service_pb2 as service
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import comparison_service_pb2
from modelyard.reproduction import Reproduction
from modelyard.tracking.capture import source_origin


class _Builds(Group):
    @flow
    def create(
        self,
        source: Ref | Path | GitSource,
        *,
        model: Ref | None = None,
        ignore: Sequence[str] = SOURCE_IGNORES,
        include_ignored: bool = False,
        progress: OnProgress | None = None,
        **options: Unpack[BuildOptions],
    ) -> Flow[build_pb2.Build]:
        """Order a build of a folder, which is pushed first, of an artifact or of a repository.

        The model is the folder's or repository's name unless given. Of a folder in a git work
        tree what git ignores is left out, unless `include_ignored`, and the commit is recorded.
        The other options are those of `modelyard.BuildOptions`. The build is QUEUED in the
        answer; `follow` shows how it goes, `wait` returns how it went.
        """
        request = yield from self._order(
            source, model, options, ignore=ignore, ignored=include_ignored, progress=progress
        )
        return (yield from ask(create(request)))

    @flow
    def sweep(
        self,
        source: Ref | Path | GitSource,
        grid: Mapping[str, Sequence[object]],
        *,
        max_parallel: int = sweeping.MAX_PARALLEL,
        on_change: sweeping.OnChange | None = None,
        model: Ref | None = None,
        ignore: Sequence[str] = SOURCE_IGNORES,
        include_ignored: bool = False,
        progress: OnProgress | None = None,
        **options: Unpack[BuildOptions],
    ) -> Flow[Sequence[build_pb2.Build]]:
        """Build every combination of some parameters' values; return the builds, all ended.

        They are one group, `options["group"]` or a new one, with at most `max_parallel` of them
        in progress at a time; `on_change` is called with the place in the grid and the build
        whenever one moves. Called again with the same source, grid and group it goes on with the
        builds there are.
        """
        combinations = sweeping.combinations(grid, options.get("params") or {})
        options.setdefault("group", "")
        request = yield from self._order(
            source, model, options, ignore=ignore, ignored=include_ignored, progress=progress
        )
        requests = sweeping.requests(request, combinations)
        return (yield from sweeping.sweep(requests, max_parallel, on_change))

    def _order(
        self,
        source: Ref | Path | GitSource,
        model: Ref | None,
        options: BuildOptions,
        *,
        ignore: Sequence[str],
        ignored: bool,
        progress: OnProgress | None,
    ) -> Flow[service.CreateBuildRequest]:
        """Push the source if it is a folder; return the order of a build of it."""
        name = _model_name(self._names, source, model)
        parent = project_of(name)
        if isinstance(source, GitSource):
            spec = build_spec(self._names, source, options)
        elif is_artifact(_text(source)):
            spec = build_spec(self._names, self._names.artifact(_text(source)), options)
        else:
            folder = Path(_text(source))
            options.setdefault("origin", source_origin(folder))
            only = None if ignored else listed_by_git(folder)
            pushed = yield from _push.push(
                parent, folder, ignore=ignore, only=only, progress=progress
            )
            spec = build_spec(self._names, pushed.name, options)
        return service.CreateBuildRequest(
            parent=parent,
            build=build_pb2.Build(model=name, spec=spec),
            request_id=new_request_id(),
        )

    @unary
    def get(self, build: Ref) -> Call[build_pb2.Build]:
        """Get a build."""
        return get(self._names.build(build))

    @paged
    def list(self, *, filter: str = "", project: Ref | None = None) -> Pages[build_pb2.Build]:
        """List a project's builds, newest first."""
        request = service.ListBuildsRequest(parent=self._names.project(project), filter=filter)
        return pages(request, service.ListBuildsResponse, lambda r: r.builds)

    @flow
    def compare(
        self, builds: Sequence[Ref], *, code: bool = True
    ) -> Flow[comparison_service_pb2.CompareResponse]:
        """Put what builds made side by side; the others are held against the first."""
        return (yield from compare(self._names, builds, Names.build, code=code))

    @unary
    def cancel(self, build: Ref) -> Call[build_pb2.Build]:
        """Cancel a build; a running one is CANCELLING until its processes are gone."""
        request = service.CancelBuildRequest(name=self._names.build(build))
        return call(request, service.CancelBuildResponse, lambda r: r.build)

    @flow
    def reproduce(self, version: Ref, *, pool: str = "") -> Flow[build_pb2.Build]:
        """Order the build of a version anew from its record: its source, environment, data, params.

        It registers nothing and moves no alias; `reproduction` says what came of it.
        """
        return (yield from reproducing.order(self._names, version, pool=pool))

    @flow
    def reproduction(
        self, build: Ref, *, tolerance: float = 0.0, timeout: float | None = None
    ) -> Flow[Reproduction]:
        """Wait for a build that `reproduce` ordered; hold its metrics and files to the version's.

        Two values of a metric agree if they differ by at most `tolerance` of the larger one.
        """
        yield _follow(self._names, build, lambda _: (), timeout=timeout)
        ended = yield from ask(get(self._names.build(build)))
        return (yield from reproducing.compare(self._names, ended, tolerance))

    @followed
    def follow(
        self,
        build: Ref,
        *,
        cursor: str = "",
        timeout: float | None = None,
        grep: str = "",
        since: datetime | timedelta | None = None,
        phase: str = "",
        stream: str = "",
        tail: int = 0,
    ) -> Follow[build_event_pb2.BuildEvent]:
        """Iterate over a build's events, from the first to the last of a build that ended.

        A broken connection is opened again where it broke: no event is repeated or skipped.
        The service leaves out what is not wanted: lines in which `grep` (RE2's syntax) is not
        found, what happened before `since`, other phases ("train") or streams ("stderr");
        `tail` begins with the last so many of the events wanted.
        """
        request = service.StreamBuildEventsRequest(build=self._names.build(build), cursor=cursor)
        narrow(request, grep=grep, since=since, phase=phase, stream=stream, tail=tail)
        response = service.StreamBuildEventsResponse
        return Follow(request, response, lambda r: r.events, timeout=timeout)

    @followed
    def batches(
        self, build: Ref, *, cursor: str = "", timeout: float | None = None
    ) -> Follow[service.StreamBuildEventsResponse]:
        """Follow as `follow` does, message by message, each with the cursor after it."""
        return _follow(self._names, build, lambda r: [r], cursor=cursor, timeout=timeout)

    @followed
    def logs(
        self,
        build: Ref,
        *,
        grep: str = "",
        since: datetime | timedelta | None = None,
        phase: str = "",
        stream: str = "",
        tail: int = 0,
    ) -> Follow[build_event_pb2.BuildEvent]:
        """Iterate over the events that there are by now; see `follow` for what is wanted."""
        request = service.StreamBuildEventsRequest(build=self._names.build(build), no_follow=True)
        narrow(request, grep=grep, since=since, phase=phase, stream=stream, tail=tail)
        return Follow(request, service.StreamBuildEventsResponse, lambda r: r.events)

    @flow
    def wait(self, build: Ref, *, timeout: float | None = None) -> Flow[build_pb2.Build]:
        """Return the build once it ended, however it did; DeadlineExceededError after `timeout`."""
        yield _follow(self._names, build, lambda _: (), timeout=timeout)
        return (yield from ask(get(self._names.build(build))))


class Builds(_Builds, SyncGroup):
    """From source to a tested, registered version."""


class AsyncBuilds(_Builds, AsyncGroup):
    """From source to a tested, registered version."""


def _follow(
    names: Names, build: Ref, pick: Any, *, cursor: str = "", timeout: float | None
) -> Follow[Any]:
    request = service.StreamBuildEventsRequest(build=names.build(build), cursor=cursor)
    return Follow(request, service.StreamBuildEventsResponse, pick, timeout=timeout)


def _model_name(names: Names, source: Ref | Path | GitSource, model: Ref | None) -> str:
    if model is not None:
        return names.model(model)
    if isinstance(source, GitSource):
        return names.model(model_of(source))
    if is_artifact(_text(source)):
        raise InvalidArgumentError(
            "a build of an artifact needs its `model`", reason="INVALID_FIELD"
        )
    return names.model(Path(_text(source)).resolve().name)


def _text(source: Ref | Path) -> str:
    return str(source) if isinstance(source, Path) else text_of(source)
