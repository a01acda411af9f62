"""`modelyard secrets`: values that builds use and nobody reads back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.render import leaf, moment, show_list, show_one
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard.builder.v1.secret_pb2 import Secret


def register(group: typer.Typer) -> None:
    """Add `secrets` to the command line."""

    @group.command("list")
    def list_secrets() -> None:
        """List secrets; nothing shows a value."""
        show_list(
            client().secrets.list(),
            {
                "SECRET": lambda s: leaf(s.name),
                "DESCRIPTION": lambda s: s.description,
                "SET BY": lambda s: s.updater,
                "SET": lambda s: moment(s.update_time),
            },
        )

    @group.command("show")
    def show_secret(secret: str) -> None:
        """Show a secret, without its value."""
        _show(client().secrets.get(secret))

    @group.command("set")
    def set_secret(
        secret: str,
        from_file: Annotated[
            Path | None, typer.Option(help="Read the value from a file, as it is.")
        ] = None,
        description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    ) -> None:
        """Create a secret or give it a new value, read from standard input or asked for."""
        _show(client().secrets.set(secret, _value(from_file), description=description))

    @group.command("delete")
    def delete_secret(secret: str) -> None:
        """Delete a secret; builds that name it fail from now on."""
        client().secrets.delete(secret)


def _value(file: Path | None) -> str:
    """Read a value; never from an argument, which other users of the machine can see."""
    try:
        if file is not None:
            return file.read_text(encoding="utf-8")
        if not sys.stdin.isatty():
            # What `echo` puts at the end is no part of it.
            return sys.stdin.read().removesuffix("\n")
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise InvalidArgumentError(message, reason="INVALID_FIELD") from None
    except UnicodeDecodeError:
        message = "a secret is text in UTF-8; encode other bytes, for instance in base64"
        raise InvalidArgumentError(message, reason="INVALID_FIELD") from None
    return str(typer.prompt("Value", hide_input=True))


def _show(secret: Secret) -> None:
    fields = {
        "secret": secret.name,
        "description": secret.description,
        "set by": secret.updater,
        "set": moment(secret.update_time),
        "created": moment(secret.create_time),
    }
    show_one(secret, fields)
