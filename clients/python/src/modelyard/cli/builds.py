"""`modelyard logs` and `builds`: how builds go, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import queue
from modelyard.cli.context import as_json, client
from modelyard.cli.groups import Group
from modelyard.cli.moments import since_moment
from modelyard.cli.render import (
    as_dict,
    json_of,
    leaf,
    moment,
    pairs,
    seconds_between,
    short_version,
    show_one,
    show_table,
    state,
    value,
    write_json,
)

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.builder.v1 import build_pb2


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(logs)
    group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_builds)
    group.command("show")(show_build)
    group.command("cancel")(cancel_build)
    group.command("limits")(queue.limits)
    app.add_typer(group, name="builds", help="Look at builds, cancel and limit them.")


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
    """Show what happened in a build, from its start; with -o json a line of JSON an event."""
    from modelyard.cli.live import show_events  # noqa: PLC0415

    builds = client().builds
    builds.get(build)  # a stream would look for a server that is not there for minutes
    show = builds.follow if follow else builds.logs
    begin = since_moment(since) if since else None
    events = show(build, grep=grep, since=begin, phase=phase, stream=stream, tail=tail)
    if not as_json():
        show_events(events)
        return
    for event in events:
        print(json_of(event, indent=None), flush=True)


def list_builds(
    filter_: Annotated[str, typer.Option("--filter", help="E.g. 'state = FAILED'.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 100,
) -> None:
    """List builds side by side, newest first: what was asked, what came of it, how long it took."""
    connection = client()
    found = list(islice(connection.builds.list(filter=filter_), limit))
    metrics = _metrics(connection, found)
    if as_json():
        write_json([as_dict(build) | {"metrics": metrics.get(build.run, {})} for build in found])
        return
    show_table(
        ["BUILD", "MODEL", "OUTCOME", "VERSION", "PARAMS", "METRICS", "TESTS", "TOOK", "CREATED"],
        [
            (
                leaf(build.name),
                leaf(build.model),
                _outcome(build),
                short_version(build.version or build.spec.reproduces) or "-",
                pairs({key: value(build.spec.params[key]) for key in build.spec.params}),
                pairs(metrics.get(build.run, {})),
                test_counts(build),
                seconds_between(build.start_time, build.end_time),
                moment(build.create_time),
            )
            for build in found
        ],
    )


def _metrics(connection: Client, builds: Sequence[build_pb2.Build]) -> dict[str, dict[str, float]]:
    """Return the last values of all these builds' metrics, by run: in one call, not one each."""
    wanted = {build.run for build in builds if build.run}
    if not wanted:
        return {}
    oldest = builds[-1].create_time.ToJsonString()
    runs = connection.runs.search(
        filter=f'create_time >= "{oldest}" AND build != ""', page_size=1_000
    )
    return {
        run.name: {metric.key: metric.last for metric in run.metrics}
        for run in runs
        if run.name in wanted
    }


def _outcome(build: build_pb2.Build) -> str:
    """Return a build's state, and what it waits for or why it failed."""
    from modelyard.builder.v1 import build_pb2 as pb  # noqa: PLC0415

    why = build.failure.reason or _waits_for(build)
    again = " (reproduces)" if build.spec.reproduces else ""
    return f"{state(pb.BuildState, build.state)} {why}".rstrip() + again


def test_counts(build: build_pb2.Build) -> str:
    """Return how many of the source's own tests passed, and what became of the others."""
    for phase in build.phases:
        if phase.HasField("tests"):
            tests = phase.tests
            failed = f", {tests.failed_count} failed" if tests.failed_count else ""
            skipped = f", {tests.skipped_count} skipped" if tests.skipped_count else ""
            return f"{tests.passed_count} passed{failed}{skipped}"
    return ""


def image(build: build_pb2.Build) -> str:
    """Return which image a build made."""
    return f"{build.image_digest}  {build.image}".strip()


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
            "reproduces": short_version(build.spec.reproduces),
            "tests": test_counts(build),
            "artifact": build.artifact,
            "image": image(build),
            "image reference": build.image_reference,
            "evidence": build.evidence,
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
    return state(pb.WaitingReason, reason).lower().replace("_", " ") if reason else ""


def _past(attempt: build_pb2.Attempt) -> str:
    failure = attempt.failure
    took = seconds_between(attempt.start_time, attempt.end_time)
    return f"{failure.reason} {failure.message}  {took}"
