"""The run that is being logged to: everything here appends to a spool and returns."""

from __future__ import annotations

import atexit
import itertools
import operator
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from modelyard._transport.config import ConnectionSettings
from modelyard.errors import ModelyardError, UnavailableError
from modelyard.tracking import records
from modelyard.tracking.liveness import FileLock
from modelyard.tracking.records import ParamValue
from modelyard.tracking.sending import start_sender
from modelyard.tracking.spool import (
    PROBLEM_FILE,
    REFUSED_FILE,
    TRAINER_LOCK,
    Appender,
    EndState,
    Finish,
    read_position,
    write_finish,
)

if TYPE_CHECKING:
    from modelyard.metadata.v1 import version_pb2
    from modelyard.packing.publish import Origin

EXIT_PATIENCE = 30.0
"""Seconds to wait at the end of a run for the server to acknowledge it."""

_POLL = 0.02
_LOOK_EVERY = 5_000_000_000
"""Nanoseconds between two looks at the sender by a training that logs."""
_START_EVERY = 1.0
_MAX_METRICS_A_LINE = 1_000
_STEPS = (-(2**63), 2**63 - 1)


class ActiveRun:
    """A run in progress; a context manager that ends it as its body ends.

    Its methods are the module's functions of the same names. Only `log_model` and `sync` wait for
    a network.
    """

    def __init__(self, name: str, appender: Appender) -> None:
        self.name = name
        self._appender = appender
        self._keys: dict[str, str] = {}
        self._counters: dict[str, itertools.count[int]] = {}
        self._params: dict[str, ParamValue] = {}
        self._look_at = 0

    @property
    def id(self) -> str:
        """Return the last part of the run's name."""
        return self.name.rpartition("/")[2]

    @property
    def model(self) -> str:
        """Return the id of the model that the run trains; empty if it is not known here."""
        return self.name.rpartition("/runs/")[0].rpartition("/")[2]

    def log_metric(self, key: str, value: Any, *, step: int | None = None) -> None:
        """Log a number; without a step, the metric's points are counted from 0."""
        number = float(value)
        name = self._keys.get(key) or self._add_key(key)
        at = self._step(key, step)
        # Spelled out rather than dumped: this is the call that training loops make.
        text = repr(number) if number - number == 0.0 else records.number_text(number)
        moment = time.time_ns()
        line = f'["m",{at},{moment // 1000},{{{name}:{text}}}]\n'
        self._appender.append(line.encode(), points=1)
        if moment >= self._look_at:
            self._look_at = moment + _LOOK_EVERY
            self._look_after_sender()

    def log_metrics(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Log several numbers of one step at once."""
        numbers = {records.check_key(key): float(value) for key, value in metrics.items()}
        moment = time.time_ns() // 1000
        rows: dict[int, dict[str, float]] = {}
        for key, number in numbers.items():
            rows.setdefault(self._step(key, step), {})[key] = number
        lines = [
            records.encode(["m", at, moment, dict(part)])
            for at, row in rows.items()
            for part in _parts(list(row.items()))
        ]
        if lines:
            self._appender.append(b"".join(lines), points=len(numbers))

    def log_param(self, key: str, value: Any) -> None:
        """Log a parameter; it keeps its type and its first value."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; logging one again with another value raises ValueError."""
        values = {
            records.check_key(key): records.param_value(key, value) for key, value in params.items()
        }
        for key, value in values.items():
            known = self._params.get(key, value)
            if repr(known) != repr(value):  # as text, for NaN is not equal to itself
                raise ValueError(f"parameter {key!r} was logged before as {known!r}")
        self._params |= values
        if values:
            self._appender.append(records.param_lines(values))

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag; the last value stays."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; the last value of each stays."""
        checked = dict(records.check_tag(key, value) for key, value in tags.items())
        if checked:
            self._appender.append(records.tag_lines(checked))

    def append_lines(self, lines: bytes) -> None:
        """Log records as `records` encodes them."""
        if lines:
            self._appender.append(lines)

    def log_dataset(
        self,
        role: str,
        data: Any,
        *,
        name: str | None = None,
        source: str = "",
        query: str = "",
        columns: Sequence[str] = (),
        filters: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> str:
        """Log which data the run uses, as what; return the data's digest."""
        from modelyard.tracking import datasets  # noqa: PLC0415 - rarely needed

        facts = datasets.describe(data)
        facts["source"] = datasets.source(source, query, columns, filters, start, end)
        record = {
            "role": datasets.check_role(role),
            "dataset": datasets.check_id(name),
            "version": facts,
        }
        self._appender.append(records.encode(["d", record]))
        digest: str = facts["digest"]
        return digest

    def log_model(
        self,
        source: Any,
        *,
        model: str | None = None,
        example: Any = None,
        requirements: Sequence[str] | str | Path | None = None,
        aliases: Sequence[str] = (),
        label: str = "",
        labels: Mapping[str, str] | None = None,
        description: str = "",
        card: str | Path = "",
        license: str = "",  # noqa: A002 - what the API calls it
        sign_key: str | Path | None = None,
    ) -> version_pb2.Version:
        """Register a model as a version of this run; `modelyard.log_model` says it all."""
        from modelyard.packing.publish import publish  # noqa: PLC0415 - rarely needed

        return publish(
            source,
            run=self._origin(),
            model=model,
            example=example,
            requirements=requirements,
            aliases=aliases,
            label=label,
            labels=labels,
            description=description,
            card=card,
            license=license,
            sign_key=sign_key,
        )

    def sync(self, *, timeout: float = EXIT_PATIENCE) -> None:
        """Wait until the server has everything logged so far; in a build, that is the worker's."""

    def finish(self, state: EndState | str = EndState.SUCCEEDED, *, message: str = "") -> None:
        """End the run; in a build, the builder does that."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the build's run alone."""

    def _origin(self) -> Origin:
        """Return what a version is to come from."""
        raise ModelyardError("a build registers its model itself", reason="WRONG_STATE")

    def _look_after_sender(self) -> None:
        """Start the sender again if it died; in a build the worker ships."""

    def _add_key(self, key: str) -> str:
        name = records.encode([records.check_key(key)])[1:-2].decode()
        self._keys[key] = name
        return name

    def _step(self, key: str, step: int | None) -> int:
        if step is None:
            counter = self._counters.get(key)
            if counter is None:
                counter = self._counters.setdefault(key, itertools.count())
            return next(counter)
        at = operator.index(step)
        if not _STEPS[0] <= at <= _STEPS[1]:
            raise ValueError("a step has at most 64 bits")
        return at


class LocalRun(ActiveRun):
    """A run that this process started: it ends with it, and a sender of its own ships it."""

    def __init__(self, name: str, appender: Appender, *, settings: ConnectionSettings) -> None:
        super().__init__(name, appender)
        self.settings = settings
        self._directory = appender.directory
        self._owner = os.getpid()
        self._ended = False
        self._lock = FileLock(self._directory / TRAINER_LOCK)
        self._lock.acquire()
        self._sender = start_sender(self._directory)
        self._next_start = 0.0
        atexit.register(self._at_exit)

    @property
    def is_active(self) -> bool:
        """Say whether the run can still be logged to."""
        return not self._ended

    def sync(self, *, timeout: float = EXIT_PATIENCE) -> None:
        """Wait until the server has everything that was logged so far.

        Raises:
            UnavailableError: It has not got it in so many seconds.
            ModelyardError: It will never take this run; the text says why.
        """
        wanted = self._appender.size()
        if not self._wait(lambda: read_position(self._directory) >= wanted, timeout):
            problem = self._problem() or "it did not answer"
            raise UnavailableError(f"the server has not acknowledged the run yet: {problem}")

    def finish(self, state: EndState | str = EndState.SUCCEEDED, *, message: str = "") -> None:
        """End the run and wait at most 30 seconds for the server to acknowledge it."""
        reason = "EXCEPTION" if state == EndState.FAILED else ""
        self._end(Finish(EndState(state), reason, message if reason else ""))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run: SUCCEEDED, FAILED by an exception, CANCELLED by Ctrl-C."""
        self._end(finish_of(error))

    def _origin(self) -> Origin:
        return self

    def _at_exit(self) -> None:
        self._end(finish_of(getattr(sys, "last_value", None)))

    def _end(self, finish: Finish) -> None:
        if self._ended or os.getpid() != self._owner:
            return  # a forked child must not end its parent's run
        self._ended = True
        atexit.unregister(self._at_exit)
        write_finish(self._directory, finish)
        try:
            if not self._wait(lambda: not self._directory.exists(), EXIT_PATIENCE):
                _warn(f"{self._problem()}; what is left is shipped when the next run starts")
        except ModelyardError as error:
            _warn(str(error))
        finally:
            self._lock.close()
            self._appender.close()

    def _wait(self, done: Any, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not done():
            self._check_refused()
            if time.monotonic() > deadline:
                return False
            self._look_after_sender()
            time.sleep(_POLL)
        if not self._directory.exists():
            _reap(self._sender)
        return True

    def _look_after_sender(self) -> None:
        """Start the sender again if it died, but not one after the other."""
        if os.getpid() != self._owner or time.monotonic() < self._next_start:
            return
        done = self._sender.poll() is not None
        if done and self._directory.exists() and not (self._directory / REFUSED_FILE).exists():
            self._sender = start_sender(self._directory)
            self._next_start = time.monotonic() + _START_EVERY

    def _check_refused(self) -> None:
        text = _text_of(self._directory / REFUSED_FILE)
        if text:
            again = f"delete {REFUSED_FILE!r} there and the next run ships it"
            where = f"what was logged is kept in {self._directory}; {again}"
            raise ModelyardError(f"the server will not take this run: {text}; {where}")

    def _problem(self) -> str:
        return _text_of(self._directory / PROBLEM_FILE)


def finish_of(error: BaseException | None) -> Finish:
    """Return how a run ends when its body ends with this exception, or with none."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return Finish(EndState.SUCCEEDED)
    if isinstance(error, KeyboardInterrupt):
        return Finish(EndState.CANCELLED)
    return Finish(EndState.FAILED, "EXCEPTION", f"{type(error).__name__}: {error}")


def _parts(items: list[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """Cut metrics into as many as one line holds."""
    starts = range(0, len(items), _MAX_METRICS_A_LINE)
    return [items[start : start + _MAX_METRICS_A_LINE] for start in starts]


def _reap(sender: subprocess.Popen[bytes]) -> None:
    """Take leave of a sender whose work is done; it may still ship what others left."""
    sender.poll()
    sender.returncode = sender.returncode or 0  # it may outlive us: no ResourceWarning for that


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _warn(text: str) -> None:
    warnings.warn(f"modelyard: {text}", RuntimeWarning, stacklevel=4)
