"""What the server adds to the command line: `up`, `worker`, `migrate`, `check-state`, `demo`.

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
    app.command("check-state")(check_state)


def up(
    data: Annotated[
        Path, typer.Option(envvar="MODELYARD_DATA", help="Where everything is kept.")
    ] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(help="The services' gRPC port, on loopback.")] = 7070,
    inference_port: Annotated[
        int, typer.Option(help="The first environment's port for predictions.")
    ] = 7080,
    max_workers: Annotated[
        int | None, typer.Option(min=0, help="Run at most so many builds at a time.")
    ] = None,
) -> None:
    """Run the whole suite on this machine until Ctrl-C."""
    from modelyard._transport.config import config_path  # noqa: PLC0415

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
    if max_workers is not None:
        os.environ["MODELYARD_WORKER_CONCURRENCY"] = str(max_workers)
    start.exec_suite(layout)


def demo(
    keep: Annotated[bool, typer.Option(help="Leave the suite running at the end.")] = False,
) -> None:
    """Do the main job once, for real, in a temporary folder: about two minutes."""
    from services.demo import run  # noqa: PLC0415

    sys.exit(run(keep=keep))


def worker(
    *,
    token_file: Annotated[
        Path | None, typer.Option(help="The file with a worker's token, worker.token.")
    ] = None,
    pool: Annotated[str, typer.Option(help="Takes builds whose order names this pool.")] = "",
    max_builds: Annotated[
        int | None, typer.Option("--max", min=1, help="Runs so many builds at a time.")
    ] = None,
    name: Annotated[str, typer.Option(help="How it is called; else the machine's name.")] = "",
    data: Annotated[Path | None, typer.Option(help="Its folder for work in progress.")] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="A PEM file, where the suite speaks TLS.")
    ] = None,
) -> None:
    """Run builds for a suite, on any machine that reaches it, until SIGTERM.

    The suite is that of --server. What is not given is read from MODELYARD_SUITE_ADDRESS,
    MODELYARD_WORKER_TOKEN_FILE and their like. After SIGTERM it takes no more, and hands back
    what is not done within the grace (MODELYARD_WORKER_GRACE_SECONDS).
    """
    from modelyard.cli.context import chosen_server  # noqa: PLC0415

    from services.suite.joining import JoinError, environment  # noqa: PLC0415

    try:
        variables = environment(
            os.environ,
            server=chosen_server(),
            token_file=token_file,
            pool=pool,
            max_builds=max_builds,
            name=name,
            data=data,
            root_certificates=root_certificates,
        )
    except JoinError as error:
        typer.echo(f"modelyard: {error}", err=True)
        raise typer.Exit(2) from None
    os.execve(  # noqa: S606
        sys.executable, [sys.executable, "-m", "services.builder.worker"], variables
    )


def migrate() -> None:
    """Bring every service's database to this release (MODELYARD_<SERVICE>_DATABASE_URL)."""
    from services.suite.migrate import migrate_all  # noqa: PLC0415

    for line in migrate_all(os.environ):
        typer.echo(line)


def check_state(
    data: Annotated[
        Path | None,
        typer.Option(help="The folder of an embedded suite; else the settings' places."),
    ] = None,
) -> None:
    """Look for what must never be: bytes missing, numbers used twice, gaps, builds nobody runs.

    Reads only, from the databases and folders themselves. Prints what it found; status 1 then.
    """
    from modelyard.cli.context import as_json  # noqa: PLC0415
    from modelyard.cli.render import show_table, write_json  # noqa: PLC0415

    from services.suite import check_state as checking  # noqa: PLC0415

    places = checking.in_folder(data.expanduser()) if data else checking.in_settings(os.environ)
    if not any((places.metadata, places.builder, places.deployer, places.artifact)):
        told = f"{data} holds nothing of a suite" if data else "name a folder with --data"
        typer.echo(f"modelyard: nothing to check; {told}", err=True)
        raise typer.Exit(2)
    found = list(checking.check_state(places))
    if as_json():
        write_json([{"check": f.check, "subject": f.subject, "problem": f.problem} for f in found])
    elif found:
        show_table(["CHECK", "WHAT", "PROBLEM"], [[f.check, f.subject, f.problem] for f in found])
    else:
        typer.echo("nothing found that must not be")
    if found:
        raise typer.Exit(1)
