"""Groups of commands that are made when one is asked for.

To make a command its function is imported and its signature read. All of them together take
longer than most commands, so that a group waits until it is named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer

from modelyard.cli.groups import Group

if TYPE_CHECKING:
    from collections.abc import Callable


class LazyGroup(Group):
    """A group that knows where its commands are to be had."""

    home = ""
    """`module:function` of what adds the commands to a `typer.Typer`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of its commands."""
        self._fill()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return one of its commands, or None."""
        self._fill()
        return super().get_command(ctx, cmd_name)

    def _fill(self) -> None:
        if self.commands:
            return
        module, _, function = self.home.partition(":")
        register: Callable[[typer.Typer], None] = getattr(import_module(module), function)
        app = typer.Typer(rich_markup_mode=None)
        app.callback()(_nothing)  # else one command alone would be no group
        register(app)
        made: Any = typer.main.get_command(app)
        self.commands.update(made.commands)


def lazy_group(home: str) -> type[LazyGroup]:
    """Return the kind of group whose commands `module:function` adds."""
    return type("Group", (LazyGroup,), {"home": home})


def _nothing() -> None:
    """Do nothing before a command."""
