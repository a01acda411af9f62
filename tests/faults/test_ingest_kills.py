"""kill -9 of the server and of the sender while points stream in: each point is kept once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import modelyard
import pytest
from modelyard.tracking.run import LocalRun
from modelyard.tracking.spool import read_position

from tests.faults.checked import assert_sound
from tests.servers.processes import free_port

KEYS = ("loss", "accuracy", "rate", "norm")
SECONDS = 60.0
HELD_BACK = 500  # steps


class Metadata:
    """The metadata service in a process of its own, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        environment = os.environ | {
            "MODELYARD_METADATA_LISTEN": self.address,
            "MODELYARD_METADATA_DATABASE_URL": f"sqlite:///{self.folder / 'metadata.db'}",
            "MODELYARD_METADATA_TOKENS_DIR": str(self.folder / "tokens"),
            "MODELYARD_SUITE_ADDRESS": self.address,
        }
        with (self.folder / "metadata.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.metadata"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self.answers)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert_sound(self.folder)

    def token(self) -> str:
        return (self.folder / "tokens" / "admin.token").read_text().strip()

    def client(self) -> modelyard.Client:
        return modelyard.Client(self.address, token=self.token(), project="default", timeout=5)

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "metadata.log").read_text()[-3000:])
        try:
            with self.client() as client:
                return bool(client.projects.get().name)
        except (OSError, modelyard.ModelyardError):
            return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    for key in [key for key in os.environ if key.startswith("MODELYARD_")]:
        monkeypatch.delenv(key)
    server = Metadata(tmp_path)
    monkeypatch.setenv("MODELYARD_SERVER", server.address)
    monkeypatch.setenv("MODELYARD_TOKEN", server.token())
    monkeypatch.setenv("MODELYARD_PROJECT", "default")
    monkeypatch.setenv("MODELYARD_SPOOL_DIR", str(tmp_path / "spools"))
    monkeypatch.setenv("MODELYARD_SNAPSHOT", "off")
    # Training that goes on logging looks after its sender this often; here, always.
    monkeypatch.setattr("modelyard.tracking.run._LOOK_EVERY", 0)
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("count", "kills"),
    [(60_000, 2), pytest.param(1_000_000, 5, marks=pytest.mark.slow)],
)
def test_every_point_is_kept_exactly_once_and_in_order(
    metadata: Metadata, count: int, kills: int
) -> None:
    stretches, each = 2 * kills + 1, count // len(KEYS)
    kept_at_kills = []
    with modelyard.start_run("killed") as run:
        assert isinstance(run, LocalRun)
        step = 0
        for stretch in range(stretches):
            before = read_position(run._directory)
            until = each * (stretch + 1) // stretches
            step = _log_until(run, step, until - HELD_BACK)
            if stretch < stretches - 1:
                # In the middle of shipping: some of it was acknowledged, some was not. A fast
                # sender is done with the stretch by now, so its end comes just before the kill.
                wait_until(lambda before=before: _moved(run, before))  # type: ignore[misc]
            step = _log_until(run, step, until)
            if stretch == stretches - 1:
                break
            kept_at_kills.append(read_position(run._directory) < run._appender.size())
            if stretch % 2:
                os.kill(run._sender.pid, signal.SIGKILL)
            else:
                metadata.kill()
                metadata.start()
        run.sync(timeout=SECONDS)
    with metadata.client() as client:
        found = client.runs.get(run.name)
        assert {metric.key: metric.count for metric in found.metrics} == dict.fromkeys(KEYS, each)
        for k, key in enumerate(KEYS):
            series = client.runs.metric_points(run.name, key)
            assert series.steps == list(range(each))
            assert series.values == [step * (k + 0.5) for step in range(each)]
            assert series.times_us == sorted(series.times_us)
    assert any(kept_at_kills), "no kill came while there was something left to ship"


def _log_until(run: LocalRun, step: int, until: int) -> int:
    for each in range(step, until):
        run.log_metrics({key: each * (k + 0.5) for k, key in enumerate(KEYS)}, step=each)
    return until


def _moved(run: LocalRun, before: int) -> bool:
    run._look_after_sender()
    return read_position(run._directory) > before
