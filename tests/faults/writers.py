"""Clients that write all the time, whatever is killed, and one who reads all that shows up.

They write by bare stubs over a channel that repeats nothing: whether a call is made again is
theirs to say. The patient make each call until it is acknowledged, with the same request id;
the others never make it twice. (Pushing repeats by itself; what it sends is found by its digest.)
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from modelyard import Client
from modelyard.errors import ModelyardError
from modelyard.metadata.v1 import (
    alias_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    version_pb2,
)

from tests.faults.journal import Journal

SECONDS = 10.0
PASSING = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"}
"""With what a call may end whose server is killed."""
METRIC = "loss"
LARGEST = 18
"""Uploads are of 1 KiB to two to the power of so many bytes."""

T = TypeVar("T")


class GaveUpError(Exception):
    """A write was not acknowledged, and its client does not try again."""


class Flights:
    """What is under way at this moment, by kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Count something as under way meanwhile."""
        self._add(kind, 1)
        try:
            yield
        finally:
            self._add(kind, -1)

    def now(self) -> set[str]:
        """Return the kinds of what is under way."""
        with self._lock:
            return {kind for kind, count in self._counts.items() if count}

    def _add(self, kind: str, count: int) -> None:
        with self._lock:
            self._counts[kind] += count


class Caller(threading.Thread):
    """Somebody who calls until he is told to stop; `problem` is what should not have been."""

    def __init__(self, name: str, client: Client, flights: Flights) -> None:
        super().__init__(name=name, daemon=True)
        self.client = client
        self.flights = flights
        self.codes: Counter[str] = Counter()
        """How calls ended that were not answered."""
        self.problem: Exception | None = None
        self._told = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._told.is_set()

    def stop(self) -> None:
        """Have it stop after what it does now."""
        self._told.set()

    def run(self) -> None:
        while not self.stopping:
            try:
                self.round()
            except GaveUpError:
                self.pause()
            except Exception as error:  # told by the test
                self.problem = error
                return

    def round(self) -> None:
        """Do what it does, once."""
        raise NotImplementedError

    def where(self) -> str:
        """Say what it does at this moment."""
        frame = sys._current_frames().get(self.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "nothing"

    def pause(self) -> None:
        """Wait a moment, as callers do."""
        self._told.wait(random.random() * 0.3)  # noqa: S311 - no secret


class Writer(Caller):
    """A caller with a journal."""

    def __init__(
        self, name: str, client: Client, flights: Flights, folder: Path, *, patient: bool
    ) -> None:
        super().__init__(name, client, flights)
        self.journal = Journal(folder / f"{name}.journal", patient=patient)
        self.patient = patient
        self.acknowledged = 0
        options = [("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500)]
        self.channel = grpc.insecure_channel(client.settings.target, options)
        self._bearer = [("authorization", f"Bearer {client.settings.token}")]

    def write(
        self,
        kind: str,
        id: str,  # noqa: A002
        call: Callable[[], str],
        *,
        subject: str,
        value: str,
    ) -> str:
        """Make a call with its intent and its answer in the journal; return what was answered.

        Raises:
            GaveUpError: it was not acknowledged, and is not asked for again.
        """
        self.journal.intend(kind, id, subject, value)
        with self.flights.of(kind):
            name = self.until_answered(call)
        self.journal.acknowledge(id, name)
        self.acknowledged += 1
        return name

    def call(self, method: Any, request: Any) -> Any:
        """Make a call, once."""
        return method(request, metadata=self._bearer, timeout=SECONDS)

    def until_answered(self, call: Callable[[], T]) -> T:
        """Call until there is an answer; only once, by who is not patient."""
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                code = error.code()
                self.codes[code.name] += 1
                if code.name not in PASSING:
                    raise
            except ModelyardError as error:
                self.codes[error.code] += 1
                if error.code not in PASSING:
                    raise
            if not self.patient:
                raise GaveUpError
            time.sleep(0.1)


class Registrar(Writer):
    """Pushes and registers, moves an alias, starts runs and logs metrics, in a model of its own."""

    def __init__(
        self,
        name: str,
        client: Client,
        flights: Flights,
        folder: Path,
        *,
        patient: bool,
        allowed: threading.Semaphore,
    ) -> None:
        super().__init__(name, client, flights, folder, patient=patient)
        self._allowed = allowed
        self.model = f"{client.project}/models/{name}"
        self._models: Any = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self._runs: Any = run_service_pb2_grpc.RunServiceStub(self.channel)
        self._tree = folder / name
        self._versions: list[str] = []
        self._pointed: set[str] = set()
        """Where the alias may point now."""
        self._run, self._step = "", 0

    def round(self) -> None:
        if self._allowed.acquire(blocking=False):
            version = self._register()
            if self._becomes_ready(version):
                self._versions.append(version)
        for _ in range(random.randrange(1, 5)):  # noqa: S311
            self._move()
            self.pause()
        if not self._run:
            self._run, self._step = self._start_run(), 0
        for _ in range(random.randrange(5, 15)):  # noqa: S311
            self._log()
            self.pause()

    def _register(self) -> str:
        self._tree.mkdir(exist_ok=True)
        size = int(2 ** random.uniform(10, LARGEST))  # noqa: S311
        (self._tree / "weights.bin").write_bytes(os.urandom(size))
        with self.flights.of("push"):
            artifact = self.until_answered(lambda: self.client.artifacts.push(self._tree).name)
        made = new_id()
        request = model_service_pb2.CreateVersionRequest(
            parent=self.model,
            version=version_pb2.Version(artifact=artifact, description=made),
            request_id=made,
        )
        create = self._models.CreateVersion
        return self.write(
            "version",
            made,
            lambda: self.call(create, request).version.name,
            subject=self.model,
            value=artifact,
        )

    def _becomes_ready(self, version: str) -> bool:
        """Wait until its bytes are held: a version is acknowledged before, if they cannot be."""
        while not self.stopping:
            found = self.until_answered(lambda: self.client.versions.get(version))
            if found.state == version_pb2.VERSION_STATE_READY:
                return True
            self.pause()
        return False

    def _move(self) -> None:
        # A move to where it points already is none, and no history tells of it.
        elsewhere = [version for version in self._versions if version not in self._pointed]
        if not elsewhere:
            return
        moved, version = new_id(), random.choice(elsewhere)  # noqa: S311
        self._pointed.add(version)
        alias = alias_pb2.Alias(name=f"{self.model}/aliases/live", version=version)
        request = model_service_pb2.UpdateAliasRequest(alias=alias, reason=moved, request_id=moved)
        update = self._models.UpdateAlias
        self.write(
            "alias",
            moved,
            lambda: self.call(update, request).alias.version,
            subject=self.model,
            value=version,
        )
        self._pointed = {version}

    def _start_run(self) -> str:
        made = new_id()
        request = run_service_pb2.CreateRunRequest(
            parent=self.model, run=run_pb2.Run(display_name=made), request_id=made
        )
        create = self._runs.CreateRun
        return self.write(
            "run", made, lambda: self.call(create, request).run.name, subject=self.model, value=""
        )

    def _log(self) -> None:
        """Log one point; who does not repeat it cannot go on in the same run."""
        run, step = self._run, self._step
        request = run_service_pb2.IngestRunDataRequest(
            run=run, writer="w", start_sequence=step, end_sequence=step + 1
        )
        request.metrics.add(key=METRIC, steps=[step], times_us=[step], values=[step])

        def ingest() -> str:
            answers = self.call(self._runs.IngestRunData, iter([request]))
            return str(max(answer.acknowledged_sequence for answer in answers))

        self._run = ""
        self.write("metric", f"{run}#{step}", ingest, subject=run, value=str(step))
        self._run, self._step = run, step + 1


class Reader(Caller):
    """Downloads every version as soon as it can be seen; what it cannot read is a problem."""

    def __init__(self, client: Client, flights: Flights, models: list[str], folder: Path) -> None:
        super().__init__("reader", client, flights)
        self.read: set[str] = set()
        self._models, self._folder = models, folder

    def round(self) -> None:
        try:
            for model in self._models:
                for version in self.client.versions.list(model):
                    if version.state == version_pb2.VERSION_STATE_READY:
                        self._read(version)
        except ModelyardError as error:
            self.codes[error.code] += 1
            if error.code not in PASSING:
                raise
        self.pause()

    def _read(self, version: version_pb2.Version) -> None:
        if version.name not in self.read:
            shutil.rmtree(self._folder, ignore_errors=True)
            self.client.artifacts.pull(version.artifact, self._folder)
            self.read.add(version.name)


def new_id() -> str:
    """Return a request id, by which a write is found again."""
    return str(uuid.uuid4())
