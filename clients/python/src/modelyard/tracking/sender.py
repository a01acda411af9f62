"""The sender: a process of its own that ships a run's spool and outlives the trainer.

`python -m modelyard.tracking.sender [SPOOL]` ships that spool until its run has ended and all of
it is acknowledged, and beside it whatever earlier runs left behind. Without an argument it ships
just that. It can be killed at any moment: the next one goes on where the server says.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from pathlib import Path

import grpc

from modelyard._names import id_of
from modelyard._transport import channel as _channel
from modelyard._transport.connection import Connection
from modelyard._transport.status import error_from
from modelyard.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    ModelyardError,
    NotFoundError,
    is_passing,
)
from modelyard.metadata.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from modelyard.tracking import capture
from modelyard.tracking.destination import RunFacts, load_facts
from modelyard.tracking.liveness import FileLock, is_locked
from modelyard.tracking.shipper import TIMEOUT, SpoolShipper, finish_run
from modelyard.tracking.source import SNAPSHOT_FOLDER, drop_source, keep_source, send_source
from modelyard.tracking.spool import (
    CAPTURED_FILE,
    FACTS_FILE,
    POSITION_FILE,
    PROBLEM_FILE,
    REFUSED_FILE,
    SENDER_LOCK,
    TRAINER_LOCK,
    Appender,
    EndState,
    Finish,
    read_finish,
    spool_root,
    write_private,
)

POLL = 0.2
BUSY_POLL = 0.02
HEARTBEAT = 5.0
PATIENCE = 30.0
"""Seconds that the server may stay away after the trainer is gone; the rest goes next time."""

_MAX_BACKOFF = 5.0
_PERMANENT = (InvalidArgumentError, FailedPreconditionError, NotFoundError)
_VANISHED = Finish(
    EndState.FAILED, "HEARTBEAT_LOST", "the training process ended without finishing its run"
)
_log = logging.getLogger(__name__)


class Sender:
    """Ships one spool whose lock its caller holds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._facts = load_facts(directory)
        self._settings = self._facts.settings()
        self._line = _channel.Line(self._settings, _channel.open_channel)
        self._created = (directory / POSITION_FILE).exists()
        self._contact = 0.0
        self._capturing = threading.Thread(target=self._capture, daemon=True)
        self._shipper = SpoolShipper(
            directory,
            self._line,
            run=self._facts.run,
            writer=self._facts.writer,
            metadata=self._metadata,
            server=self._facts.server,
        )

    def run(self) -> None:
        """Ship until the run has ended, or the server stays away too long after that."""
        self._capturing.start()
        alone_since: float | None = None
        backoff = POLL
        while True:
            # First what the trainer is, then what it wrote: nothing it wrote is missed.
            finish = self.find_finish()
            if finish and alone_since is None:
                alone_since = time.monotonic()
            try:
                before = self._shipper.position
                if self.advance(finish):
                    return
                # While there is something to ship, more may have come meanwhile.
                wait = backoff = POLL if self._shipper.position == before else BUSY_POLL
            except _PERMANENT as error:
                self._refuse(error)
                return
            except ModelyardError as error:
                self._note_problem(error)
                if alone_since and time.monotonic() - alone_since > PATIENCE:
                    return
                backoff = min(max(backoff, POLL) * 2, _MAX_BACKOFF)
                wait = max(backoff, error.retry_delay or 0.0)
            time.sleep(wait)

    def find_finish(self) -> Finish | None:
        """Return how the run ended: as its trainer said, or by vanishing."""
        alive = trainer_lives(self.directory, self._facts)
        return read_finish(self.directory) or (None if alive else _VANISHED)

    def advance(self, finish: Finish | None) -> bool:
        """Ship what there is and say whether the run has ended and nothing is left to do."""
        self._create()
        if finish and self._capturing.is_alive():
            self._capturing.join()
        self._send_source()
        before = self._shipper.position
        shipped = self._shipper.ship_available()
        now = time.monotonic()
        if shipped.position != before:
            self._contact = now
        if finish is None and now - self._contact >= HEARTBEAT:
            self._shipper.heartbeat()
            self._contact = now
        (self.directory / PROBLEM_FILE).unlink(missing_ok=True)
        if finish is None:
            return False
        self._shipper.heartbeat()  # the last word on how many points were dropped
        finish_run(
            self._line,
            self._facts.run,
            finish,
            metadata=self._metadata(),
            server=self._facts.server,
        )
        shutil.rmtree(self.directory)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _capture(self) -> None:
        """Find out what the run runs in, once."""
        marker = self.directory / CAPTURED_FILE
        if marker.exists():
            return
        directory = Path(self._facts.directory)
        code = capture.capture_code(directory, self._facts.entry_point)
        try:
            keep_source(self.directory, directory, code)
        except OSError as error:  # a full disk, a file that may not be read
            _log.warning("no snapshot of the source: %s", error)
        self._append(capture.capture_lines(code))
        marker.touch()

    def _append(self, lines: bytes) -> None:
        appender = Appender(self.directory)
        appender.append(lines)
        appender.close()

    def _send_source(self) -> None:
        """Send the snapshot of the source, once; while the server is away or busy it is kept."""
        if self._capturing.is_alive() or not (self.directory / SNAPSHOT_FOLDER).is_dir():
            return
        connection = Connection(self._facts.settings(), timeout=TIMEOUT, line=self._line)
        try:
            lines = send_source(self.directory, connection, self._facts.run)
        except (ModelyardError, OSError, ValueError) as error:
            if isinstance(error, ModelyardError) and is_passing(error):
                raise
            _log.warning("no snapshot of the source: %s", error)
            lines = b""
        self._append(lines)
        drop_source(self.directory)

    def _create(self) -> None:
        """Make the run known to the server; it may be so already."""
        if self._created:
            return
        facts = self._facts
        request = run_service_pb2.CreateRunRequest(
            parent=facts.run.rpartition("/runs/")[0],
            run_id=id_of(facts.run),
            run=run_pb2.Run(
                display_name=facts.display_name,
                tags=facts.tags,
                group=facts.group,
                notes=facts.notes,
            ),
            request_id=facts.request_id,
        )
        stub = self._line.stub(run_service_pb2_grpc.RunServiceStub)
        try:
            stub.CreateRun(request, timeout=TIMEOUT, metadata=self._metadata())
        except grpc.RpcError as failure:
            error = error_from(failure, server=facts.server)
            if not isinstance(error, AlreadyExistsError):
                raise error from failure
        self._created = True

    def _metadata(self) -> _channel.Metadata:
        return _channel.call_metadata(self._facts.settings())

    def _note_problem(self, error: ModelyardError) -> None:
        _log.warning("%s", error)
        write_private(self.directory / PROBLEM_FILE, str(error))

    def _refuse(self, error: ModelyardError) -> None:
        _log.error("the server will not take this run: %s", error)
        write_private(self.directory / REFUSED_FILE, str(error))


def trainer_lives(directory: Path, facts: RunFacts) -> bool:
    """Say whether the process that logs to a spool still runs."""
    lives = facts.trainer.lives()
    return is_locked(directory / TRAINER_LOCK) if lives is None else lives


def ship_spool(directory: Path) -> None:
    """Ship a run's spool to its end, unless another sender does."""
    lock = FileLock(directory / SENDER_LOCK)
    try:
        if not lock.acquire():
            return
        sender = Sender(directory)
        try:
            sender.run()
        finally:
            sender.close()
    finally:
        lock.close()


def ship_leftovers(root: Path, *, but: Path | None = None) -> None:
    """Ship what earlier runs left behind, as far as it goes at present."""
    for facts_file in sorted(root.glob(f"*/{FACTS_FILE}")):
        directory = facts_file.parent
        if directory == but or (directory / REFUSED_FILE).exists():
            continue
        try:
            _ship_leftover(directory)
        except (ModelyardError, OSError, ValueError) as error:
            _log.warning("%s: %s", directory, error)


def _ship_leftover(directory: Path) -> None:
    if trainer_lives(directory, load_facts(directory)):
        return
    lock = FileLock(directory / SENDER_LOCK)
    try:
        if lock.acquire():
            sender = Sender(directory)
            try:
                sender.advance(sender.find_finish())
            finally:
                sender.close()
    finally:
        lock.close()


def main(arguments: list[str]) -> int:
    """Ship the named spool and what lies beside it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not arguments:
        ship_leftovers(spool_root())
        return 0
    directory = Path(arguments[0]).absolute()
    leftovers = threading.Thread(
        target=ship_leftovers, args=(directory.parent,), kwargs={"but": directory}
    )
    leftovers.start()
    ship_spool(directory)
    leftovers.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
