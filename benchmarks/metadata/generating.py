"""What both load generators do alike: take orders on standard input, answer on standard output.

Kept to the standard library: it is also run by the rival's interpreter, as a plain file. A
generator never retries. An operation returns whether its answer was right; what it raises
is counted as an error.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Operation = Callable[[int, int], "bool | float"]
"""Do the request number `index` of client `client`; say whether the answer is right, or, if it is,
how many seconds are to be counted instead of all that it took."""
Prepare = Callable[[Any], Operation]


@dataclass
class Outcome:
    """What one client saw."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0
    last_error: str = ""


@dataclass
class Load:
    """What a load came to; times in seconds."""

    requests: int
    errors: int
    wrong: int
    elapsed: float
    median: float
    p99: float
    last_error: str


def serve(operations: Mapping[str, Prepare]) -> None:
    """Carry out orders until standard input ends: one JSON object a line, one answer each."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a library may print what it likes
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(asdict(_carry_out(operations, order))), file=answers, flush=True)


def _carry_out(operations: Mapping[str, Prepare], order: Mapping[str, Any]) -> Load:
    try:
        operation = operations[order["operation"]](order["arguments"])
    except Exception as error:  # whoever ordered is told
        text = f"{type(error).__name__}: {error}"[:500]
        return Load(0, 1, 0, 0.0, math.nan, math.nan, text)
    return run(operation, order["clients"], order["seconds"], order["requests"])


def run(operation: Operation, clients: int, seconds: float, requests: int) -> Load:
    """Run clients in threads for some seconds, or until each did its requests."""
    outcomes = [Outcome() for _ in range(clients)]
    barrier = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        barrier.wait()
        end = time.perf_counter() + seconds
        index = 0
        while (index < requests) if requests else (time.perf_counter() < end):
            _once(operation, number, index, outcomes[number])
            index += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return _load(outcomes, time.perf_counter() - started)


def _once(operation: Operation, client: int, index: int, outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        right = operation(client, index)
    except Exception as error:  # counted: the load goes on
        outcome.errors += 1
        outcome.last_error = f"{type(error).__name__}: {error}"[:500]
        return
    took = time.perf_counter() - started
    outcome.latencies.append(took if isinstance(right, bool) else right)
    outcome.wrong += right is False


def _load(outcomes: list[Outcome], elapsed: float) -> Load:
    latencies = sorted(value for outcome in outcomes for value in outcome.latencies)
    return Load(
        requests=len(latencies),
        errors=sum(outcome.errors for outcome in outcomes),
        wrong=sum(outcome.wrong for outcome in outcomes),
        elapsed=elapsed,
        median=statistics.median(latencies) if latencies else float("nan"),
        p99=latencies[int(len(latencies) * 0.99)] if latencies else float("nan"),
        last_error=next((o.last_error for o in outcomes if o.last_error), ""),
    )
