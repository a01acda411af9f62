"""Shipping a spool: everything in it reaches the server exactly once, whatever dies on the way.

The sequence of a batch is where its lines end in the data file. After any doubt the server is
asked how far it got. A line that the server refuses for what it says is left out and noted, so
that it holds up nothing behind it.
"""

from __future__ import annotations

import ctypes
import logging
import queue
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import grpc
from google.protobuf.json_format import ParseDict

from modelyard._names import project_of
from modelyard._transport.channel import Line, Metadata
from modelyard._transport.status import error_from
from modelyard.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ModelyardError,
    OutOfRangeError,
)
from modelyard.metadata.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
)
from modelyard.tracking.batches import Batch, read_batches
from modelyard.tracking.datasets import default_id
from modelyard.tracking.spool import (
    DATA_FILE,
    DROPPED_FILE,
    POSITION_FILE,
    Finish,
    size_of,
    write_private,
)

TIMEOUT = 60.0
_BATCHES_A_STREAM = 16
_AHEAD = 4
_PUNCH_BYTES = 64 * 1024 * 1024
_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02

_log = logging.getLogger(__name__)


_Runs = run_service_pb2_grpc.RunServiceStub
_Datasets = dataset_service_pb2_grpc.DatasetServiceStub


@dataclass(frozen=True, slots=True)
class Shipped:
    """What one call of `ship_available` brought to the server."""

    metrics: tuple[run_pb2.MetricColumn, ...]
    position: int


class SpoolShipper:
    """Ship one spool folder to one run; used by one thread at a time, and by one process."""

    def __init__(
        self,
        directory: Path,
        line: Line[grpc.Channel],
        *,
        run: str,
        writer: str,
        metadata: Callable[[], Metadata] = tuple,
        server: str = "",
    ) -> None:
        """Ship `directory` to `run` as `writer`; `metadata` gives each call its credential."""
        self.directory = directory
        self.run = run
        self.position: int | None = None
        self._model = run.rpartition("/runs/")[0].rpartition("/")[2]
        self._data = directory / DATA_FILE
        self._writer = writer
        self._metadata = metadata
        self._server = server
        self._line = line
        self._doubtful: list[Batch] = []
        self._careful_until = 0
        self._punched = 0

    def ship_available(self) -> Shipped:
        """Ship every whole line that is there and say what it was.

        Raises:
            ModelyardError: The server cannot be reached or refuses all of it; call again later.
        """
        position = self._find_position()
        arrived = [batch for batch in self._doubtful if batch.end <= position]
        self._doubtful = []
        while (first := next(batches := self._next_batches(), None)) is not None:
            arrived += self._send(chain((first,), batches), doubtful=arrived)
        metrics = (column for batch in arrived for column in batch.request.metrics)
        return Shipped(tuple(metrics), self._find_position())

    def heartbeat(self) -> None:
        """Say that the run goes on."""
        position = self._find_position()
        self._ingest([Batch(position, position)], [])

    def _next_batches(self) -> Iterator[Batch]:
        position = self._find_position()
        careful = position < self._careful_until
        found = read_batches(self._data, position, single=careful)
        return islice(found, 1 if careful else _BATCHES_A_STREAM)

    def _send(self, batches: Iterable[Batch], *, doubtful: Sequence[Batch]) -> list[Batch]:
        """Send batches and return those that the server has now.

        When it cannot be known, they and the `doubtful` ones are kept to be looked at next time.
        """
        before, sent = self._find_position(), list[Batch]()
        try:
            self._ingest(batches, sent)
        except OutOfRangeError as error:
            self._step_back(before, error)
        except (InvalidArgumentError, FailedPreconditionError) as error:
            self._leave_out(sent, error)
        except ModelyardError:
            self.position = None
            self._doubtful = [*doubtful, *sent]
            raise
        position = self._find_position()
        arrived = [batch for batch in sent if batch.end <= position]
        self._count_dropped(sum(batch.garbled for batch in arrived))
        return arrived

    def _step_back(self, before: int, error: OutOfRangeError) -> None:
        """Go on from where the server says it is."""
        self.position = None
        if self._find_position() == before:
            raise error

    def _leave_out(self, batches: Sequence[Batch], error: ModelyardError) -> None:
        """Find the line that was refused by sending line by line, and skip just that."""
        self.position = None
        batch = batches[0]
        if not self._is_single(batch):
            self._careful_until = batches[-1].end
            return
        _log.error("the server refused bytes %d to %d: %s", batch.start, batch.end, error)
        self._ingest([Batch(batch.start, batch.end)], [])
        self._count_dropped(batch.points)
        batch.request.ClearField("metrics")

    def _count_dropped(self, points: int) -> None:
        if points:
            with (self.directory / DROPPED_FILE).open("ab") as file:
                file.write(b"." * points)

    def _is_single(self, batch: Batch) -> bool:
        return batch.start < self._careful_until

    def _request(self, batch: Batch) -> run_service_pb2.IngestRunDataRequest:
        request = batch.request
        request.run, request.writer = self.run, self._writer
        request.start_sequence, request.end_sequence = batch.start, batch.end
        request.dropped_point_count = size_of(self.directory / DROPPED_FILE)
        for offset, facts in batch.datasets:
            dataset = facts["dataset"] or default_id(model=self._model, role=facts["role"])
            name = self._register_dataset(offset, dataset, facts["version"])
            request.datasets.add(role=facts["role"], dataset_version=name)
        return request

    def _register_dataset(self, offset: int, dataset: str, facts: dict[str, object]) -> str:
        request = dataset_service_pb2.CreateDatasetVersionRequest(
            parent=f"{project_of(self.run)}/datasets/{dataset}",
            dataset_version=ParseDict(facts, dataset_pb2.DatasetVersion()),
            request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.run}/{self._writer}/{offset}")),
        )
        try:
            response = self._line.stub(_Datasets).CreateDatasetVersion(
                request, timeout=TIMEOUT, metadata=self._metadata()
            )
        except grpc.RpcError as failure:
            raise error_from(failure, server=self._server) from failure
        return response.dataset_version.name

    def _ingest(self, batches: Iterable[Batch], sent: list[Batch]) -> None:
        """Send batches on one stream, noting each in `sent`, until all are acknowledged.

        While the server works on some, the next ones are read.
        """
        requests = queue.SimpleQueue[run_service_pb2.IngestRunDataRequest | None]()
        answers = self._line.stub(_Runs).IngestRunData(
            iter(requests.get, None), timeout=TIMEOUT, metadata=self._metadata()
        )
        try:
            for batch in batches:
                sent.append(batch)
                requests.put(self._request(batch))
                if len(sent) > _AHEAD:
                    self._acknowledged(next(answers).acknowledged_sequence)
            requests.put(None)
            for answer in answers:
                self._acknowledged(answer.acknowledged_sequence)
        except grpc.RpcError as failure:
            raise error_from(failure, server=self._server) from failure
        finally:
            requests.put(None)
            answers.cancel()

    def _find_position(self) -> int:
        if self.position is None:
            request = run_service_pb2.GetIngestPositionRequest(run=self.run, writer=self._writer)
            try:
                answer = self._line.stub(_Runs).GetIngestPosition(
                    request, timeout=TIMEOUT, metadata=self._metadata()
                )
            except grpc.RpcError as failure:
                raise error_from(failure, server=self._server) from failure
            self._acknowledged(answer.acknowledged_sequence)
        return self.position or 0

    def _acknowledged(self, position: int) -> None:
        if position == self.position:
            return
        self.position = position
        write_private(self.directory / POSITION_FILE, str(position))
        if position - self._punched >= _PUNCH_BYTES:
            give_back(self._data, position)
            self._punched = position


def finish_run(
    line: Line[grpc.Channel], run: str, finish: Finish, *, metadata: Metadata, server: str = ""
) -> None:
    """End a run; one that has ended already stays as it is."""
    state = run_pb2.RunState.Value(f"RUN_STATE_{finish.state}")
    request = run_service_pb2.FinishRunRequest(name=run, state=state)
    if finish.reason:
        request.failure.reason, request.failure.message = finish.reason, finish.message
    try:
        line.stub(_Runs).FinishRun(request, timeout=TIMEOUT, metadata=metadata)
    except grpc.RpcError as failure:
        error = error_from(failure, server=server)
        if error.reason != "WRONG_STATE":
            raise error from failure
        _log.warning("%s had ended already: %s", run, error)


def give_back(path: Path, end: int) -> None:
    """Give the disk space of a file's first `end` bytes back, where the system can do that."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file:
        length = ctypes.c_int64(end - end % 4096)
        done = libc.fallocate64(file.fileno(), _KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_int64(0), length)
    if done != 0:
        _log.info("cannot give space back: error %d", ctypes.get_errno())
