"""From lines of a spool to batches as they are sent: metric points column by column."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard._ingest import encode_goals
from modelyard._values import encode_value
from modelyard.metadata.v1 import run_pb2, run_service_pb2

MAX_BATCH_BYTES = 512 * 1024
MAX_BATCH_POINTS = 10_000
MAX_LINE = 8 * 1024 * 1024


@dataclass(slots=True)
class Batch:
    """Some whole lines of a spool, decoded; `start` and `end` are bytes of the data file."""

    start: int
    end: int
    points: int = 0
    garbled: int = 0
    request: run_service_pb2.IngestRunDataRequest = field(
        default_factory=run_service_pb2.IngestRunDataRequest
    )
    datasets: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    columns: dict[str, run_pb2.MetricColumn] = field(default_factory=dict)


def read_batches(path: Path, start: int, *, single: bool = False) -> Iterator[Batch]:
    """Yield batches of the whole lines after `start`; a torn last line waits for its rest.

    With `single`, every line is a batch of its own.
    """
    batch = Batch(start, start)
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(MAX_LINE):
            if not line.endswith(b"\n") and len(line) < MAX_LINE:
                break
            if _is_full(batch, len(line), single=single):
                yield batch
                batch = Batch(batch.end, batch.end)
            _add(batch, line)
    if batch.end > batch.start:
        yield batch


def _is_full(batch: Batch, more: int, *, single: bool) -> bool:
    size = batch.end - batch.start
    if not size:
        return False
    return single or size + more > MAX_BATCH_BYTES or batch.points >= MAX_BATCH_POINTS


def _add(batch: Batch, line: bytes) -> None:
    """Take a line into a batch; one that makes no sense is counted and left out."""
    offset, batch.end = batch.end, batch.end + len(line)
    try:
        record = json.loads(line.lstrip(b"\0"))
        _DECODERS[record[0]](batch, offset, *record[1:])
    except (ValueError, TypeError, KeyError, IndexError):
        batch.garbled += bool(line.strip())


def _metric(batch: Batch, _: int, step: int, time_us: int, values: dict[str, float]) -> None:
    for key, value in values.items():
        column = batch.columns.get(key)
        if column is None:
            column = batch.columns[key] = batch.request.metrics.add(key=key)
        column.steps.append(step)
        column.times_us.append(time_us)
        column.values.append(value)
    batch.points += len(values)


def _param(batch: Batch, _: int, key: str, value: object) -> None:
    if key not in batch.request.params:  # a key keeps its first value
        batch.request.params[key].CopyFrom(encode_value(value, key=key))


def _tag(batch: Batch, _: int, key: str, value: str) -> None:
    batch.request.tags[key] = value


def _dataset(batch: Batch, offset: int, facts: dict[str, Any]) -> None:
    batch.datasets.append((offset, facts))


def _code(batch: Batch, _: int, facts: dict[str, Any]) -> None:
    batch.request.code.CopyFrom(run_pb2.CodeSource(**facts))


def _environment(batch: Batch, _: int, facts: dict[str, Any]) -> None:
    packages = [run_pb2.Package(name=n, version=v) for n, v in facts.pop("packages", [])]
    batch.request.environment.CopyFrom(run_pb2.RuntimeEnvironment(**facts, packages=packages))


def _image(batch: Batch, _: int, image: str) -> None:
    batch.request.image = image


def _goal(batch: Batch, _: int, key: str, goal: str) -> None:
    if key not in batch.request.metric_goals:
        batch.request.metric_goals[key] = encode_goals({key: goal})[key]


_DECODERS: dict[str, Any] = {
    "m": _metric,
    "p": _param,
    "t": _tag,
    "d": _dataset,
    "c": _code,
    "e": _environment,
    "i": _image,
    "g": _goal,
}
