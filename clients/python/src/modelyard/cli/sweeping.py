"""`modelyard build --sweep`: a grid of builds in one table, a comparison, and the best."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.cli.context import as_json
from modelyard.cli.render import (
    clean,
    console,
    leaf,
    seconds_between,
    short_version,
    state,
    text,
    value,
    write_messages,
)
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rich.table import Table

    from modelyard import BuildOptions, Client
    from modelyard.builder.v1 import build_pb2

_MOST_COMPARED = 100


def grid(texts: Sequence[str]) -> dict[str, list[object]]:
    """Read `key=value,value,…`, each key once.

    A value that is JSON keeps its type, anything else is text; in quotes or brackets it may hold
    commas: `depth=4,8`, `kernel=rbf,"a, b"`, `layers=[32],[64,32]`.

    Raises:
        InvalidArgumentError: One is none, or has a key that another has.
    """
    found: dict[str, list[object]] = {}
    for given in texts:
        key, equals, rest = given.partition("=")
        key = key.strip()
        if not (key and equals):
            raise _refusal(f"{given!r} is not key=value,value")
        if key in found:
            raise _refusal(f"{key} is swept twice")
        found[key] = _values(rest, given)
    return found


def _values(rest: str, given: str) -> list[object]:
    values: list[object] = []
    start = 0
    while True:
        found, end = _value(rest, start)
        if found in ("", None):
            raise _refusal(f"{given!r} has an empty value")
        if any(type(found) is type(other) and found == other for other in values):
            raise _refusal(f"{given!r} has {found!r} twice")
        values.append(found)
        if end == len(rest):
            return values
        start = end + 1


def _value(rest: str, start: int) -> tuple[object, int]:
    """Read a value; return it and the place of the comma, or the end, after it."""
    while start < len(rest) and rest[start] == " ":
        start += 1
    try:
        found, end = json.JSONDecoder().raw_decode(rest, start)
    except ValueError:
        found, end = None, start
    else:
        while end < len(rest) and rest[end] == " ":
            end += 1
        if end == len(rest) or rest[end] == ",":
            return found, end
    comma = rest.find(",", start)
    end = len(rest) if comma < 0 else comma
    return rest[start:end].strip(), end


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep varies, how much of it may be in progress, and by what the best is known."""

    grid: dict[str, list[object]]
    max_parallel: int
    best: str


def run(
    connection: Client,
    source: Any,
    sweep: Sweep,
    *,
    model: str,
    ignored: bool,
    options: BuildOptions,
) -> int:
    """Run a sweep, show how it goes and what came of it; return the exit status."""
    from modelyard.builder.v1 import build_pb2 as pb  # noqa: PLC0415

    with _Progress(list(sweep.grid)) as progress:
        builds = connection.builds.sweep(
            source,
            sweep.grid,
            max_parallel=sweep.max_parallel,
            on_change=progress.moved,
            model=model or None,
            include_ignored=ignored,
            **options,
        )
    made = [build for build in builds if build.state == pb.BUILD_STATE_SUCCEEDED]
    if as_json():
        write_messages(builds)
    else:
        _conclude(connection, made, sweep.best)
    return 0 if len(made) == len(builds) else 1


def _conclude(connection: Client, made: Sequence[build_pb2.Build], best: str) -> None:
    """Show the comparison of what was built, and say which is the best."""
    from modelyard.cli.compare import show_comparison  # noqa: PLC0415

    if 1 < len(made) <= _MOST_COMPARED:
        show_comparison(connection.builds.compare([build.name for build in made], code=False))
    if made:
        print(_best(connection, made, best))


def _best(connection: Client, made: Sequence[build_pb2.Build], metric: str) -> str:
    """Say which version is the best by a metric that has a goal."""
    from modelyard.metadata.v1 import model_pb2  # noqa: PLC0415

    goals = connection.models.get(made[0].model).metric_goals
    chosen = metric or next(iter(sorted(goals)), "")
    if chosen not in goals:
        what = f"metrics.{clean(chosen)}" if chosen else "any metric"
        return f"the model has no goal for {what}, so nobody can say which is the best"
    versions = [connection.versions.get(build.version) for build in made]
    measured = [v for v in versions if v.metrics.get(chosen) == v.metrics.get(chosen, float("nan"))]
    if not measured:
        return f"none has metrics.{clean(chosen)}"
    sign = 1 if goals[chosen] == model_pb2.METRIC_GOAL_MAXIMIZE else -1
    top = max(measured, key=lambda version: sign * version.metrics[chosen])
    return f"best by {clean(chosen)}: {short_version(top.name)}, {text(top.metrics[chosen])}"


class _Progress:
    """Shows the builds of a sweep: a live table on a terminal, else a line a change."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._builds: dict[int, build_pb2.Build] = {}
        self._live: Any = None

    def __enter__(self) -> _Progress:
        if sys.stdout.isatty() and not as_json():
            from rich.live import Live  # noqa: PLC0415 - rich is slow to import

            self._live = Live(console=console(), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def moved(self, place: int, build: build_pb2.Build) -> None:
        """Show that a build moved."""
        before = self._builds.get(place)
        self._builds[place] = build
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif not as_json() and (before is None or before.state != build.state):
            print("  ".join(self._row(place, build)), flush=True)

    def _table(self) -> Table:
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False)
        for heading in ("BUILD", *self._keys, "STATE", "VERSION", "TOOK"):
            table.add_column(clean(heading))
        for place, build in sorted(self._builds.items()):
            table.add_row(*(Text(cell) for cell in self._row(place, build)))
        return table

    def _row(self, place: int, build: build_pb2.Build) -> list[str]:
        from modelyard.builder.v1 import build_pb2 as pb  # noqa: PLC0415

        del place
        running = next((p for p in build.phases if p.state == pb.PHASE_STATE_RUNNING), None)
        phase = f" {state(pb.PhaseKind, running.kind).lower()}" if running else ""
        why = f" {build.failure.reason}" if build.failure.reason else ""
        return [
            leaf(build.name),
            *(text(value(build.spec.params[key])) for key in self._keys),
            f"{state(pb.BuildState, build.state)}{phase}{why}",
            short_version(build.version) or "-",
            seconds_between(build.start_time, build.end_time),
        ]


def _refusal(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(problem, reason="INVALID_FIELD")
