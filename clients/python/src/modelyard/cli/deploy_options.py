"""The options of `modelyard deploy`: how a version takes over, and how it is served."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import amounts
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard.rollouts import Analysis, Autoscaling, Serving

Canary = Annotated[str, typer.Option(help="Shares one after the other: 5,25,100.")]
Hold = Annotated[str, typer.Option(help="How long to keep each share at least: 90s, 10m.")]
Manual = Annotated[bool, typer.Option(help="Keep each share until told to go on.")]
MinRequests = Annotated[int, typer.Option(help="Judge a share by so many at least.")]
MaxErrorRate = Annotated[float | None, typer.Option(help="Of the canary, 0 to 1.")]
MaxErrorRateIncrease = Annotated[float | None, typer.Option(help="Above that of the live version.")]
MaxP95 = Annotated[float | None, typer.Option(help="Seconds.")]
MaxP95Ratio = Annotated[float | None, typer.Option(help="Of the live version's.")]
ProgressTimeout = Annotated[
    str, typer.Option(help="How long it may take to get ready, and to judge a share: 10m.")
]
KeepWarm = Annotated[
    bool, typer.Option(help="Keep what it replaces running, for a quick rollback.")
]
Replicas = Annotated[int, typer.Option(help="How many model servers.")]
Workers = Annotated[int, typer.Option(help="Processes of each model server.")]
Concurrency = Annotated[int, typer.Option(help="Predictions at once in each process; 0: 1.")]
Queue = Annotated[
    int, typer.Option(help="Requests that may wait for each process; 0: 64. More are refused.")
]
Cpu = Annotated[float, typer.Option(help="Cores of each model server; 0: any.")]
Memory = Annotated[str, typer.Option(help="Of each model server, such as 2G; else any.")]
Sample = Annotated[
    float, typer.Option(help="Share of the requests that become rows of a dataset, 0 to 1.")
]

Autoscale = Annotated[
    str, typer.Option(help="How many model servers: 1-4; 1-4:8 with 8 requests in hand for each.")
]
Batch = Annotated[int, typer.Option(help="Requests predicted together at most; 0: none are.")]


def shares_of(text: str) -> list[int]:
    """Return a list of percents such as `5,25,100`."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        problem = f"{text!r} is no list of percents such as 5,25,100"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD") from None


def analysis_of(min_requests: int, *limits: float | None) -> Analysis | None:
    """Return what must hold; None when nothing was asked for."""
    from modelyard.rollouts import Analysis  # noqa: PLC0415

    if all(limit is None for limit in limits):
        return None
    return Analysis(min_requests, *limits)


def serving_of(
    replicas: int,
    workers: int,
    concurrency: int,
    queue: int,
    *,
    cpu: float,
    memory: str,
    sample: float,
    batch: int,
    autoscale: str,
) -> Serving:
    """Return how a version is served as the options have it."""
    from modelyard.rollouts import Batching, Sampling, Serving  # noqa: PLC0415 - `--help` waits not

    return Serving(
        replicas,
        workers,
        concurrency,
        queue,
        cpu=cpu,
        memory_bytes=amounts.size(memory) if memory else 0,
        sampling=Sampling(sample) if sample else None,
        batching=Batching(batch) if batch else None,
        autoscaling=_autoscaling(autoscale) if autoscale else None,
    )


def _autoscaling(text: str) -> Autoscaling:
    from modelyard.rollouts import Autoscaling  # noqa: PLC0415

    found = re.fullmatch(r"(\d{1,3})-(\d{1,3})(?::(\d{1,6}(?:\.\d+)?))?", text)
    if found is None:
        problem = f"{text!r} is no range such as 1-4, or 1-4:8 with the requests in hand for each"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD")
    return Autoscaling(int(found[2]), int(found[1]), float(found[3] or 0))
