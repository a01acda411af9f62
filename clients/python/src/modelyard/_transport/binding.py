"""Methods that are written once and bound to both clients.

A group of methods describes what it wants (see `calls`); one of the decorators
here makes each a method of two classes: where the group is a `SyncGroup` it
does it and returns, where it is an `AsyncGroup` it is awaited.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from modelyard._names import Names
from modelyard._transport.calls import Call, Flow, Pages
from modelyard._transport.connection import AsyncConnection, Connection
from modelyard._transport.resume import Follow

P = ParamSpec("P")
R = TypeVar("R")


class Group:
    """The methods about one kind of resource."""

    def __init__(self, connection: Connection | AsyncConnection, names: Names) -> None:
        self._connection: Any = connection
        self._names = names


class SyncGroup(Group):
    """A group whose methods block."""


class AsyncGroup(Group):
    """A group whose methods are awaited."""


class _Method:
    """A described method; `carry_out` names what the connection does with it."""

    carry_out = ""

    def __init__(self, describe: Callable[..., Any]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__
        _, *parameters = inspect.signature(describe).parameters.values()
        self._signature = inspect.Signature(parameters)

    def _bind(self, group: Group | None) -> Any:
        if group is None:
            return self
        describe = self._describe
        perform = getattr(group._connection, self.carry_out)  # noqa: SLF001

        @functools.wraps(describe)
        def method(*args: Any, **kwargs: Any) -> Any:
            return perform(describe(group, *args, **kwargs))

        method.__signature__ = self._signature  # type: ignore[attr-defined]
        return method


class unary(_Method, Generic[P, R]):  # noqa: N801  # a decorator
    """Make a method that makes one call."""

    carry_out = "call"

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[R]]) -> None:
        super().__init__(describe)

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: SyncGroup, owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, group: Group | None, owner: type) -> Any:
        return self._bind(group)


class flow(_Method, Generic[P, R]):  # noqa: N801  # a decorator
    """Make a method that makes several calls, or reads and writes files."""

    carry_out = "run"

    def __init__(self, describe: Callable[Concatenate[Any, P], Flow[R]]) -> None:
        super().__init__(describe)

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: SyncGroup, owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, group: Group | None, owner: type) -> Any:
        return self._bind(group)


class paged(_Method, Generic[P, R]):  # noqa: N801  # a decorator
    """Make a method that returns an iterator over a list, read page by page."""

    carry_out = "pages"

    def __init__(self, describe: Callable[Concatenate[Any, P], Pages[R]]) -> None:
        super().__init__(describe)

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: SyncGroup, owner: type) -> Callable[P, Iterator[R]]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: type) -> Callable[P, AsyncIterator[R]]: ...
    def __get__(self, group: Group | None, owner: type) -> Any:
        return self._bind(group)


class followed(_Method, Generic[P, R]):  # noqa: N801  # a decorator
    """Make a method that returns an iterator over a stream, across broken connections."""

    carry_out = "follow"

    def __init__(self, describe: Callable[Concatenate[Any, P], Follow[R]]) -> None:
        super().__init__(describe)

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: SyncGroup, owner: type) -> Callable[P, Iterator[R]]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: type) -> Callable[P, AsyncIterator[R]]: ...
    def __get__(self, group: Group | None, owner: type) -> Any:
        return self._bind(group)
