"""The command tree, and how its failures end: one line, never a traceback."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from modelyard.cli import (
    building,
    builds,
    compare,
    context,
    deployments,
    explain,
    files,
    importing,
    lineage,
    predict,
    records,
    resources,
    setup,
)
from modelyard.cli.groups import Group
from modelyard.cli.render import clean
from modelyard.cli.tracing import traced
from modelyard.errors import ModelyardError

_GLOBAL_OPTIONS = ("--server", "--project", "--output", "-o")
_MODULES = (
    *(building, builds, compare, deployments, explain),
    *(files, importing, lineage, predict, records, setup),
)
_PAGES = (context.Output.MARKDOWN, context.Output.HTML)


def make_app() -> typer.Typer:
    """Build the tree of commands that the client itself has."""
    app = typer.Typer(
        name="modelyard",
        cls=Group,
        help="Train, register, compare, deploy and roll back models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for module in _MODULES:
        module.register(app)
    resources.register(app)
    return app


def run(app: typer.Typer) -> int:
    """Run a command; return its exit status."""
    try:
        with traced(" ".join(["modelyard", *sys.argv[1:2]])):
            status = app(args=_globals_first(sys.argv[1:]), standalone_mode=False)
    except ModelyardError as error:
        return _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted")
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error
            error.show()
            return int(error.exit_code)
        if os.environ.get("MODELYARD_DEBUG"):
            raise
        return _fail(_told(error))
    return status if isinstance(status, int) else 0


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (MODELYARD_DEBUG=1 shows where)"


def _globals_first(arguments: list[str]) -> list[str]:
    """Let the options that all commands share stand anywhere, as in `runs list -o json`."""
    first: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            return [*first, *rest, argument, *remaining]
        name, equals, _ = argument.partition("=")
        if argument.startswith("-o") and len(argument) > len("-o"):  # -ojson, -o=json
            first.append(argument)
            continue
        if name not in _GLOBAL_OPTIONS:
            rest.append(argument)
            continue
        first.append(argument)
        if not equals:
            first.extend(value for value in [next(remaining, None)] if value is not None)
    return [*first, *rest]


def _fail(message: str) -> int:
    print(f"modelyard: {clean(message)}", file=sys.stderr)
    return 1


def _version(wanted: bool) -> None:
    if wanted:
        print(f"modelyard {metadata.version('modelyard')}")
        raise typer.Exit


def _options(
    command: typer.Context,
    server: Annotated[str, typer.Option(help="The suite's address, host:port.")] = "",
    project: Annotated[str, typer.Option(help="The project; else the configured one.")] = "",
    output: Annotated[
        context.Output, typer.Option("--output", "-o", help="How answers are written.")
    ] = context.Output.TABLE,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Show which one this is."),
    ] = False,
) -> None:
    if output in _PAGES and command.invoked_subcommand != "compare":
        raise typer.BadParameter("only `compare` writes markdown and html", param_hint="--output")
    context.configure(server=server, project=project, output=output)
