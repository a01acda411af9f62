"""What a resolver remembers, and how it keeps up; the two resolvers only carry its calls."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from modelyard._names import Names, Ref, project_of, text_of
from modelyard._transport.calls import Flow, ask, call
from modelyard._transport.resume import Follow
from modelyard.errors import (
    InvalidArgumentError,
    ModelyardError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnimplementedError,
)
from modelyard.metadata.v1 import alias_pb2, version_pb2
from modelyard.metadata.v1 import model_service_pb2 as service

_TYPES = (
    *("ALIAS_MOVED", "ALIAS_DELETED", "VERSION_READY", "VERSION_UPDATED", "VERSION_ARCHIVED"),
    *("VERSION_UNARCHIVED", "VERSION_DELETED", "VERSION_RESTORED", "VERSION_PURGED"),
)
_FILTER = " OR ".join(f"type = {word}" for word in _TYPES)
_KEPT = 1000
_NEWEST = 50
_PAGE = 1000
_DELAY = 0.5
_LONGEST_DELAY = 1.0
_SILENCE = 20.0
"""Seconds without a word, heartbeats included, after which a stream counts as broken."""
_FINAL = (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnimplementedError,
)


class Memory:
    """Where the aliases of some models of one project point, as far as is known."""

    def __init__(self, names: Names, models: Sequence[Ref]) -> None:
        self.models = tuple(dict.fromkeys(names.model(model) for model in models))
        if not self.models or len({project_of(model) for model in self.models}) > 1:
            raise InvalidArgumentError(
                "a resolver is of one or more models of one project", reason="INVALID_FIELD"
            )
        self.failure: ModelyardError | None = None
        self.feed: Feed | None = None
        self.is_broken = True
        self.heard = time.monotonic()
        self._default = names.default
        self._process = os.getpid()
        # Other threads read it: it is replaced, or changed key by key.
        self._known: dict[str, version_pb2.Version] = {}
        self._aliases: dict[str, alias_pb2.Alias] = {}
        # Versions seen, also those that no alias points to now: aliases often go back.
        self._versions: dict[str, version_pb2.Version] = {}

    @property
    def staleness(self) -> float:
        """For how many seconds changes may have been missed; 0.0 while the stream is open."""
        silence = time.monotonic() - self.heard
        return silence if self.is_broken or silence > _SILENCE else 0.0

    def find(self, target: Ref) -> version_pb2.Version:
        """Return the version that an alias points to, from memory."""
        if self.failure is not None:
            raise self.failure
        if os.getpid() != self._process:
            raise ModelyardError("a resolver does not outlive a fork: open one in this process")
        text = target if isinstance(target, str) else text_of(target)
        found = self._known.get(text)
        if found is None:
            raise NotFoundError(f"{text!r} points nowhere", reason="RESOURCE_NOT_FOUND")
        return found

    def begin(self) -> Flow[None]:
        """Read where everything points, and watch from before that on."""
        cursor, aliases = "", dict[str, alias_pb2.Alias]()
        for model in self.models:
            first = yield from _list_aliases(model, aliases)
            cursor = cursor or first  # of the first list: what changed meanwhile is told again
        self._versions.clear()
        for model in self.models:
            yield from self._read_newest(model)
        known = dict[str, version_pb2.Version]()
        for name, alias in aliases.items():
            version = yield from self._version(alias.version)
            if version is not None:  # else a change to come says so
                known.update(dict.fromkeys(self._keys(name), version))
        self._known, self._aliases = known, aliases
        self.hear()
        self.feed = Feed(self, cursor)

    def take(self, message: service.WatchModelsResponse) -> Flow[None]:
        """Take note of changes, in their order.

        What they carry was read after the watch began, so nothing known goes back in time.
        """
        for change in message.changes:
            if change.name.partition("/versions/")[0] in self.models:
                self._take_version(change)
            elif change.name.partition("/aliases/")[0] in self.models:
                yield from self._take_alias(change)

    def hear(self) -> None:
        """Take note that the server has told everything up to now."""
        self.heard, self.is_broken = time.monotonic(), False

    def fail(self, error: ModelyardError) -> float:
        """Take note of what broke the stream; return after how many seconds to begin again.

        What no waiting mends is kept, to be raised to whoever asks.
        """
        self.feed, self.is_broken = None, True
        if error.reason == "INVALID_CURSOR":  # of a server that was set up anew
            return 0.0
        if isinstance(error, _FINAL):
            self.failure = error
        return error.retry_delay or _DELAY

    def _take_alias(self, change: service.ModelChange) -> Flow[None]:
        if change.HasField("alias"):
            self._aliases[change.name] = change.alias
            self._set(change.name, (yield from self._version(change.alias.version)))
        else:
            self._aliases.pop(change.name, None)
            self._set(change.name, None)

    def _take_version(self, change: service.ModelChange) -> None:
        if not change.HasField("version"):
            self._versions.pop(change.name, None)
            return
        self._keep(change.version)
        for alias in self._aliases.values():
            if alias.version == change.name:
                self._set(alias.name, change.version)

    def _version(self, name: str) -> Flow[version_pb2.Version | None]:
        """Return a version, mostly from memory; None if it is gone."""
        found = self._versions.get(name)
        if found is None:
            request = service.GetVersionRequest(name=name)
            try:
                found = yield from ask(
                    call(request, service.GetVersionResponse, lambda r: r.version)
                )
            except NotFoundError:
                return None
            self._keep(found)
        return found

    def _keep(self, version: version_pb2.Version) -> None:
        """Remember a version, without what is not kept up or not told of by watches."""
        version.ClearField("aliases")
        version.ClearField("card")
        self._versions.pop(version.name, None)
        if len(self._versions) >= _KEPT:
            self._versions.pop(next(iter(self._versions)))
        self._versions[version.name] = version

    def _read_newest(self, model: str) -> Flow[None]:
        """Read the versions to which aliases are likely to be moved."""
        request = service.ListVersionsRequest(parent=model, page_size=_NEWEST)
        newest = yield from ask(call(request, service.ListVersionsResponse, lambda r: r.versions))
        for version in newest:
            self._keep(version)

    def _set(self, alias: str, version: version_pb2.Version | None) -> None:
        for key in self._keys(alias):
            if version is None:
                self._known.pop(key, None)
            else:
                self._known[key] = version

    def _keys(self, alias: str) -> list[str]:
        """Return by what an alias may be asked for; in a resolver of one model also its id."""
        model, _, name = alias.partition("/aliases/")
        keys = [alias]
        if project_of(alias) == self._default:
            keys.append(f"{model.rpartition('/')[2]}@{name}")
        return [*keys, name] if len(self.models) == 1 else keys


class Feed(Follow[service.WatchModelsResponse]):
    """A watch of a memory's models; it never gives up on a server that is away."""

    def __init__(self, memory: Memory, cursor: str) -> None:
        project, models = project_of(memory.models[0]), memory.models
        parent = models[0] if len(models) == 1 else f"{project}/models/-"
        request = service.WatchModelsRequest(parent=parent, filter=_FILTER, cursor=cursor)
        super().__init__(request, service.WatchModelsResponse, lambda r: [r], endless=True)
        self._memory = memory

    def received(self, message: Any) -> list[service.WatchModelsResponse]:
        """Take note of a message."""
        self._memory.hear()
        return super().received(message)

    def closed(self) -> float:
        """Take note that the server ended the stream."""
        self._memory.is_broken = True
        return min(super().closed(), _LONGEST_DELAY)

    def failed(self, error: ModelyardError) -> float:
        """Return after how many seconds to go on; raise what will not pass."""
        self._memory.is_broken = True
        return min(super().failed(error), _LONGEST_DELAY)


def _list_aliases(model: str, aliases: dict[str, alias_pb2.Alias]) -> Flow[str]:
    """Read where a model's aliases point; return the cursor from which to watch."""
    cursor, token = "", ""
    while True:
        request = service.ListAliasesRequest(parent=model, page_size=_PAGE, page_token=token)
        page = yield from ask(call(request, service.ListAliasesResponse, lambda r: r))
        cursor = cursor or page.watch_cursor
        aliases.update((alias.name, alias) for alias in page.aliases)
        token = page.next_page_token
        if not token:
            return cursor
