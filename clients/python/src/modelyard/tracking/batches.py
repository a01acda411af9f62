"""From lines of a spool to batches as they are sent: metric points column by column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from modelyard._ingest import encode_goals
from modelyard._values import encode_value
from modelyard.metadata.v1 import run_pb2, run_service_pb2

MAX_BATCH_BYTES = 512 * 1024
MAX_BATCH_POINTS = 10_000
_READ_BYTES = 128 * 1024
_FIRST, _LAST = -(2**63), 2**63 - 1

_Column = tuple[list[int], list[int], list[float]]


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
    # Steps, times and values by metric, until they join the request all at once.
    columns: dict[str, _Column] = field(default_factory=dict)


def read_batches(path: Path, start: int, *, single: bool = False) -> Iterator[Batch]:
    """Yield batches of the whole lines after `start`; a torn last line waits for its rest.

    With `single`, every line is a batch of its own.
    """
    batch = Batch(start, start)
    with path.open("rb") as file:
        file.seek(start)
        for lines in _whole_lines(file):
            for line, record in zip(lines, _parse(lines), strict=True):
                if _is_full(batch, len(line), single=single):
                    yield _sealed(batch)
                    batch = Batch(batch.end, batch.end)
                _add(batch, line, record)
    if batch.end > batch.start:
        yield _sealed(batch)


def _whole_lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield whole lines, some at a time; `readlines` would cut one that is being written."""
    rest = b""
    while block := file.read(_READ_BYTES):
        whole, end, rest = (rest + block).rpartition(b"\n")
        if end:
            yield [line + end for line in whole.split(end)]


def _sealed(batch: Batch) -> Batch:
    for key, (steps, times_us, values) in batch.columns.items():
        batch.request.metrics.add(key=key, steps=steps, times_us=times_us, values=values)
    batch.columns = {}
    return batch


def _is_full(batch: Batch, more: int, *, single: bool) -> bool:
    size = batch.end - batch.start
    if not size:
        return False
    return single or size + more > MAX_BATCH_BYTES or batch.points >= MAX_BATCH_POINTS


def _parse(lines: Sequence[bytes]) -> Sequence[Any]:
    """Return lines as records, None for what is none: all at once, which is faster."""
    try:
        records: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        records = []
    return records if len(records) == len(lines) else [_parse_line(line) for line in lines]


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line.lstrip(b"\0"))
    except ValueError:
        return None


def _add(batch: Batch, line: bytes, record: Any) -> None:
    """Take a line into a batch; one that makes no sense is counted and left out."""
    offset, batch.end = batch.end, batch.end + len(line)
    try:
        _DECODERS[record[0]](batch, offset, *record[1:])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        batch.garbled += bool(line.strip())


def _metric(batch: Batch, _: int, step: int, time_us: int, values: dict[str, float]) -> None:
    if not (step.__class__ is time_us.__class__ is int):
        raise TypeError(step)
    if not (_FIRST <= step <= _LAST and 0 <= time_us <= _LAST):
        raise ValueError(step)
    for key, value in values.items():
        if value.__class__ is not float:
            raise TypeError(value)
        column = batch.columns.get(key)
        if column is None:
            key.encode()  # raises for what is no text
            column = batch.columns[key] = ([], [], [])
        column[0].append(step)
        column[1].append(time_us)
        column[2].append(value)
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
