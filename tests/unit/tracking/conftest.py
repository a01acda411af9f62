"""A run service in memory behind a real channel, which keeps the rules of its specification."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from modelyard.artifact.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from modelyard.metadata.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
)

Context = grpc.ServicerContext


class MemoryRuns(run_service_pb2_grpc.RunServiceServicer):
    """Runs, and switches for the faults that a test wants."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: dict[str, run_pb2.Run] = {}
        self.created: dict[str, str] = {}
        self.positions: dict[tuple[str, str], int] = {}
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.goals: dict[str, int] = {}
        self.batches = 0
        self.heartbeats = 0
        self.credentials: set[str] = set()
        self.away = False
        self.drop_every = 0
        """Break the stream at every so many batches: after committing, before acknowledging."""

    def CreateRun(self, request: run_service_pb2.CreateRunRequest, context: Context) -> Any:
        self._enter(context)
        name = f"{request.parent}/runs/{request.run_id}"
        with self.lock:
            if name in self.runs and self.created[name] != request.request_id:
                refuse(context, code_pb2.ALREADY_EXISTS, "RESOURCE_EXISTS")
            if name not in self.runs:
                self.created[name] = request.request_id
                self.runs[name] = run_pb2.Run()
                self.runs[name].CopyFrom(request.run)
                self.runs[name].name = name
                self.runs[name].state = run_pb2.RUN_STATE_RUNNING
            return run_service_pb2.CreateRunResponse(run=self.runs[name])

    def GetIngestPosition(
        self, request: run_service_pb2.GetIngestPositionRequest, context: Context
    ) -> Any:
        self._enter(context)
        position = self.positions.get((request.run, request.writer), 0)
        return run_service_pb2.GetIngestPositionResponse(acknowledged_sequence=position)

    def IngestRunData(
        self, requests: Iterator[run_service_pb2.IngestRunDataRequest], context: Context
    ) -> Any:
        self._enter(context)
        for request in requests:
            with self.lock:
                acknowledged = self._take(request, context)
            if self.drop_every and self.batches % self.drop_every == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the network broke")
            yield run_service_pb2.IngestRunDataResponse(acknowledged_sequence=acknowledged)

    def FinishRun(self, request: run_service_pb2.FinishRunRequest, context: Context) -> Any:
        self._enter(context)
        run = self.runs[request.name]
        if run.state not in (run_pb2.RUN_STATE_RUNNING, request.state):
            refuse(context, code_pb2.FAILED_PRECONDITION, "WRONG_STATE")
        run.state = request.state
        run.failure.CopyFrom(request.failure)
        return run_service_pb2.FinishRunResponse(run=run)

    def _enter(self, context: Context) -> None:
        self.credentials |= {
            str(v) for k, v in context.invocation_metadata() if k == "authorization"
        }
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    def _take(self, request: run_service_pb2.IngestRunDataRequest, context: Context) -> int:
        run = self.runs.get(request.run)
        if run is None:
            refuse(context, code_pb2.NOT_FOUND, "RESOURCE_NOT_FOUND")
        key = (request.run, request.writer)
        position = self.positions.get(key, 0)
        run.dropped_point_count = max(run.dropped_point_count, request.dropped_point_count)
        if request.start_sequence == request.end_sequence:
            self.heartbeats += 1
            return position
        if request.end_sequence <= position:
            return position
        if request.start_sequence != position:
            refuse(
                context,
                code_pb2.OUT_OF_RANGE,
                "SEQUENCE_GAP",
                acknowledged_sequence=str(position),
            )
        self._check(request, run, context)
        self._keep(request, run)
        self.positions[key] = request.end_sequence
        self.batches += 1
        return request.end_sequence

    def _check(
        self, request: run_service_pb2.IngestRunDataRequest, run: run_pb2.Run, context: Context
    ) -> None:
        for name, value in request.params.items():
            if name in run.params and run.params[name] != value:
                refuse(context, code_pb2.FAILED_PRECONDITION, "PARAM_CHANGED", key=name)
        if any(column.key == "poison" for column in request.metrics):
            refuse(context, code_pb2.INVALID_ARGUMENT, "INVALID_FIELD", field="metrics")

    def _keep(self, request: run_service_pb2.IngestRunDataRequest, run: run_pb2.Run) -> None:
        for name, value in request.params.items():
            run.params[name].CopyFrom(value)
        run.tags.update(request.tags)
        self.goals.update(request.metric_goals)
        for column in request.metrics:
            points = zip(column.steps, column.values, strict=True)
            self.points.setdefault(column.key, []).extend(points)
        if request.HasField("code"):
            run.code.CopyFrom(request.code)
        if request.HasField("environment"):
            run.environment.CopyFrom(request.environment)
        run.datasets.extend(request.datasets)
        run.image = request.image or run.image


class MemoryDatasets(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Dataset versions by digest."""

    def __init__(self) -> None:
        self.versions: dict[str, dataset_pb2.DatasetVersion] = {}

    def CreateDatasetVersion(
        self, request: dataset_service_pb2.CreateDatasetVersionRequest, _: Context
    ) -> Any:
        version = self.versions.setdefault(request.dataset_version.digest, request.dataset_version)
        version.name = version.name or f"{request.parent}/versions/{len(self.versions)}"
        return dataset_service_pb2.CreateDatasetVersionResponse(dataset_version=version)


def refuse(
    context: Context, code: int, reason: str, *, wait: bool = False, **metadata: str
) -> NoReturn:
    """End the call with the status and the one ErrorInfo that a service sends.

    With `wait` it says to come again in a moment.
    """
    info = error_details_pb2.ErrorInfo(reason=reason, domain="modelyard.dev", metadata=metadata)
    soon = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=1_000_000))
    status = status_pb2.Status(code=code, message=reason)
    for detail in (info, soon) if wait else (info,):
        status.details.add().Pack(detail)
    details = ("grpc-status-details-bin", status.SerializeToString())
    context.set_trailing_metadata((details, ("grpc-retry-pushback-ms", "1" if wait else "-1")))
    codes = {value.value[0]: value for value in grpc.StatusCode}
    context.abort(codes[code], reason)
    raise AssertionError


class BusyArtifacts(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Takes nothing: for now while it is busy, for good otherwise."""

    busy = True

    def CreateArtifact(
        self, request: artifact_service_pb2.CreateArtifactRequest, context: Context
    ) -> Any:
        refuse(context, code_pb2.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", wait=self.busy)

    def FindMissing(
        self, request: artifact_service_pb2.FindMissingRequest, context: Context
    ) -> Any:
        return self.CreateArtifact(artifact_service_pb2.CreateArtifactRequest(), context)


class Server:
    """The services on a port of their own; it can go away and come back."""

    def __init__(self) -> None:
        self.artifacts = BusyArtifacts()
        self.runs = MemoryRuns()
        self.datasets = MemoryDatasets()
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        run_service_pb2_grpc.add_RunServiceServicer_to_server(self.runs, self._server)
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(self.datasets, self._server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(
            self.artifacts, self._server
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait(5)

    def only_run(self) -> run_pb2.Run:
        assert len(self.runs.runs) == 1
        return next(iter(self.runs.runs.values()))


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def spools(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point this process and its children to the server and to a spool folder of the test."""
    config = tmp_path / "config.toml"
    token = tmp_path / "user.token"
    token.write_text("secret\n")
    config.write_text(f'server = "{server.address}"\ntoken_file = "{token}"\n')
    for key in [key for key in os.environ if key.startswith("MODELYARD_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("MODELYARD_CONFIG", str(config))
    # The working directory is this repository: too much to be copied by each test.
    monkeypatch.setenv("MODELYARD_SNAPSHOT", "off")
    monkeypatch.setenv("MODELYARD_SPOOL_DIR", str(tmp_path / "spools"))
    return tmp_path / "spools"


def wait_until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
