"""From `start_run` to the server: exactly once, whatever dies on the way."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import modelyard
import pytest
from modelyard.metadata.v1 import model_pb2, run_pb2
from modelyard.tracking import sender, source
from modelyard.tracking.run import LocalRun
from modelyard.tracking.spool import read_position

from tests.unit.tracking.conftest import Server, wait_until

SECRET = "Bearer secret"


def run_script(text: str, **environ: str) -> subprocess.Popen[str]:
    """Start a training script of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def log_steps(run: modelyard.ActiveRun, count: int) -> None:
    for step in range(count):
        run.log_metric("m", step, step=step)


def sender_pid(run: modelyard.ActiveRun) -> int:
    assert isinstance(run, LocalRun)
    return run._sender.pid


def test_a_run_arrives_whole_and_its_spool_goes(spools: Path, server: Server) -> None:
    with modelyard.start_run("churn", display_name="first", tags={"team": "risk"}) as run:
        assert modelyard.active_run() is run
        modelyard.log_params({"n": 3, "rate": 0.5})
        modelyard.log_dataset("train", {"x": [1.0, 2.0]}, source="s3://b/k", columns=["x"])
        for step in range(100):
            modelyard.log_metric("loss", step / 7, step=step)
        modelyard.set_tag("stage", "dev")
    kept = server.only_run()
    assert kept.name == run.name
    assert kept.state == run_pb2.RUN_STATE_SUCCEEDED
    assert kept.display_name == "first"
    assert dict(kept.tags) == {"team": "risk", "stage": "dev"}
    assert kept.params["n"].int_value == 3
    assert server.runs.points["loss"] == [(step, step / 7) for step in range(100)]
    assert kept.environment.python_version == ".".join(map(str, sys.version_info[:3]))
    assert {"grpcio", "protobuf"} <= {package.name for package in kept.environment.packages}
    assert kept.code.commit
    assert kept.datasets[0].role == "train"
    assert kept.datasets[0].dataset_version == "projects/default/datasets/churn-train/versions/1"
    (version,) = server.datasets.versions.values()
    assert version.source.uri == "s3://b/k"
    assert version.row_count == 2
    assert server.runs.credentials == {SECRET}
    assert list(spools.iterdir()) == []
    assert modelyard.active_run() is None


def test_the_spool_names_the_token_file_and_not_the_token(spools: Path, server: Server) -> None:
    with modelyard.start_run("churn") as run:
        facts = json.loads((spools / run.id / "run.json").read_text())
        assert facts["token"] == ""
        assert facts["token_file"].endswith("user.token")
    assert server.only_run().state == run_pb2.RUN_STATE_SUCCEEDED


@pytest.mark.usefixtures("spools")
def test_logging_without_a_run_says_what_to_do() -> None:
    with pytest.raises(modelyard.ModelyardError, match="start_run"):
        modelyard.log_metric("loss", 1.0)


def test_an_exception_fails_the_run_and_goes_on(spools: Path, server: Server) -> None:
    with pytest.raises(ZeroDivisionError), modelyard.start_run("churn"):
        raise ZeroDivisionError("by nothing")
    run = server.only_run()
    assert run.state == run_pb2.RUN_STATE_FAILED
    assert run.failure.reason == "EXCEPTION"
    assert run.failure.message == "ZeroDivisionError: by nothing"
    assert list(spools.iterdir()) == []


@pytest.mark.usefixtures("spools")
def test_ctrl_c_cancels_the_run(server: Server) -> None:
    with pytest.raises(KeyboardInterrupt), modelyard.start_run("churn"):
        raise KeyboardInterrupt
    assert server.only_run().state == run_pb2.RUN_STATE_CANCELLED


@pytest.mark.usefixtures("spools")
def test_only_one_run_at_a_time() -> None:
    with (
        modelyard.start_run("churn"),
        pytest.raises(modelyard.ModelyardError, match="active already"),
    ):
        modelyard.start_run("churn")


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ("", run_pb2.RUN_STATE_SUCCEEDED),
        ("raise ValueError('no')", run_pb2.RUN_STATE_FAILED),
        ("import os; os.kill(os.getpid(), 9)", run_pb2.RUN_STATE_FAILED),
    ],
)
@pytest.mark.usefixtures("spools")
def test_a_run_without_with_ends_with_its_process(server: Server, ending: str, state: int) -> None:
    script = run_script(
        "import modelyard; modelyard.start_run('churn')\n"
        f"for i in range(50): modelyard.log_metric('m', i, step=i)\n{ending}"
    )
    script.communicate(timeout=30)
    wait_until(lambda: server.runs.runs and server.only_run().state == state)
    assert server.runs.points["m"] == [(i, float(i)) for i in range(50)]
    if "kill" in ending:
        assert server.only_run().failure.reason == "HEARTBEAT_LOST"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("spools")
def test_a_forked_child_does_not_end_the_run(server: Server) -> None:
    script = run_script(
        "import modelyard, os, sys\n"
        "with modelyard.start_run('churn'):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        modelyard.log_metric('child', 1)\n"
        "        sys.exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    modelyard.log_metric('parent', 2)\n"
    )
    _, errors = script.communicate(timeout=30)
    assert script.returncode == 0, errors
    assert server.only_run().state == run_pb2.RUN_STATE_SUCCEEDED
    assert set(server.runs.points) == {"child", "parent"}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("spools")
def test_workers_of_a_pool_and_threads_log_to_the_run(server: Server) -> None:
    """As the workers of a data loader do: forked in the middle of the run, and ended with it."""
    script = run_script(
        "import modelyard\n"
        "from multiprocessing import get_context\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def work(step): modelyard.log_metric('worker', step, step=step)\n"
        "def note(step): modelyard.log_metric('thread', step, step=step)\n"
        "with modelyard.start_run('churn', group='sweep-1', goals={'loss': 'minimize'}):\n"
        "    modelyard.log_metric('loss', 1.0)\n"
        "    with get_context('fork').Pool(4) as pool: pool.map(work, range(2000))\n"
        "    with ThreadPoolExecutor(8) as threads: list(threads.map(note, range(2000)))\n"
    )
    _, errors = script.communicate(timeout=30)
    assert script.returncode == 0, errors
    for key in ("worker", "thread"):
        assert sorted(server.runs.points[key]) == [(i, float(i)) for i in range(2000)]
    assert server.only_run().state == run_pb2.RUN_STATE_SUCCEEDED
    assert server.only_run().group == "sweep-1"
    assert server.runs.goals == {"loss": model_pb2.METRIC_GOAL_MINIMIZE}


@pytest.mark.usefixtures("spools")
def test_broken_streams_lose_and_repeat_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.tracking.batches.MAX_BATCH_BYTES", 2000)
    monkeypatch.setattr(sender, "_MAX_BACKOFF", 0.05)
    server.runs.drop_every = 3
    spool = make_spool(points=3000)
    sender.ship_spool(spool)
    assert server.runs.batches > 30
    assert server.runs.points["m"] == [(i, float(i)) for i in range(3000)]
    assert not spool.exists()


def test_the_source_is_kept_while_the_server_is_busy_and_no_longer(
    server: Server, spools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = make_spool(points=10)
    monkeypatch.setenv("MODELYARD_SNAPSHOT", "on")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("pass\n")
    source.keep_source(spool, tmp_path / "code", {"entry_point": "train.py"})
    shipping = sender.Sender(spool)
    for _ in range(2):
        with pytest.raises(modelyard.ResourceExhaustedError):
            shipping.advance(shipping.find_finish())
        assert (spool / source.SNAPSHOT_FOLDER).is_dir()
    server.artifacts.busy = False
    assert shipping.advance(shipping.find_finish())
    shipping.close()
    assert server.runs.points["m"] == [(i, float(i)) for i in range(10)]
    assert not spool.exists()
    assert list(spools.iterdir()) == []


@pytest.mark.usefixtures("spools")
def test_killing_the_sender_again_and_again_loses_and_repeats_nothing(
    server: Server,
) -> None:
    def shipped(before: int) -> bool:
        # A training that goes on logging looks after its sender now and then.
        run._look_after_sender()
        return server.runs.batches > before

    step = 0
    with modelyard.start_run("churn") as run:
        for _ in range(3):
            before = server.runs.batches
            for _ in range(20_000):
                modelyard.log_metric("m", step, step=step)
                step += 1
            wait_until(functools.partial(shipped, before))
            os.kill(sender_pid(run), signal.SIGKILL)  # in the middle of shipping
            run.sync()
    assert server.runs.points["m"] == [(i, float(i)) for i in range(step)]
    assert server.only_run().state == run_pb2.RUN_STATE_SUCCEEDED


def test_a_training_that_logs_starts_a_dead_sender_again(
    spools: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.tracking.run._LOOK_EVERY", 0)
    with modelyard.start_run("churn") as run:
        first = sender_pid(run)
        os.kill(first, signal.SIGKILL)

        def log_and_look() -> bool:
            modelyard.log_metric("m", 1.0)
            return sender_pid(run) != first and "m" in server.runs.points

        wait_until(log_and_look)
    assert list(spools.iterdir()) == []


def test_a_server_that_comes_back_gets_everything(spools: Path, server: Server) -> None:
    server.stop()
    started = time.perf_counter()
    with modelyard.start_run("churn") as run:
        for step in range(1000):
            modelyard.log_metric("m", step, step=step)
        assert time.perf_counter() - started < 2.0  # nothing waited for the server
        wait_until((spools / run.id / "problem").exists)
        server.start()
    assert len(server.runs.points["m"]) == 1000
    assert server.only_run().state == run_pb2.RUN_STATE_SUCCEEDED


def test_what_was_left_behind_goes_with_the_next_start(spools: Path, server: Server) -> None:
    spool = make_spool(points=100)
    with modelyard.start_run("churn") as run:
        wait_until(lambda: not spool.exists())
    states = {name: kept.state for name, kept in server.runs.runs.items()}
    assert states.pop(run.name) == run_pb2.RUN_STATE_SUCCEEDED
    assert list(states.values()) == [run_pb2.RUN_STATE_FAILED]
    assert len(server.runs.points["m"]) == 100
    assert list(spools.iterdir()) == []


@pytest.mark.usefixtures("spools")
def test_only_one_sender_works_on_a_spool(server: Server) -> None:
    with modelyard.start_run("churn") as run:
        assert isinstance(run, LocalRun)
        wait_until(lambda: server.runs.runs)
        sender.ship_spool(run._directory)  # returns at once: the lock is taken
        sender.ship_leftovers(run._directory.parent)
        assert server.only_run().state == run_pb2.RUN_STATE_RUNNING


@pytest.mark.usefixtures("spools")
def test_sync_waits_for_the_acknowledgement(server: Server) -> None:
    with modelyard.start_run("churn") as run:
        modelyard.log_metric("m", 1.0)
        run.sync()
        assert server.runs.points["m"] == [(0, 1.0)]
        assert isinstance(run, LocalRun)
        assert read_position(run._directory) > 0


@pytest.mark.usefixtures("spools")
def test_a_refused_record_holds_up_nothing(server: Server) -> None:
    with modelyard.start_run("churn"):
        modelyard.log_metric("before", 1.0)
        modelyard.log_metric("poison", 2.0)
        modelyard.log_metric("after", 3.0)
        modelyard.log_param("p", 1)
    assert set(server.runs.points) == {"before", "after"}
    assert server.only_run().params["p"].int_value == 1
    assert server.only_run().dropped_point_count == 1


@pytest.mark.usefixtures("spools")
def test_a_deleted_run_ends_the_sender_with_a_warning(server: Server) -> None:
    run = modelyard.start_run("churn")
    run.log_metric("m", 1.0)
    run.sync()
    server.runs.runs.clear()
    run.log_metric("m", 2.0)
    with pytest.warns(RuntimeWarning, match="will not take this run"):
        run.finish()


def test_dropped_points_are_counted_on_the_run(
    spools: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_SPOOL_LIMIT", "20000")
    run = modelyard.start_run("churn")
    with pytest.warns(RuntimeWarning, match="limit of 20000"):
        log_steps(run, 2000)
    run.finish()
    kept = len(server.runs.points["m"])
    assert server.only_run().dropped_point_count == 2000 - kept > 0
    assert list(spools.iterdir()) == []


def make_spool(*, points: int) -> Path:
    """Make the spool of a trainer that was killed before its sender did anything."""
    script = run_script(
        "import os, modelyard\n"
        "from modelyard.tracking import run\n"
        "class Nobody:\n"
        "    pid = 0\n"
        "    def poll(self): return None\n"
        "run.start_sender = lambda directory: Nobody()\n"
        "active = modelyard.start_run('churn')\n"
        f"for i in range({points}): modelyard.log_metric('m', i, step=i)\n"
        "print(active._directory, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    output, errors = script.communicate(timeout=30)
    assert output, errors
    return Path(output.strip())
