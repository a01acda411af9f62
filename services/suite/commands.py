"""What the server adds to the `modelyard` command line: `up`, `worker`, `migrate`, `demo`.

Found by the client's command line through the entry point `modelyard.commands`;
imports stay inside the commands, so that `modelyard --help` stays quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path("~/.local/share/modelyard")


def register(app: typer.Typer) -> None:
    """Add the suite's commands to the command line."""
    for command in (up, demo, worker, migrate):
        app.command()(command)


def up(
    data: Annotated[
        Path, typer.Option(envvar="MODELYARD_DATA", help="Where everything is kept.")
    ] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(help="The services' gRPC port, on loopback.")] = 7070,
    inference_port: Annotated[
        int, typer.Option(help="The first environment's port for predictions.")
    ] = 7080,
) -> None:
    """Run the whole suite on this machine until Ctrl-C."""
    from modelyard._config import config_path  # noqa: PLC0415

    from services.suite import start  # noqa: PLC0415
    from services.suite.children import Layout  # noqa: PLC0415

    layout = Layout(data.expanduser().absolute(), port, inference_port)
    try:
        start.check_ports(layout)
    except start.StartError as error:
        typer.echo(f"modelyard: {error}", err=True)
        raise typer.Exit(1) from None
    layout.prepare()
    start.write_config(layout, config_path(os.environ))
    start.exec_suite(layout)


def demo(
    keep: Annotated[bool, typer.Option(help="Leave the suite running at the end.")] = False,
) -> None:
    """Do the main job once, for real, in a temporary folder: about two minutes."""
    from services.demo import run  # noqa: PLC0415

    sys.exit(run(keep=keep))


def worker() -> None:
    """Run builds for the suite that MODELYARD_SUITE_ADDRESS names, until SIGTERM."""
    os.execv(sys.executable, [sys.executable, "-m", "services.builder.worker"])  # noqa: S606


def migrate() -> None:
    """Bring every service's database to this release (MODELYARD_<SERVICE>_DATABASE_URL)."""
    from services.suite.migrate import migrate_all  # noqa: PLC0415

    for line in migrate_all(os.environ):
        typer.echo(line)
