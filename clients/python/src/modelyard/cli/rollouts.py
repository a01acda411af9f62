"""`modelyard deployments continue|abort|shadow|preview|watch|drift`: a rollout while it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.datasets import show_difference
from modelyard.cli.deploying import Environment, Reason, progress_of, ready_of, share_of, show
from modelyard.cli.render import clean, console, json_of, short_version, show_one, state

if TYPE_CHECKING:
    from rich.table import Table

    from modelyard.deployer.v1 import deployment_pb2, rollout_pb2

REFRESH_SECONDS = 1.0
_MEDIAN, _P95 = 0.5, 0.95
_HEADINGS = ("VERSION", "SHARE", "STATE", "READY", "RESTARTS", "RPS", "P50", "P95", "ERRORS")


def register(group: typer.Typer) -> None:
    """Add the commands to `modelyard deployments`."""
    group.command("continue")(resume)
    group.command("abort")(abort)
    group.command("shadow")(shadow)
    group.command("unshadow")(unshadow)
    group.command("preview")(preview)
    group.command("unpreview")(unpreview)
    group.command("watch")(watch)
    group.command("drift")(drift)


def resume(model: str, environment: Environment, reason: Reason = "") -> None:
    """Let a rollout that waits for somebody take its next step."""
    show(client().deployments.resume(model, environment=environment, reason=reason))


def abort(model: str, environment: Environment, reason: Reason = "") -> None:
    """Give an unfinished rollout up: what was live gets all requests again."""
    show(client().deployments.abort(model, environment=environment, reason=reason))


def shadow(
    version: str,
    environment: Environment,
    percent: Annotated[int, typer.Option(help="How many of the requests are copied.")] = 100,
    reason: Reason = "",
) -> None:
    """Have a version get copies of the live one's requests; its answers are dropped."""
    show(
        client().deployments.shadow(
            version, environment=environment, percent=percent, reason=reason
        )
    )


def unshadow(model: str, environment: Environment, reason: Reason = "") -> None:
    """End a shadow."""
    show(client().deployments.stop_shadow(model, environment=environment, reason=reason))


def preview(
    version: str,
    environment: Environment,
    header: Annotated[
        str, typer.Option(help="NAME=VALUE: it answers the requests with this header.")
    ] = "x-modelyard-variant=preview",
    reason: Reason = "",
) -> None:
    """Have a version answer the requests with a header, beside what is live."""
    name, _, value = header.partition("=")
    show(
        client().deployments.preview(
            version, environment=environment, header=(name.lower(), value), reason=reason
        )
    )


def unpreview(model: str, environment: Environment, reason: Reason = "") -> None:
    """End a preview: the requests with its header go the way of all others."""
    show(client().deployments.stop_preview(model, environment=environment, reason=reason))


def watch(
    model: str,
    environment: Environment,
    once: Annotated[bool, typer.Option(help="Show it once.")] = False,
) -> None:
    """Show what runs, live: shares, requests a second, latency and errors of each version."""
    connection = client()
    before = connection.deployments.get(model, environment=environment)
    if once or as_json():
        _print(before, once=once)
        return
    from rich.live import Live  # noqa: PLC0415 - rich is slow to import

    with Live(_table(before, before, 1.0), console=console(), auto_refresh=False) as live:
        seen = time.monotonic()
        while True:
            time.sleep(REFRESH_SECONDS)
            now = connection.deployments.get(model, environment=environment)
            passed = time.monotonic() - seen
            live.update(_table(now, before, passed), refresh=True)
            before, seen = now, seen + passed


def drift(
    model: str,
    environment: Environment,
    base: Annotated[
        str, typer.Option(help="A dataset version, prices/3; else what the version trained on.")
    ] = "",
    fail_on_drift: Annotated[bool, typer.Option(help="Exit with 1 if a column drifted.")] = False,
) -> int:
    """Hold the sampled requests of the live version against the data it was trained on."""
    found = client().deployments.drift(model, environment=environment, base=base or None)
    if as_json():
        show_one(found, {})
    else:
        show_difference(found)
    return 1 if fail_on_drift and found.drifted_column_count else 0


def _print(deployment: deployment_pb2.Deployment, *, once: bool) -> None:
    """Show it on one line of JSON, or as a table."""
    if as_json():
        print(json_of(deployment, indent=None if not once else 2))
    else:
        console().print(_table(deployment, deployment, 1.0))


def _table(
    now: deployment_pb2.Deployment, before: deployment_pb2.Deployment, seconds: float
) -> Table:
    """Lay out what runs, with what was counted in the last seconds."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    title = f"{now.name.rpartition('/')[2]}  {state(pb.DeploymentState, now.state)}"
    progress = progress_of(now)
    table = Table(box=None, pad_edge=False, title=f"{title}  {progress}", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    earlier = {variant.revision: variant.traffic for variant in before.variants}
    for variant in now.variants:
        cells = (
            short_version(variant.version),
            share_of(variant),
            state(pb.VariantState, variant.state).lower(),
            ready_of(variant),
            str(variant.restart_count),
            *_rates(variant.traffic, earlier.get(variant.revision), seconds),
        )
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table


def _rates(
    now: rollout_pb2.VariantTraffic, before: rollout_pb2.VariantTraffic | None, seconds: float
) -> tuple[str, str, str, str]:
    """Return requests a second, median, 95th percentile and share of errors since `before`."""
    if before is None or before.request_count > now.request_count:
        before = type(now)()
    requests = now.request_count - before.request_count
    errors = now.error_count - before.error_count
    counted = {b.upper_milliseconds: b.cumulative_count for b in before.latency_buckets}
    buckets = [
        (b.upper_milliseconds, b.cumulative_count - counted.get(b.upper_milliseconds, 0))
        for b in now.latency_buckets
    ]
    share = f"{errors / requests:.2%}" if requests else "-"
    return f"{requests / seconds:.1f}", _quantile(buckets, _MEDIAN), _quantile(buckets, _P95), share


def _quantile(buckets: list[tuple[float, int]], quantile: float) -> str:
    """Write the bound of the bucket that a quantile falls into."""
    total = buckets[-1][1] if buckets else 0
    if total <= 0:
        return "-"
    bound = next(upper for upper, count in buckets if count >= quantile * total)
    return f"≤ {bound:.4g} ms"
