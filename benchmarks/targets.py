"""The one table of targets; a bar holds when its value is on the right side of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """On which side of its target a value must lie."""

    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Target:
    """What a bar demands."""

    side: Side
    value: float
    unit: str

    def holds(self, value: float) -> bool:
        """Say whether a measured value meets the target; NaN never does."""
        return value <= self.value if self.side is Side.AT_MOST else value >= self.value


METADATA_DATABASES = ("sqlite", "postgresql")
_METADATA = {
    "log one metric, 1 client": Target(Side.AT_LEAST, 7, "x"),
    "log one metric, 8 clients": Target(Side.AT_LEAST, 8, "x"),
    "server CPU per logged metric, seconds": Target(Side.AT_MOST, 0.1, "x"),
    "log_metric from training, against the best setting": Target(Side.AT_LEAST, 30, "x"),
    "log_metric from training, delivered metrics/s": Target(Side.AT_LEAST, 100_000, "metrics/s"),
    "log_metric call, median": Target(Side.AT_MOST, 20, "us"),
    "log_metric call, p99": Target(Side.AT_MOST, 1_000, "us"),
    "batch of 1,000 metrics": Target(Side.AT_LEAST, 20, "x"),
    "create run, 8 clients": Target(Side.AT_LEAST, 7, "x"),
    "create version, 8 clients": Target(Side.AT_LEAST, 14, "x"),
    "version by alias, 1 client": Target(Side.AT_LEAST, 14, "x"),
    "version by alias, 8 clients": Target(Side.AT_LEAST, 6, "x"),
    "resolver, answers/s": Target(Side.AT_LEAST, 100_000, "answers/s"),
    "resolver, staleness p99, 16 writers": Target(Side.AT_MOST, 0.2, "s"),
    "search, top 100 by a metric": Target(Side.AT_LEAST, 50, "x"),
    "search, selective param": Target(Side.AT_LEAST, 5, "x"),
    "search, selective metric": Target(Side.AT_LEAST, 5, "x"),
    "search, selective tag": Target(Side.AT_LEAST, 5, "x"),
    "search, unselective": Target(Side.AT_MOST, 6, "s"),
    "metric history of 100,000 points": Target(Side.AT_LEAST, 50, "x"),
    "growth, page": Target(Side.AT_MOST, 1.5, "x"),
    "growth, ordered search": Target(Side.AT_MOST, 1.5, "x"),
    "growth, alias lookup": Target(Side.AT_MOST, 1.5, "x"),
    "growth, create": Target(Side.AT_MOST, 1.5, "x"),
}

_OVERLOAD = {
    f"{greedy}: {bar}": target
    for greedy in ("one greedy", "ten greedy")
    for bar, target in {
        "goodput, of the peak": Target(Side.AT_LEAST, 0.7, "x"),
        "refusals, p99": Target(Side.AT_MOST, 100, "ms"),
        "refusals that say when": Target(Side.AT_LEAST, 1, "of all"),
        "calls that ended otherwise": Target(Side.AT_MOST, 0, "calls"),
        "health checks failed": Target(Side.AT_MOST, 0, "checks"),
        "calm again, share answered": Target(Side.AT_LEAST, 1, "of all"),
        "who calls rarely, share answered": Target(Side.AT_LEAST, 0.95, "of all"),
        "who calls rarely, median": Target(Side.AT_MOST, 200, "ms"),
    }.items()
}
TARGETS: dict[str, dict[str, Target]] = {
    "suite": {
        "start to ready": Target(Side.AT_MOST, 3.5, "s"),
        "idle memory of all processes": Target(Side.AT_MOST, 350, "MB"),
        "import modelyard above bare Python": Target(Side.AT_MOST, 60, "ms"),
        "modelyard --help above bare Python": Target(Side.AT_MOST, 250, "ms"),
    },
    "artifact": {
        "upload 1 GiB, against MLflow": Target(Side.AT_LEAST, 1.3, "x"),
        "upload 1 GiB, of a bare gRPC stream": Target(Side.AT_LEAST, 0.45, "x"),
        "download 1 GiB, against MLflow": Target(Side.AT_LEAST, 2, "x"),
        "download 1 GiB, of a bare gRPC stream": Target(Side.AT_LEAST, 0.6, "x"),
        "1,000 x 100 KB up": Target(Side.AT_LEAST, 15, "x"),
        "1,000 x 100 KB down": Target(Side.AT_LEAST, 10, "x"),
        "second version, 1 % in place, sent": Target(Side.AT_MOST, 1.3, "%"),
        "second version, 1 % inserted, sent": Target(Side.AT_MOST, 1.3, "%"),
        "second version, 1 % in 40 places, sent": Target(Side.AT_MOST, 4, "%"),
        "second version, effective rate": Target(Side.AT_LEAST, 3, "x"),
        "fine-tuned safetensors, 90 % unchanged, sent": Target(Side.AT_MOST, 11, "%"),
        "ten processes through one cache": Target(Side.AT_MOST, 1.2, "x"),
        "direct path up": Target(Side.AT_LEAST, 0.85, "x"),
        "direct path down": Target(Side.AT_LEAST, 0.85, "x"),
        "direct path, service CPU": Target(Side.AT_MOST, 5, "%"),
        "peak memory of the client": Target(Side.AT_MOST, 300, "MB"),
        "peak memory of the service": Target(Side.AT_MOST, 300, "MB"),
    },
    "builder": {
        "line to 10 followers, p50": Target(Side.AT_MOST, 10, "ms"),
        "line to 10 followers, p99": Target(Side.AT_MOST, 40, "ms"),
        "burst, lines/s": Target(Side.AT_LEAST, 200_000, "lines/s"),
        "replay, lines/s": Target(Side.AT_LEAST, 600_000, "lines/s"),
        "submit to first line": Target(Side.AT_MOST, 2, "s"),
        "no-op build": Target(Side.AT_MOST, 5, "s"),
        "queue, share of the workers used": Target(Side.AT_LEAST, 0.8, "x"),
        "cold environment, against uv alone": Target(Side.AT_MOST, 1.2, "x"),
    },
    "deployer": {
        "prediction through Envoy, p50": Target(Side.AT_MOST, 1, "ms"),
        **{f"{rows} rows, HTTP, requests/s": Target(Side.AT_LEAST, 1.5, "x") for rows in (1, 100)},
        **{f"{rows} rows, gRPC, requests/s": Target(Side.AT_LEAST, 1.1, "x") for rows in (1, 100)},
        **{f"{rows} rows, HTTP, p99": Target(Side.AT_MOST, 1, "x") for rows in (1, 100)},
        **{f"{rows} rows, gRPC, p99": Target(Side.AT_MOST, 1, "x") for rows in (1, 100)},
        "swap, failed requests": Target(Side.AT_MOST, 0, "requests"),
        "swap, p99 against steady": Target(Side.AT_MOST, 3, "x"),
        "rollback, warm": Target(Side.AT_MOST, 1, "s"),
        "rollback, cold, above the model's start": Target(Side.AT_MOST, 2, "s"),
        "200 deployments with nothing to do": Target(Side.AT_MOST, 1, "%"),
    },
    "overload": {
        **_OVERLOAD,
        "attempts of our client for each call": Target(Side.AT_MOST, 1.2, "of all"),
    },
    "overload bare": _OVERLOAD,
    "metadata": {
        f"{kind}: {bar}": target for kind in METADATA_DATABASES for bar, target in _METADATA.items()
    },
}
