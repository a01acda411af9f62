"""How groups of commands say what is in them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_WHOLE = 1_000


class Group(TyperGroup):
    """A group whose help has the first sentence of each command whole, on more lines if need be."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and what they do."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(_WHOLE)) for name, command in found if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
