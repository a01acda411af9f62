"""What Envoy counts of each variant, read from its statistics.

HTTP and gRPC requests of a variant go to clusters of their own and are added up. A
gRPC answer that failed is HTTP 200 to Envoy, so its status is counted by a filter;
that filter does not see mirrored requests, whose gRPC failures are not counted.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from services.deployer.rollouts.plans import Traffic

BOUNDS_MS = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300),
    *(400, 500, 600, 800, 1_000, 1_500, 2_000, 3_000, 4_000, 6_000, 8_000, 10_000, 15_000),
    *(20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 3_600_000),
)
"""Fine enough that a 95th percentile is known to about a quarter of itself."""
LATENCY_BUCKETS = {"match": {"suffix": "upstream_rq_time"}, "buckets": list(BOUNDS_MS)}
# The gRPC statuses that say that the server failed: UNKNOWN, DEADLINE_EXCEEDED,
# RESOURCE_EXHAUSTED (it is overloaded), UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_FAILED = "grpc\\.(?:2|4|8|12|13|14|15)"
_COUNTED = f"upstream_rq_completed|upstream_rq_5xx|upstream_rq_time|{_FAILED}"
TRAFFIC = f"^cluster\\..*_(?:http|grpc)\\.(?:{_COUNTED})$"
"""The names of what is counted, as a regular expression."""
_NAME = re.compile(r"cluster\.(?P<variant>.+)_(?P<protocol>http|grpc)\.(?P<what>.+)")


def traffic_of(statistics: Iterable[dict[str, Any]]) -> dict[str, Traffic]:
    """Add up what was counted, by variant (a `stat_name`)."""
    counts: defaultdict[str, dict[str, int]] = defaultdict(lambda: {"requests": 0, "errors": 0})
    buckets: defaultdict[str, defaultdict[float, int]] = defaultdict(lambda: defaultdict(int))
    for entry in statistics:
        for histogram in entry.get("histograms", ()):
            variant, _, _ = _parts(histogram["name"])
            for bucket in histogram.get("buckets", ()):
                buckets[variant][float(bucket["upper_bound"])] += bucket["cumulative"]
        if "name" in entry:
            variant, protocol, what = _parts(entry["name"])
            kind = _kind(protocol, what)
            if kind:
                counts[variant][kind] += entry["value"]
    return {
        variant: Traffic(found["requests"], found["errors"], _closed(buckets[variant]))
        for variant, found in counts.items()
    }


def _parts(name: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} was not asked for")
    return match["variant"], match["protocol"], match["what"]


def _kind(protocol: str, what: str) -> str:
    if what == "upstream_rq_completed":
        return "requests"
    failed = what == "upstream_rq_5xx" if protocol == "http" else what.startswith("grpc.")
    return "errors" if failed else ""


def _closed(buckets: dict[float, int]) -> tuple[tuple[float, int], ...]:
    """Order buckets by bound, and close them with an infinite one."""
    ordered = sorted(buckets.items())
    return (*ordered, (math.inf, ordered[-1][1])) if ordered else ()
