"""`modelyard build`, `logs` and `builds`: from a folder to a version, watched live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import queue
from modelyard.cli.context import as_json, client
from modelyard.cli.moments import since_moment
from modelyard.cli.render import (
    leaf,
    moment,
    seconds_between,
    short_version,
    show_list,
    show_one,
    state,
)
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.builder.v1 import build_pb2


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(build)
    app.command()(logs)
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_builds)
    group.command("show")(show_build)
    group.command("cancel")(cancel_build)
    group.command("limits")(queue.limits)
    app.add_typer(group, name="builds", help="Look at builds.")


def build(
    folder: Annotated[Path, typer.Argument(help="A folder with model.py and requirements.txt.")],
    *,
    model: Annotated[str, typer.Option(help="The model; else the folder's name.")] = "",
    param: Annotated[list[str] | None, typer.Option(help="key=value; repeatable.")] = None,
    entry: Annotated[str, typer.Option(help="module:Class, when model.py has several.")] = "",
    alias: Annotated[list[str] | None, typer.Option(help="Point this alias to it.")] = None,
    skip_tests: Annotated[bool, typer.Option(help="Leave the source's tests out.")] = False,
    follow: Annotated[bool, typer.Option(help="Watch it and end with its outcome.")] = True,
    wait: Annotated[bool, typer.Option(help="Wait silently and end with its outcome.")] = False,
) -> int:
    """Build a folder into a tested, registered version."""
    from modelyard.tracking.capture import source_origin  # noqa: PLC0415

    if not folder.is_dir():
        raise InvalidArgumentError(f"{folder} is not a folder", reason="INVALID_FIELD")
    connection = client()
    made = connection.builds.create(
        folder,
        model=model or None,
        params=dict(_param(text) for text in param or []),
        entry=entry,
        skip_tests=skip_tests,
        aliases=alias or [],
        origin=source_origin(folder),
    )
    if not (follow or wait):
        _show(made)
        return 0
    return _watch(connection, made.name, quiet=wait)


def logs(
    build: str,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    grep: Annotated[str, typer.Option(help="Only lines with this regular expression.")] = "",
    since: Annotated[str, typer.Option(help="10m, 2h, 1d ago, or a time.")] = "",
    phase: Annotated[str, typer.Option(help="Only this phase, such as train.")] = "",
    stream: Annotated[str, typer.Option(help="Only stdout, stderr or system.")] = "",
    tail: Annotated[int, typer.Option(min=0, help="Begin with the last so many.")] = 0,
) -> None:
    """Show what happened in a build, from its start."""
    from modelyard.cli.live import show_events  # noqa: PLC0415

    builds = client().builds
    show = builds.follow if follow else builds.logs
    begin = since_moment(since) if since else None
    show_events(show(build, grep=grep, since=begin, phase=phase, stream=stream, tail=tail))


def list_builds(
    filter_: Annotated[str, typer.Option("--filter", help="E.g. 'state = FAILED'.")] = "",
) -> None:
    """List builds, newest first."""
    from modelyard.builder.v1 import build_pb2  # noqa: PLC0415

    show_list(
        client().builds.list(filter=filter_),
        {
            "BUILD": lambda b: leaf(b.name),
            "MODEL": lambda b: leaf(b.model),
            "STATE": lambda b: state(build_pb2.BuildState, b.state),
            "WAITS FOR": _waits_for,
            "VERSION": lambda b: short_version(b.version) or "-",
            "TOOK": lambda b: seconds_between(b.start_time, b.end_time),
            "FAILURE": lambda b: b.failure.reason or "-",
            "BY": lambda b: b.creator,
            "CREATED": lambda b: moment(b.create_time),
        },
    )


def show_build(build: str) -> None:
    """Show a build and its phases."""
    _show(client().builds.get(build))


def cancel_build(build: str) -> None:
    """Cancel a build."""
    _show(client().builds.cancel(build))


def _watch(connection: Client, name: str, *, quiet: bool) -> int:
    from modelyard.builder.v1 import build_pb2  # noqa: PLC0415
    from modelyard.cli.live import show_events  # noqa: PLC0415

    if not (quiet or as_json()):
        print(leaf(name))
        show_events(connection.builds.follow(name))
    ended = connection.builds.wait(name)
    _show(ended)
    return 0 if ended.state == build_pb2.BUILD_STATE_SUCCEEDED else 1


def _show(build: build_pb2.Build) -> None:
    from modelyard.builder.v1 import build_pb2 as pb  # noqa: PLC0415

    phases = {
        state(pb.PhaseKind, phase.kind).lower(): (
            f"{state(pb.PhaseState, phase.state).lower()}  "
            f"{seconds_between(phase.start_time, phase.end_time)}"
        )
        for phase in build.phases
    }
    show_one(
        build,
        {
            "build": leaf(build.name),
            "model": leaf(build.model),
            "state": state(pb.BuildState, build.state),
            "failure": f"{build.failure.reason} {build.failure.message}".strip(),
            "version": short_version(build.version),
            "waiting": build.waiting.message,
            "attempt": build.attempt,
            **{f"attempt {past.attempt}": _past(past) for past in build.past_attempts},
            **phases,
        },
    )


def _waits_for(build: build_pb2.Build) -> str:
    from modelyard.builder.v1 import build_pb2 as pb  # noqa: PLC0415

    reason = build.waiting.reason
    return state(pb.WaitingReason, reason).lower().replace("_", " ") if reason else "-"


def _past(attempt: build_pb2.Attempt) -> str:
    failure = attempt.failure
    took = seconds_between(attempt.start_time, attempt.end_time)
    return f"{failure.reason} {failure.message}  {took}"


def _param(text: str) -> tuple[str, object]:
    """Read `key=value`; a value that is JSON keeps its type, anything else is text."""
    import json  # noqa: PLC0415

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InvalidArgumentError(f"{text!r} is not key=value", reason="INVALID_FIELD")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
