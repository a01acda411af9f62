"""Samples: a share of the requests and their answers as rows of plain values, in small files.

Offering one costs a random number and never waits: what does not fit is dropped and counted. A
thread turns requests into rows and writes them; whoever started the server takes the files away.
Only numbers, truth values and text in tensors of a row each make columns, other tensors do not.
Nothing of a request but its tensors is kept.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from modelyard.serving import grpc_codec, http_codec
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving.domain import ServingError, Tensor
from modelyard.serving.jobs import Job, Protocol, Result
from modelyard.serving.tensors import BYTES, Array, TensorError, as_text, datatype_of

logger = logging.getLogger(__name__)

SUFFIX = ".json"
FLUSH_SECONDS = 1.0
MAX_FILES = 60
"""So many files that nobody took away, and no more is written."""
MAX_BYTES = 1024 * 1024
"""Larger requests and answers are no samples."""
MAX_COLUMNS = 1_000
MAX_ROWS = 1_000
"""Of one request the first so many."""
_MAX_WAITING = 64
_TEXT = 255


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """What is sampled: where to, the share of the requests, and rows a second at most."""

    folder: Path
    share: float
    rows_per_second: float


class Sampler:
    """Takes samples of requests that were answered."""

    def __init__(self, plan: SamplingPlan, *, on_dropped: Callable[[], None]) -> None:
        self._plan = plan
        self._on_dropped = on_dropped
        self._queue: queue.Queue[tuple[Job, Result] | None] = queue.Queue(_MAX_WAITING)
        self._not_before = 0.0
        self._random = random.Random()  # noqa: S311 - it keeps no secret
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._thread.start()

    def offer(self, job: Job, result: Result) -> None:
        """Take a request and its answer as a sample, or not; never waits, never raises."""
        if self._random.random() >= self._plan.share or time.monotonic() < self._not_before:
            return
        if len(job.body) + len(result.body) > MAX_BYTES:
            self._on_dropped()
            return
        try:
            self._queue.put_nowait((job, result))
        except queue.Full:
            self._on_dropped()

    def close(self) -> None:
        """Write what was taken; waits a moment for it."""
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(2)

    def _run(self) -> None:
        lines: list[bytes] = []
        number, flush_time = 0, 0.0
        while True:
            wait = max(0.0, flush_time - time.monotonic()) if lines else None
            try:
                taken = self._queue.get(timeout=wait)
                ended = taken is None
                line = b"" if taken is None else self._line(*taken)
            except queue.Empty:
                ended, line = False, b""
            if line:
                flush_time = flush_time if lines else time.monotonic() + FLUSH_SECONDS
                lines.append(line)
            if lines and (ended or time.monotonic() >= flush_time):
                number += 1
                self._write(number, lines)
                lines = []
            if ended:
                return

    def _line(self, job: Job, result: Result) -> bytes:
        """Return a request as a line of JSON; empty when it has no columns."""
        try:
            sample = sample_of(job, result)
            if not sample:
                return b""
            spacing = sample["rows"] / self._plan.rows_per_second
            earliest = time.monotonic() - 1.0  # what a second before left over may come at once
            self._not_before = max(earliest, self._not_before) + spacing
            return orjson.dumps(sample)
        except Exception:  # a sample is worth nothing that happens to requests
            logger.exception("no sample of a request")
            self._on_dropped()
            return b""

    def _write(self, number: int, lines: list[bytes]) -> None:
        folder = self._plan.folder
        try:
            if sum(1 for _ in folder.iterdir()) >= MAX_FILES:
                for _ in lines:
                    self._on_dropped()
                return
            part = folder / f"{number:012d}.part"
            part.write_bytes(b"\n".join(lines))
            part.replace(part.with_suffix(SUFFIX))
        except OSError as error:
            logger.warning("samples not written", extra={"problem": str(error)})


def sample_of(job: Job, result: Result) -> dict[str, Any]:
    """Return a request and its answer by column, with the number of rows; empty: no columns."""
    if job.protocol is Protocol.HTTP:
        inputs = http_codec.decode(job.body, job.json_length)[0].inputs
        outputs = http_codec.decode_answer(result.body, result.json_length)
    else:
        inputs = grpc_codec.decode(pb.ModelInferRequest.FromString(job.body)).inputs
        outputs = grpc_codec.decode_answer(pb.ModelInferResponse.FromString(result.body))
    columns = _columns(inputs, "") | _columns(outputs, "output.")
    rows = max((len(values) for _, values in columns.values()), default=0)
    kept = {n: c for n, c in list(columns.items())[:MAX_COLUMNS] if len(c[1]) == rows}
    if not rows or not kept:
        return {}
    return {
        "time": time.time(),
        "rows": min(rows, MAX_ROWS),
        "types": {name: type_ for name, (type_, _) in kept.items()},
        "columns": {name: values[:MAX_ROWS] for name, (_, values) in kept.items()},
    }


def _columns(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[str, list[Any]]]:
    """Return the type and values of each column.

    The columns of a matrix are called by their places, as `log_dataset` calls those of an array;
    with the tensor's name before, where it is not the only input.
    """
    columns: dict[str, tuple[str, list[Any]]] = {}
    for name, tensor in tensors.items():
        array = tensor.array
        if array.ndim == 1:
            named = {name: array}
        elif array.ndim == 2 and array.shape[1] <= MAX_COLUMNS:
            alone = len(tensors) == 1 and not prefix
            named = {
                str(place) if alone else f"{name}.{place}": array[:, place]
                for place in range(array.shape[1])
            }
        else:
            continue
        for column, values in named.items():
            found = _values(values)
            if found is not None:
                columns[f"{prefix}{column}"[:_TEXT]] = found
    return columns


def _values(array: Array) -> tuple[str, list[Any]] | None:
    """Return a column's type and values; None when it is not text, numbers or truth values."""
    try:
        if datatype_of(array) == BYTES:
            return "str", [text[:_TEXT] for text in as_text(array).tolist()]
    except (TensorError, TypeError, ServingError):
        return None
    return array.dtype.name, array.tolist()
