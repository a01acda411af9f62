"""A comparison as one page of its own: no request leaves it, no script runs in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from modelyard.cli.comparing import charts
from modelyard.cli.comparing.charts import Chart, Points
from modelyard.cli.comparing.diffs import files_of
from modelyard.cli.comparing.view import View
from modelyard.cli.render import clean


def write(view: View, series: Mapping[str, Mapping[int, Points]], *, now: datetime) -> str:
    """Return a comparison as an HTML page.

    Args:
        view: the comparison.
        series: of each metric, the points of each thing compared, by its place.
        now: the moment to date the page by.
    """
    environment = Environment(
        loader=PackageLoader("modelyard.cli.comparing"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever was stored passes here: control characters have no place in a page.
        finalize=_shown,
    )
    template = environment.get_template("comparison.html.j2")
    return template.render(
        view=view,
        charts=_charts(view, series),
        codes=[(code, *files_of(code.diff)) for code in view.code],
        styles=[(charts.colour_of(i), charts.dashes_of(i)) for i in range(len(view.heads))],
        frame=charts,
        now=f"{now:%Y-%m-%d %H:%M}",
    )


def _charts(view: View, series: Mapping[str, Mapping[int, Points]]) -> Sequence[Chart]:
    names = [head.title or head.short for head in view.heads]
    found = (charts.make_chart(key, points, names) for key, points in sorted(series.items()))
    return [chart for chart in found if chart is not None]


def _shown(value: object) -> object:
    return clean(value) if type(value) is str else value
