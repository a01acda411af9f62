"""`modelyard compare` and `promote`: which version is better, and saying so."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import context
from modelyard.cli.context import Output, client
from modelyard.cli.render import json_of, leaf, short_version, show_one
from modelyard.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.cli.comparing.charts import Points
    from modelyard.cli.comparing.view import View
    from modelyard.metadata.v1.comparison_service_pb2 import CompareResponse

POINTS = 1_000
"""So many points of a curve are drawn."""
ALL_POINTS = 200_000
"""So many points a page has in all, about."""

_SUFFIXES = {
    ".json": Output.JSON,
    ".md": Output.MARKDOWN,
    ".html": Output.HTML,
    ".htm": Output.HTML,
}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(compare)
    app.command()(promote)


def compare(
    things: Annotated[
        list[str],
        typer.Argument(help="Versions, runs, builds: churn/3 churn@production churn/RUN b-…"),
    ],
    to: Annotated[
        Path | None, typer.Option(help="A file to write: .html (with curves), .md or .json.")
    ] = None,
    code: Annotated[bool, typer.Option(help="Tell how the code differs.")] = True,
) -> None:
    """Put versions, runs and builds side by side; the others are held against the first."""
    if len(things) < 2:
        raise InvalidArgumentError("name at least two things", reason="INVALID_FIELD")
    output = _output(to)
    connection = client()
    answer = connection.compare(things, code=code)
    if output is Output.TABLE:
        show_comparison(answer)
        return
    written = _written(connection, answer, output)
    if to is None:
        print(written, end="")
    else:
        to.write_text(written, encoding="utf-8")


def show_comparison(answer: CompareResponse) -> None:
    """Write a comparison as tables; the best value of each metric is marked."""
    from modelyard.cli.comparing import terminal  # noqa: PLC0415 - rich comes with it

    terminal.show(_view(answer))


def promote(
    version: str,
    alias: str,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    if_version: Annotated[str, typer.Option(help="Only if it points here now.")] = "",
) -> None:
    """Point an alias to a version."""
    connection = client()
    found = connection.versions.resolve(version)
    model = "/".join(found.name.split("/")[:4])
    moved = connection.aliases.set(
        model, alias, version=found.name, if_version=if_version or None, reason=reason
    )
    show_one(moved, {"alias": leaf(moved.name), "version": short_version(moved.version)})


def _output(to: Path | None) -> Output:
    """Return how to write: as told, else as the file's name says."""
    chosen = context.output()
    if to is None or chosen is not Output.TABLE:
        return chosen
    if to.suffix.lower() not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise InvalidArgumentError(f"end the file's name in {known}", reason="INVALID_FIELD")
    return _SUFFIXES[to.suffix.lower()]


def _written(connection: Client, answer: CompareResponse, output: Output) -> str:
    if output is Output.JSON:
        return f"{json_of(answer)}\n"
    if output is Output.MARKDOWN:
        from modelyard.cli.comparing import markdown  # noqa: PLC0415

        return markdown.write(_view(answer))
    from modelyard.cli.comparing import page  # noqa: PLC0415 - jinja2 comes with it

    return page.write(_view(answer), _series(connection, answer), now=datetime.now().astimezone())


def _view(answer: CompareResponse) -> View:
    from modelyard.cli.comparing import local_code, view  # noqa: PLC0415

    found = view.make_view(answer)
    return found.with_code(local_code.fill_in(found.code, Path.cwd()))


def _series(connection: Client, answer: CompareResponse) -> dict[str, dict[int, Points]]:
    """Return the curves by metric and place; a run that is gone by now has none."""
    series: dict[str, dict[int, Points]] = {}
    curves = max(len(answer.items) * len(answer.metrics), 1)
    most = max(min(POINTS, ALL_POINTS // curves), 50)
    for place, item in enumerate(answer.items):
        if not item.run:
            continue
        try:
            found = connection.runs.sample_metrics(item.run, max_points=most)
        except NotFoundError:
            continue
        for key, points in found.items():
            series.setdefault(key, {})[place] = (points.steps, points.values)
    return series
