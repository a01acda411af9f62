"""`modelyard logs` and `builds`: how builds go, and what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import queue
from modelyard.cli.context import as_json, client
from modelyard.cli.moments import since_moment
from modelyard.cli.render import (
    leaf,
    moment,
    pairs,
    seconds_between,
    short_version,
    show_list,
    show_one,
    state,
    value,
)

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.builder.v1 import build_pb2


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(logs)
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_builds)
    group.command("show")(show_build)
    group.command("cancel")(cancel_build)
    group.command("limits")(queue.limits)
    app.add_typer(group, name="builds", help="Look at builds.")


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
    show(client().builds.get(build))


def cancel_build(build: str) -> None:
    """Cancel a build."""
    show(client().builds.cancel(build))


def watch(connection: Client, made: build_pb2.Build, *, follow: bool, wait: bool) -> int:
    """Show an order, and if wished how it goes; return the exit status that says how it went."""
    from modelyard.builder.v1 import build_pb2  # noqa: PLC0415
    from modelyard.cli.live import show_events  # noqa: PLC0415

    if not (follow or wait):
        show(made)
        return 0
    if not (wait or as_json()):
        print(leaf(made.name))
        show_events(connection.builds.follow(made.name))
    ended = connection.builds.wait(made.name)
    show(ended)
    return 0 if ended.state == build_pb2.BUILD_STATE_SUCCEEDED else 1


def show(build: build_pb2.Build) -> None:
    """Show a build, what it is made from, and its phases."""
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
            **_made_from(build),
            "attempt": build.attempt,
            **{f"attempt {past.attempt}": _past(past) for past in build.past_attempts},
            **phases,
        },
    )


def _made_from(build: build_pb2.Build) -> dict[str, object]:
    spec, origin = build.spec, build.origin
    commit = f"{origin.commit} {'(changed)' if origin.dirty else ''}".strip()
    return {
        "source": build.source or spec.git.url,
        "repository": origin.repository,
        "commit": f"{commit} {origin.branch}".strip(),
        "params": pairs({key: value(spec.params[key]) for key in spec.params}),
        "data": pairs({data.name: _short_data(data.dataset_version) for data in spec.data}),
        "variables": pairs(spec.variables),
        "secrets": pairs({secret.variable: leaf(secret.secret) for secret in spec.secrets}),
        "labels": pairs(spec.labels),
        "priority": spec.priority,
        "pool": spec.pool,
        "group": spec.group,
    }


def _short_data(name: str) -> str:
    parts = name.split("/")
    return f"{parts[3]}/{parts[5]}"


def _waits_for(build: build_pb2.Build) -> str:
    from modelyard.builder.v1 import build_pb2 as pb  # noqa: PLC0415

    reason = build.waiting.reason
    return state(pb.WaitingReason, reason).lower().replace("_", " ") if reason else "-"


def _past(attempt: build_pb2.Attempt) -> str:
    failure = attempt.failure
    took = seconds_between(attempt.start_time, attempt.end_time)
    return f"{failure.reason} {failure.message}  {took}"
