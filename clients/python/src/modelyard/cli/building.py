"""`modelyard build`: from a folder, an artifact or a repository to a version, watched live."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from modelyard.cli import amounts, sweeping
from modelyard.cli.builds import watch
from modelyard.cli.context import client
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard import BuildOptions, Client, GitSource

    Source = Path | GitSource | str

Texts = list[str] | None
IncludeIgnored = Annotated[
    bool, typer.Option("--include-ignored", help="Take files that git ignores, too.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(build)


def build(
    source: Annotated[
        str, typer.Argument(help="A folder with model.py, or the digest of an artifact.")
    ] = "",
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", exists=True, help="A YAML file that says how to build."),
    ] = None,
    model: Annotated[str, typer.Option(help="The model; else the source's name.")] = "",
    param: Annotated[Texts, typer.Option(help="key=value; repeatable.")] = None,
    entry: Annotated[str, typer.Option(help="module:Class, when model.py has several.")] = "",
    git: Annotated[str, typer.Option(help="Build this repository instead: https://…")] = "",
    ref: Annotated[str, typer.Option(help="Its branch, tag or commit.")] = "",
    subdirectory: Annotated[str, typer.Option(help="The folder in it.")] = "",
    git_secret: Annotated[str, typer.Option(help="The secret that lets us in.")] = "",
    include_ignored: IncludeIgnored = False,
    requirements: Annotated[str, typer.Option(help="The file of requirements.")] = "",
    python: Annotated[str, typer.Option(help="The version of Python, such as 3.12.")] = "",
    data: Annotated[Texts, typer.Option(help="name=dataset/3; repeatable.")] = None,
    env: Annotated[Texts, typer.Option(help="A variable, NAME=value; repeatable.")] = None,
    secret: Annotated[Texts, typer.Option(help="NAME=secret; repeatable.")] = None,
    network: Annotated[bool, typer.Option("--network", help="Let it reach the network.")] = False,
    cpu: Annotated[float | None, typer.Option(help="Cores, such as 0.5.")] = None,
    memory: Annotated[str, typer.Option(help="Such as 2G.")] = "",
    disk: Annotated[str, typer.Option(help="Such as 10G.")] = "",
    processes: Annotated[int | None, typer.Option(help="Processes and threads.")] = None,
    timeout: Annotated[Texts, typer.Option(help="phase=2h; repeatable.")] = None,
    retry: Annotated[Texts, typer.Option(help="out_of_memory=1; repeatable.")] = None,
    skip_tests: Annotated[bool, typer.Option("--skip-tests", help="Without its tests.")] = False,
    skip_image: Annotated[bool, typer.Option("--skip-image", help="Without an image.")] = False,
    priority: Annotated[int, typer.Option(help="-100 to 100; higher goes first.")] = 0,
    pool: Annotated[str, typer.Option(help="The pool of workers.")] = "",
    group: Annotated[str, typer.Option(help="Which builds belong together.")] = "",
    label: Annotated[Texts, typer.Option(help="key=value; repeatable.")] = None,
    alias: Annotated[Texts, typer.Option(help="Point this alias to it; repeatable.")] = None,
    sweep: Annotated[Texts, typer.Option(help="key=value,value: build each; repeatable.")] = None,
    max_parallel: Annotated[int, typer.Option(help="Of a sweep, so many at a time.")] = 4,
    best: Annotated[str, typer.Option(help="Of a sweep, the metric that decides.")] = "",
    follow: Annotated[bool, typer.Option(help="Watch it and end with its outcome.")] = True,
    wait: Annotated[bool, typer.Option(help="Wait silently and end with its outcome.")] = False,
) -> int:
    """Build a folder, an artifact or a repository into a tested, registered version.

    With --file what the command line says as well wins; its parameters are added.
    """
    given, connection = locals(), client()
    model, place, options = _ordered(given) if file is None else _from_file(given, connection)
    if sweep:
        wanted = sweeping.Sweep(sweeping.grid(sweep), max_parallel, best)
        return sweeping.run(
            connection, place, wanted, model=model, ignored=include_ignored, options=options
        )
    made = connection.builds.create(
        place, model=model or None, include_ignored=include_ignored, **options
    )
    return watch(connection, made, follow=follow, wait=wait)


def _options(given: Mapping[str, Any]) -> BuildOptions:
    """Return how to build, from the command's own options."""
    return {
        "entry": given["entry"],
        "params": amounts.values(given["param"]),
        "requirements": given["requirements"],
        "python_version": given["python"],
        "data": dict(amounts.pairs(given["data"])),
        "variables": amounts.pairs(given["env"]),
        "secrets": dict(amounts.pairs(given["secret"])),
        "network": given["network"],
        "resources": _resources(given["cpu"], given["memory"], given["disk"], given["processes"]),
        "timeouts": amounts.durations(given["timeout"]),
        "retries": amounts.counts(given["retry"]),
        "skip_tests": given["skip_tests"],
        "skip_image": given["skip_image"],
        "priority": given["priority"],
        "pool": given["pool"],
        "group": given["group"],
        "labels": amounts.pairs(given["label"]),
        "aliases": given["alias"] or [],
    }


def _ordered(given: Mapping[str, Any]) -> tuple[str, Source, BuildOptions]:
    """Return the model, the source and how to build it, from the command's own options."""
    git = (given["git"], given["ref"], given["subdirectory"], given["git_secret"])
    return given["model"], _source(given["source"], *git), _options(given)


def _from_file(given: Mapping[str, Any], connection: Client) -> tuple[str, Source, BuildOptions]:
    """Return the same from a file, with what was given beside it."""
    from modelyard._names import Names  # noqa: PLC0415 - `--help` waits not
    from modelyard.cli.automating.orders import read_build_file  # noqa: PLC0415

    if given["source"] or given["git"]:
        message = "the file names what to build: leave the source and --git out"
        raise InvalidArgumentError(message, reason="INVALID_FIELD")
    model, order = read_build_file(given["file"], Names(connection.settings.project))
    options = _options(given)
    params = {**(order.options.get("params") or {}), **(options.get("params") or {})}
    said = {key: value for key, value in options.items() if value}
    merged = cast("BuildOptions", {**order.options, **said, "params": params})
    return given["model"] or model, order.source, merged


def _source(source: str, git: str, ref: str, subdirectory: str, secret: str) -> Source:
    from modelyard import GitSource  # noqa: PLC0415 - `--help` waits not
    from modelyard._names import is_artifact  # noqa: PLC0415

    if bool(source) == bool(git):
        raise InvalidArgumentError("name a folder or an artifact, or --git", reason="INVALID_FIELD")
    if git:
        return GitSource(git, ref, subdirectory, secret or None)
    if ref or subdirectory or secret:
        message = "--ref, --subdirectory and --git-secret go with --git"
        raise InvalidArgumentError(message, reason="INVALID_FIELD")
    if is_artifact(source):
        return source
    if not Path(source).is_dir():
        raise InvalidArgumentError(f"{source} is not a folder", reason="INVALID_FIELD")
    return Path(source)


def _resources(
    cpu: float | None, memory: str, disk: str, processes: int | None
) -> dict[str, float]:
    given = {
        "cpu": cpu,
        "memory": amounts.size(memory) if memory else None,
        "disk": amounts.size(disk) if disk else None,
        "processes": processes,
    }
    return {name: amount for name, amount in given.items() if amount is not None}
